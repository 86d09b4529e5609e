"""Exact tiling of passes with finite reach: cut, pad by the halo, compute, keep the core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_tilegen.geometry import Size, Window, cover

Blocks = NDArray[np.bool_]

_CUTS, _GAIN = 32, 0.95
"""Places to try a cut at, on each axis; what two parts may cost of the whole, so that small gains cost no calls."""


@dataclass(frozen=True, slots=True)
class HaloTile:
    """``core`` is the tile's own area, ``padded`` the area that must be computed for it; both absolute."""

    core: Window
    padded: Window


def exact_tiles(area: Window, outer: Window, *, halo: int, align: int = 1, budget: int) -> list[HaloTile]:
    """Tiles whose cores cover ``area`` and whose padded windows are at most about ``budget`` large, row by row.

    Context is taken from ``outer`` (which holds ``area``); at its edges there is none, just as in a pass over the
    whole. All corners are at multiples of ``align`` if those of ``area`` and ``outer`` are. The shape is the one that
    computes least in all; a budget too small for the halo is raised to (4 halo + align)^2, i.e. a cost of 4x at worst.
    """
    step = _core_size(area.size, halo, align, budget)
    cores = (piece.shifted(area.row, area.col) for piece in cover(area.size, step))
    return [HaloTile(core, _padded(core, outer, halo, align)) for core in cores]


def live_tiles(
    area: Window, outer: Window, *, halo: int, align: int, budget: int, live_blocks: Callable[[Window], Blocks]
) -> tuple[list[HaloTile], list[Window]]:
    """Tiles of ``area`` (see ``exact_tiles``) that need computing, and windows in which there is blank ground.

    ``live_blocks`` says of a window's blocks of ``align`` which need computing. A tile in which some do not is cut
    along straight lines into smaller ones, as long as that computes less, halos included. The cores of the tiles hold
    all live blocks; the rest of the windows is blank.
    """
    tiles, ground = [], []
    for tile in exact_tiles(area, outer, halo=halo, align=align, budget=budget):
        live = live_blocks(tile.core)
        if live.all():
            tiles.append(tile)
            continue
        about = [_about(place, tile.core, outer, halo, align) for place in _pieces(live, -(-halo // align))]
        if sum(t.padded.size.area for t in about) > tile.padded.size.area:  # at an edge, where the halo is cut short
            tiles.append(tile)
            continue
        ground.append(tile.core)
        tiles += about
    return tiles, ground


def _about(place: tuple[int, int, int, int], whole: Window, outer: Window, halo: int, align: int) -> HaloTile:
    """The tile of a rectangle (row, col, rows, cols) of the blocks of ``whole``."""
    row, col, rows, cols = (length * align for length in place)
    core = Window(whole.row + row, whole.col + col, rows, cols).intersection(whole)  # the last blocks may be cut short
    assert core is not None
    return HaloTile(core, _padded(core, outer, halo, align))


def _pieces(live: Blocks, halo: int) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles (row, col, rows, cols) of blocks that cover the live ones, at a low cost with ``halo`` around each.

    From the top down: the best straight cut, as long as the two parts cost less than the whole.
    """
    whole = _bounds(live)
    if whole is None:
        return
    row, col, rows, cols = whole
    inside = live[row : row + rows, col : col + cols]
    best, cut = _GAIN * _padded_area(whole, halo), None
    for axis, length in enumerate((rows, cols)):
        for at in range(step := -(-length // _CUTS), length, step):
            parts = (inside[:at], inside[at:]) if axis == 0 else (inside[:, :at], inside[:, at:])
            cost = sum(_padded_area(_bounds(part), halo) for part in parts)
            if cost < best:
                best, cut = cost, (axis, at)
    if cut is None:
        yield whole
        return
    axis, at = cut
    parts = (inside[:at], inside[at:]) if axis == 0 else (inside[:, :at], inside[:, at:])
    for part, shift in zip(parts, (0, at), strict=True):
        for top, left, height, width in _pieces(part, halo):
            yield row + top + (shift if axis == 0 else 0), col + left + (shift if axis == 1 else 0), height, width


def _bounds(live: Blocks) -> tuple[int, int, int, int] | None:
    """The smallest rectangle (row, col, rows, cols) that holds all live blocks; None where there are none."""
    rows, cols = np.flatnonzero(live.any(1)), np.flatnonzero(live.any(0))
    if not len(rows):
        return None
    return int(rows[0]), int(cols[0]), int(rows[-1] - rows[0] + 1), int(cols[-1] - cols[0] + 1)


def _padded_area(place: tuple[int, int, int, int] | None, halo: int) -> int:
    return 0 if place is None else (place[2] + 2 * halo) * (place[3] + 2 * halo)


def _padded(core: Window, outer: Window, halo: int, align: int) -> Window:
    padded = core.grown(halo).aligned(align).intersection(outer)
    assert padded is not None  # the core lies inside
    return padded


def _core_size(size: Size, halo: int, align: int, budget: int) -> Size:
    if size.area <= budget:
        return size
    budget = max(budget, (4 * halo + align) ** 2)
    return min(_shapes(size, halo, align, budget), key=lambda core: _cost(size, core, halo))


def _shapes(size: Size, halo: int, align: int, budget: int) -> Iterator[Size]:
    """Balanced core sizes within the budget, for every number of pieces across."""
    for across in range(1, -(-size.cols // align) + 1):
        cols = _up(-(-size.cols // across), align)
        rows = (budget // min(cols + 2 * halo, size.cols) - 2 * halo) // align * align
        if rows >= align:
            down = -(-size.rows // rows)
            yield Size(_up(-(-size.rows // down), align), cols)


def _cost(size: Size, core: Size, halo: int) -> int:
    """The area computed in all, halos included."""
    down, across = -(-size.rows // core.rows), -(-size.cols // core.cols)
    return (size.rows + 2 * halo * down) * (size.cols + 2 * halo * across)


def _up(length: int, step: int) -> int:
    return -(-length // step) * step
