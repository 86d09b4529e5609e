"""The windows of one size, at one resolution, that image sets are cut into."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_tilegen.errors import InputError, ResolutionError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.base import Raster
from ssl_tilegen.io.tissue_map import TissueMap
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.system.budget import check_memory, check_pixels
from ssl_tilegen.workflows.evaluate.image_sets import Image, ImageSet

LEAST_PX, MOST_PX = 32, 256
_LARGE = 4  # windows a side from which an image counts as large
_BLOCK = 4  # windows a side of the blocks of a large image that are resampled together
_LEAST_TISSUE, _MOST_MISSING, _ENOUGH = 0.05, 0.1, 500
_SAME_RESOLUTION = 0.01
_KEPT_OPEN = 4
_PLACE_BYTES = 600  # of a window, its group and its part of the key of the cache


class Place(NamedTuple):
    """A window of an image: level-0 pixels per window pixel, and the window in those pixels."""

    image: Image
    window: Window
    factor: float


def common_resolution(sets: Sequence[ImageSet], wanted: Resolution | None = None) -> Resolution | None:
    """The resolution to read at: ``wanted``, else the coarsest where all say theirs and they differ, else None (as
    stored). ResolutionError where a set mixes um and m, or ``wanted`` is in another unit."""
    known = [image.resolution for part in sets for image in part.images]
    units = {r.unit for r in known if r}
    if wanted and units - {wanted.unit}:
        raise ResolutionError(f"{wanted}: the images are in {units.pop()}/px; give --mpp for um, --gsd for m")
    if wanted and all(known):
        return wanted
    if len(units) > 1:
        raise ResolutionError("the sets are in um/px and in m/px; tissue and ground cannot be compared")
    values = [r.value for r in known if r]
    if not known or not all(known) or max(values) / min(values) - 1 <= _SAME_RESOLUTION:
        return None
    return Resolution(max(values), units.pop())


def factor_of(image: Image, resolution: Resolution | None) -> float:
    """Level-0 pixels per pixel at ``resolution``."""
    if resolution is None or image.resolution is None:
        return 1.0
    factor = resolution.value / image.resolution.value
    return float(round(factor)) if abs(factor / max(1, round(factor)) - 1) <= _SAME_RESOLUTION else factor


def common_window(sets: Sequence[ImageSet], resolution: Resolution | None, asked: int | None = None) -> int:
    """Side of the windows that all sets are cut into: ``asked``, or the largest common one up to 256 px, halved while a
    set of larger images gives fewer than 500. InputError where there is no common size."""
    sides = [(min(i.size.rows, i.size.cols) / factor_of(i, resolution), i) for part in sets for i in part.images]
    least, smallest = min(sides, key=lambda pair: pair[0])
    if least < max(LEAST_PX, asked or 0):
        raise InputError(
            f"{smallest.path}: {smallest.size} px, no common size with the others; windows take at least "
            f"{max(LEAST_PX, asked or 0)} px" + (", give a smaller --window" if asked else ", leave it out")
        )
    side = asked or min(MOST_PX, int(least))
    while (
        not asked
        and side >= 2 * LEAST_PX
        and any(_count(part, side, resolution) < _ENOUGH and _can_be_cut(part, side, resolution) for part in sets)
    ):
        side //= 2
    return side


def _count(part: ImageSet, side: int, resolution: Resolution | None) -> int:
    sizes = (i.size.scaled(1 / factor_of(i, resolution)) for i in part.images)
    return sum((s.rows // side) * (s.cols // side) for s in sizes)


def _can_be_cut(part: ImageSet, side: int, resolution: Resolution | None) -> bool:
    """Whether all images are larger than a window, so that smaller ones show no less of them."""
    return all(min(i.size.rows, i.size.cols) / factor_of(i, resolution) >= 1.5 * side for i in part.images)


def is_large(image: Image, side: int, resolution: Resolution | None = None) -> bool:
    """Whether an image is many windows, so that seams and structure across windows can be asked for."""
    return min(image.size.rows, image.size.cols) / factor_of(image, resolution) >= _LARGE * side


def places(
    part: ImageSet, side: int, resolution: Resolution | None, *, shift: int = 0, coarser: int = 1, limit: int = 0
) -> tuple[list[Place], list[str]]:
    """Windows of ``side`` px and the group of each; in images with background only those that show tissue.

    ``shift`` px from the corner (else centred where the image is small); ``coarser``: each shows so many times more;
    ``limit``: so many at most, drawn evenly. BudgetError where they are more than memory holds.
    """
    plan = _WindowPlan(part, side, resolution, shift, coarser)
    drawn = plan.total if not limit or plan.total <= limit else limit
    check_memory(drawn * _PLACE_BYTES, f"{part.path}: {drawn:,} windows of {side} px (--limit draws fewer)")
    found = [plan.place(int(i)) for i in np.linspace(0, plan.total - 1, drawn).round()]
    return found, [_block(place) for place in found]


class _WindowPlan:
    """The windows of a set by their number, image by image and row by row. BudgetError where an image is too large."""

    def __init__(self, part: ImageSet, side: int, resolution: Resolution | None, shift: int, coarser: int) -> None:
        self._side, self._images = side, part.images
        self._factors = [factor_of(image, resolution) * coarser for image in part.images]
        self._leads, self._cells = [], []
        for image, factor in zip(part.images, self._factors, strict=True):
            check_pixels(
                image.size.rows / factor, image.size.cols / factor, f"{image.path} at {resolution or 'its own pixels'}"
            )
            size = image.size.scaled(1 / factor)
            lead = _leads(size, side, shift)
            self._leads.append(lead)
            self._cells.append((max(0, (size.rows - lead[0]) // side), max(0, (size.cols - lead[1]) // side)))
        self._ends = list(accumulate(rows * cols for rows, cols in self._cells))
        self.total = self._ends[-1] if self._ends else 0

    def place(self, number: int) -> Place:
        """The window ``number``, from 0 up to ``total`` (exclusive)."""
        at = bisect_right(self._ends, number)
        row, col = divmod(number - (self._ends[at - 1] if at else 0), self._cells[at][1])
        lead, side = self._leads[at], self._side
        window = Window(lead[0] + row * side, lead[1] + col * side, side, side)
        return Place(self._images[at], window, self._factors[at])


def _leads(size: Size, side: int, shift: int) -> tuple[int, int]:
    """Where the first window starts: at ``shift``; of a small image the middle is used."""
    small = max(size.rows, size.cols) < 2 * side
    return ((size.rows - side) // 2, (size.cols - side) // 2) if small else (shift, shift)


def _block(place: Place) -> str:
    """The group of a window: its image's, or its block of a large image, whose windows would else be one group."""
    image, window = place.image, place.window
    if max(image.size.rows, image.size.cols) / place.factor < 2 * _LARGE * window.rows:
        return image.group
    step = _BLOCK * window.rows
    return f"{image.group}@{window.row // step},{window.col // step}"


