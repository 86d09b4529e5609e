"""Exact tiling of passes with finite reach: cut, pad by the halo, compute, keep the core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ssl_tilegen.geometry import Size, Window, cover

_FINER = 4
"""How often the tile area may be halved to pass by blank ground."""


@dataclass(frozen=True, slots=True)
class Tile:
    """``core`` is what a tile answers for, ``padded`` what must be computed for that; both absolute."""

    core: Window
    padded: Window


def exact_tiles(area: Window, outer: Window, *, halo: int, align: int = 1, budget: int) -> list[Tile]:
    """Tiles whose cores cover ``area`` and whose padded windows are at most about ``budget`` large, row by row.

    Context is taken from ``outer`` (which holds ``area``); at its edges there is none, just as in a pass over the
    whole. All corners are at multiples of ``align`` if those of ``area`` and ``outer`` are. The shape is the one that
    computes least in all; a budget too small for the halo is raised to (4 halo + align)^2, i.e. a cost of 4x at worst.
    """
    step = _core_size(area.size, halo, align, budget)
    cores = (piece.shifted(area.row, area.col) for piece in cover(area.size, step))
    return [Tile(core, _padded(core, outer, halo, align)) for core in cores]


def live_tiles(
    area: Window, outer: Window, *, halo: int, align: int, budget: int, is_blank: Callable[[Window], bool]
) -> tuple[list[Tile], list[Tile]]:
    """Tiles of ``area`` (see ``exact_tiles``) that need computing, and tiles that are blank.

    Smaller tiles pass by more blank ground but pay more halo: of a few sizes within the budget the cheapest is taken.
    """
    plans = (
        _parted(exact_tiles(area, outer, halo=halo, align=align, budget=min(budget, area.size.area) >> k), is_blank)
        for k in range(_FINER + 1)
    )
    return min(plans, key=lambda plan: sum(tile.padded.size.area for tile in plan[0]))


def _parted(tiles: list[Tile], is_blank: Callable[[Window], bool]) -> tuple[list[Tile], list[Tile]]:
    blank = {tile for tile in tiles if is_blank(tile.core)}
    return [tile for tile in tiles if tile not in blank], [tile for tile in tiles if tile in blank]


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
