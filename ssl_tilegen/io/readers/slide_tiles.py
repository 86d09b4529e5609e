"""Slides whose tiles can be decoded without OpenSlide, to the very same pixels and faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.errors import TilegenError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.tiff.tiles import TiffPlane, TileCache

VENDORS = frozenset({"aperio", "generic-tiff"})
_TRIED = 4
Read = Callable[[int, Window], np.ndarray]


class SlideTiles:
    """The levels of a tiled TIFF slide of which every tile is there, as 8-bit RGB.

    A level is used after one of its fullest tiles came out as ``read(level, window)`` -> uint8 (h, w, 3), OpenSlide's,
    gives it: so colours that a codec or a vendor treats differently are left to OpenSlide.
    """

    def __init__(self, path: Path, levels: Sequence[Size], read: Read) -> None:
        self._read = read
        self._planes = _planes(path, levels)
        self._trusted: dict[int, bool] = {}

    def close(self) -> None:
        """Close the planes of the file."""
        for plane in self._planes.values():
            plane.close()

    def plane(self, level: int) -> TiffPlane | None:
        """The level's tiles; None where OpenSlide is to be asked."""
        if level not in self._trusted:
            self._trusted[level] = level in self._planes and self._agrees(level)
        return self._planes[level] if self._trusted[level] else None

    def _agrees(self, level: int) -> bool:
        plane = self._planes[level]
        for place in plane.fullest(_TRIED):
            try:
                return np.array_equal(plane.read(place), self._read(level, place))
            except TilegenError:  # a damaged tile says nothing of the others
                continue
        return False


def _planes(path: Path, levels: Sequence[Size]) -> dict[int, TiffPlane]:
    """The directory of each level: the first of its size that is tiled 8-bit RGB. None at all of a sparse slide."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        pages: list[Any] = [page for page in tiff.pages if _is_plain(page)]
        pairs = [(n, p) for n, size in enumerate(levels) for p in pages if Size(p.imagelength, p.imagewidth) == size]
        chosen = dict(reversed(pairs))
        if not all(all(page.databytecounts) for page in chosen.values()):
            return {}  # OpenSlide makes up what is left out, on every level
        cache = TileCache()
        return {level: TiffPlane(path, page, cache) for level, page in chosen.items()}


def _is_plain(page: Any) -> bool:
    """Whether a directory is tiled 8-bit RGB."""
    return page.is_tiled and page.samplesperpixel == 3 and page.dtype == np.uint8