def windows(
    found: Sequence[Place], threads: int, *, after: int = -1, if_unknown: Resolution | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(index, uint8 (side, side, 3)) of the windows past index ``after``, image by image, without those that show
    background or no data."""
    start = 0
    while start < len(found):
        first, end = found[start], start
        while end < len(found) and found[end].image is first.image and found[end].factor == first.factor:
            end += 1
        if end <= after + 1:
            start = end
            continue
        with open_raster(first.image.path, if_unknown=if_unknown) as raster:
            view = RasterView(raster, first.factor)
            tissue = TissueMap.of(view, threads) if end - start > 1 else TissueMap(raster.background)
            keep = [i for i in range(max(start, after + 1), end) if tissue.fraction(found[i].window) >= _LEAST_TISSUE]
            for i, (_, pixels) in zip(keep, view.read_many((found[i].window for i in keep), threads), strict=True):
                if pixels.error is None and pixels.valid.mean() >= 1 - _MOST_MISSING:
                    yield i, pixels.rgb
        start = end


class Reader:
    """Reads single windows and keeps the last few images open. Use as a context manager."""

    def __init__(self) -> None:
        self._open: dict[Path, Raster] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for raster in self._open.values():
            raster.close()

    def read(self, place: Place) -> np.ndarray:
        """uint8 (side, side, 3) of one window."""
        raster = self._open.pop(place.image.path, None) or open_raster(place.image.path)
        self._open[place.image.path] = raster  # the last one used is the last to go
        if len(self._open) > _KEPT_OPEN:
            self._open.pop(next(iter(self._open))).close()
        return RasterView(raster, place.factor).read(place.window).rgb
