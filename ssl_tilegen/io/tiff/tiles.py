"""Windows out of one TIFF directory, decoding only the tiles they touch: no lock, no handle shared by threads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.readers.base import ReadError
from ssl_tilegen.io.tiff.decode import decoder_of

CACHE_BYTES = 32 << 20  # two rows of blocks of 1024 px and their margins


class TileCache:
    """The tiles decoded last, up to a number of bytes; shared by all levels of a file and all threads.

    What two threads ask for at once is decoded once: the second waits for the first.
    """

    def __init__(self, capacity: int = CACHE_BYTES) -> None:
        self._capacity, self._held = capacity, 0
        self._tiles: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._coming: dict[Hashable, Future[np.ndarray]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The tile of ``key``, by ``decode()`` where it is not at hand; errors are told to all who wait."""
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
            theirs = self._coming.get(key)
            if theirs is None:
                mine = self._coming[key] = Future()
        if theirs is not None:
            return theirs.result()
        try:
            tile = decode()
        except BaseException as error:
            self._settle(key, None)
            mine.set_exception(error)
            raise
        self._settle(key, tile)
        mine.set_result(tile)
        return tile

    def _settle(self, key: Hashable, tile: np.ndarray | None) -> None:
        """Keep a tile that has come, and let the oldest go."""
        with self._lock:
            del self._coming[key]
            if tile is None:
                return
            self._tiles[key] = tile
            self._held += tile.nbytes
            while self._held > self._capacity:
                self._held -= self._tiles.popitem(last=False)[1].nbytes


class TiffPlane:
    """One directory of a TIFF file: tiled or in strips, samples together or apart, whatever tifffile decodes.

    ``samples`` per pixel, ``dtype``; ``size`` in pixels; ``sparse``: whether the file leaves tiles out.
    """

    def __init__(self, path: Path, page: Any, cache: TileCache) -> None:
        key = page.keyframe
        self.path, self.size = path, Size(key.imagelength, key.imagewidth)
        self.samples, self.dtype = int(key.samplesperpixel), key.dtype
        self._cache, self._decode = cache, decoder_of(key)
        self._offsets, self._counts = np.array(page.dataoffsets), np.array(page.databytecounts)
        self.sparse = not self._counts.all()
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
        new = np.zeros if self.sparse else np.empty
        out = new((window.rows, window.cols, self.samples), self.dtype)
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

    def fullest(self, count: int) -> list[Window]:
        """The places of the tiles that take the most bytes: those with the most to see."""
        indices = np.argsort(self._counts)[: -count - 1 : -1] % self._grid.area
        places = (divmod(int(index), self._grid.cols) for index in indices)
        rows, cols = self.tile.rows, self.tile.cols
        inside = (Window(row * rows, col * cols, rows, cols).intersection(Window.of(self.size)) for row, col in places)
        return [place for place in inside if place]

    def _tile(self, index: int) -> np.ndarray | None:
        """One decoded tile (h, w, samples); None where the file has none: sparse files leave them out."""
        offset, count = int(self._offsets[index]), int(self._counts[index])
        return self._cache.get((self._fd, index), lambda: self._decoded(index, offset, count)) if count else None

    def _decoded(self, index: int, offset: int, count: int) -> np.ndarray:
        data = os.pread(self._fd, count, offset)
        try:
            return self._decode(data, index)
        except Exception as error:  # every codec has errors of its own
            text = str(error).strip() or "no reason given"
            raise ReadError(f"{self.path}: a tile cannot be decoded ({type(error).__name__}: {text})") from error
