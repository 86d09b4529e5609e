"""Rasters of which a level is read only if it was made by averaging; many files hold nearest-neighbour ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ssl_tilegen.errors import TilegenError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.readers.base import Raster
from ssl_tilegen.io.uri import Source

_PROBE_PX = 128
Read = Callable[[int, Window], tuple[np.ndarray, np.ndarray]]


class ProbedRaster(Raster):
    """A raster whose levels are looked at before they are trusted, each once."""

    def __init__(self, path: Source) -> None:
        super().__init__(path)
        self._averaged: dict[int, bool] = {0: True}

    def _averages(self, level: int) -> bool:
        if level not in self._averaged:
            self._averaged[level] = is_averaged(self.levels, level, self._read_level)
        return self._averaged[level]


def is_averaged(levels: Sequence[Size], level: int, read: Read) -> bool:
    """Whether a level's middle is closer to the mean of level 0 than to any single pixel of it."""
    full, size = levels[0], levels[level]
    rows, cols = min(_PROBE_PX, size.rows), min(_PROBE_PX, size.cols)
    probe = Window((size.rows - rows) // 2, (size.cols - cols) // 2, rows, cols)
    factor = round(full.rows / size.rows)
    if factor < 2 or probe.scaled(factor).intersection(Window.of(full)) != probe.scaled(factor):
        return False
    try:
        overview = read(level, probe)[0].astype(np.float32)
        fine = read(0, probe.scaled(factor))[0].astype(np.float32)
    except TilegenError:
        return False
    cells = fine.reshape(rows, factor, cols, factor, 3)
    samples = cells.transpose(1, 3, 0, 2, 4).reshape(factor * factor, rows, cols, 3)
    from_mean = np.abs(overview - cells.mean((1, 3))).mean()
    return bool(from_mean <= 0.5 + min(np.abs(overview - sample).mean() for sample in samples) / 2)
