"""Windows out of one TIFF directory, decoding only the tiles they touch: no lock, no handle shared by threads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.raster import ReadError

CACHE_BYTES = 64 << 20


class TileCache:
    """The tiles decoded last, up to a number of bytes; shared by all levels of a file."""

    def __init__(self, capacity: int = CACHE_BYTES) -> None:
        self._capacity, self._held = capacity, 0
        self._tiles: OrderedDict[Any, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> np.ndarray | None:
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
            return self._tiles.get(key)

    def put(self, key: Any, tile: np.ndarray) -> None:
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = tile
            self._held += tile.nbytes
            while self._held > self._capacity:
                self._held -= self._tiles.popitem(last=False)[1].nbytes


class TiffPlane:
    """One directory of a TIFF file: tiled or in strips, samples together or apart, whatever tifffile decodes.

    ``samples`` per pixel, ``dtype``; ``size`` in pixels.
    """

    def __init__(self, path: Path, page: Any, cache: TileCache) -> None:
        key = page.keyframe
        self.path, self.size = path, Size(key.imagelength, key.imagewidth)
        self.samples, self.dtype = int(key.samplesperpixel), key.dtype
        self._cache, self._decode = cache, key.decode
        self._offsets, self._counts = page.dataoffsets, page.databytecounts
        self._tables = key.jpegtables
        self._apart = key.planarconfig == 2 and self.samples > 1
        tiled = key.is_tiled
        self.tile = (
            Size(key.tilelength, key.tilewidth)
            if tiled
            else Size(min(key.rowsperstrip, self.size.rows), self.size.cols)
        )
        self._grid = Size(-(-self.size.rows // self.tile.rows), -(-self.size.cols // self.tile.cols))
        self._fd = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        """Release the file."""
        os.close(self._fd)

    def read(self, window: Window) -> np.ndarray:
        """(h, w, samples) of a window inside the plane. Raises ReadError."""
        out = np.zeros((window.rows, window.cols, self.samples), self.dtype)
        area = self._grid.area
        for row in range(window.row // self.tile.rows, -(-window.row_end // self.tile.rows)):
            for col in range(window.col // self.tile.cols, -(-window.col_end // self.tile.cols)):
                index = row * self._grid.cols + col
                place = Window(row * self.tile.rows, col * self.tile.cols, self.tile.rows, self.tile.cols)
                if self._apart:
                    for sample in range(self.samples):
                        self._paste(out[..., sample : sample + 1], index + sample * area, place, window)
                else:
                    self._paste(out, index, place, window)
        return out

    def _paste(self, out: np.ndarray, index: int, place: Window, window: Window) -> None:
        tile = self._tile(index)
        if tile is None:
            return
        place = Window(place.row, place.col, *tile.shape[:2])
        if part := place.intersection(window):
            out[part.within(window).slices] = tile[part.within(place).slices]

    def _tile(self, index: int) -> np.ndarray | None:
        """One decoded tile (h, w, samples); None where the file has none: sparse files leave them out."""
        if self._counts[index] == 0:
            return None
        key = (self._offsets[index], self._counts[index])
        tile = self._cache.get(key)
        if tile is None:
            tile = self._decoded(index)
            self._cache.put(key, tile)
        return tile

    def _decoded(self, index: int) -> np.ndarray:
        data = os.pread(self._fd, self._counts[index], self._offsets[index])
        try:
            tile = self._decode(data, index, jpegtables=self._tables)[0]
        except Exception as error:  # every codec has errors of its own
            raise ReadError(f"{self.path}: a tile cannot be decoded ({type(error).__name__}: {error})") from error
        if tile is None:
            raise ReadError(f"{self.path}: a tile cannot be decoded")
        return tile[0]
