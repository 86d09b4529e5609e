"""From the pixels of a view to the cells of a grid: blocks are read ahead on threads, cut into tiles and encoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import groupby
from typing import NamedTuple

import numpy as np

from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.threaded import EncoderPool
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Lattice, Size, Window, cover
from ssl_tilegen.grids import GridData, Validity, shards
from ssl_tilegen.io.readers.base import Pixels
from ssl_tilegen.io.tissue_map import TissueMap
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.system.progress import Progress

BLOCK_PX = 1024  # tiles are read in blocks of about this side: one decode for many tiles


class Rules(NamedTuple):
    """When a cell counts: least tissue, most pixels without data; whether background is left out; reading threads."""

    tissue_min: float = 0.05
    nodata_max: float = 0.1
    tissue_only: bool = False
    threads: int = 1


class TilePixels(NamedTuple):
    """One cell's pixels: uint8 (T, T, 3), the fraction of them without data, and whether reading failed."""

    row: int
    col: int
    rgb: np.ndarray
    missing: float
    failed: bool


def encode_shards(
    view: RasterView,
    lattice: Lattice,
    indices: Sequence[int],
    encoder: Encoder,
    tissue: TissueMap,
    rules: Rules,
    progress: Progress,
) -> Iterator[tuple[int, GridData]]:
    """(shard index, its cells) for ``indices``. Memory does not grow with the view: blocks in flight and two shards."""
    all_shards = shards(lattice.shape)
    stage, done, total = f"embed {view.raster.path.name}", 0, sum(all_shards[i].size.area for i in indices)
    begun: deque[tuple[int, ShardEncoder]] = deque()
    with EncoderPool(encoder) as pool:
        for index, tiles in groupby(_tiles(view, lattice, indices, rules.threads), key=lambda pair: pair[0]):
            shard = ShardEncoder(all_shards[index], lattice, encoder, pool, tissue, rules, view.raster.kind)
            for _, tile in tiles:
                shard.add(tile)
                done += 1
                if done % encoder.batch == 0:
                    progress(stage, done, total)
                    if begun and begun[0][1].is_done:
                        yield _finished(begun)
            shard.close()
            progress(stage, done, total)
            begun.append((index, shard))
            if len(begun) > 1:
                yield _finished(begun)
        while begun:
            yield _finished(begun)


def _finished(begun: deque[tuple[int, ShardEncoder]]) -> tuple[int, GridData]:
    """The oldest shard, out of the row."""
    index, shard = begun.popleft()
    return index, shard.finish()


class ShardEncoder:
    """Collects the tiles of one shard and encodes them in batches that never span two shards.

    So a shard comes out the same whichever run or process computes it.
    """

    def __init__(
        self,
        shard: Window,
        lattice: Lattice,
        encoder: Encoder,
        pool: EncoderPool,
        tissue: TissueMap,
        rules: Rules,
        kind: str,
    ) -> None:
        self._shard, self._lattice, self._encoder, self._tissue, self._rules = shard, lattice, encoder, tissue, rules
        self._pool = pool
        self._no_pixels = Validity.OUTSIDE if kind == "slide" else Validity.NODATA
        self._cells = GridData.empty(shard.size, encoder.dim)
        self._waiting: list[TilePixels] = []
        self._running: list[tuple[list[tuple[int, int]], Future[np.ndarray]]] = []

    def add(self, tile: TilePixels) -> None:
        """Judge one tile, and have it encoded with its batch if it has something to show."""
        place = tile.row - self._shard.row, tile.col - self._shard.col
        code, foreground = self._judge(tile)
        self._cells.valid[place], self._cells.tissue[place] = code, foreground
        if code == Validity.OK or (code == Validity.BACKGROUND and not self._rules.tissue_only):
            self._waiting.append(tile)
        if len(self._waiting) == self._encoder.batch:
            self.close()

    def close(self) -> None:
        """Have the waiting tiles encoded: the batch is full, or the shard has no more tiles."""
        if self._waiting:
            places = [(tile.row - self._shard.row, tile.col - self._shard.col) for tile in self._waiting]
            self._running.append((places, self._pool.submit([tile.rgb for tile in self._waiting])))
            self._waiting.clear()

    @property
    def is_done(self) -> bool:
        """Whether `finish` would not have to wait."""
        return all(future.done() for _, future in self._running)

    def finish(self) -> GridData:
        """The cells of the shard."""
        for places, future in self._running:
            vectors = future.result().astype(np.float16)
            if not np.isfinite(vectors).all():
                raise InputError(
                    f"encoder {self._encoder.id}: gave values beyond float16; use another --encoder or --pooling"
                )
            rows, cols = zip(*places, strict=True)
            self._cells.embedding[rows, cols] = vectors
        return self._cells

    def _judge(self, tile: TilePixels) -> tuple[Validity, float]:
        """The cell's validity and its fraction of foreground."""
        if tile.failed:
            return Validity.READ_ERROR, 0.0
        foreground = self._tissue.fraction(self._lattice.window(tile.row, tile.col)) * (1 - tile.missing)
        if tile.missing > self._rules.nodata_max:
            return self._no_pixels, foreground
        is_background = self._tissue.known and foreground < self._rules.tissue_min
        return (Validity.BACKGROUND if is_background else Validity.OK), foreground


def _tiles(
    view: RasterView, lattice: Lattice, indices: Sequence[int], threads: int
) -> Iterator[tuple[int, TilePixels]]:
    """(shard index, tile) for every cell of the shards, in order; reading runs ahead on threads across shards."""
    windows = (_pixels_of(block, lattice) for _, block in _blocks(lattice, indices))
    read = view.read_many(windows, threads)
    for (index, block), (_, pixels) in zip(_blocks(lattice, indices), read, strict=True):
        parts = [(block, pixels)] if pixels.error is None else _one_by_one(view, lattice, block, threads)
        for cells, part in parts:
            for tile in _cut(cells, part, lattice):
                yield index, tile


def _blocks(lattice: Lattice, indices: Sequence[int]) -> Iterator[tuple[int, Window]]:
    """(shard index, window of cells) that are read in one go."""
    side = max(1, (BLOCK_PX - lattice.tile) // lattice.stride + 1)
    all_shards = shards(lattice.shape)
    for index in indices:
        shard = all_shards[index]
        for block in cover(shard.size, Size(side, side)):
            yield index, block.shifted(shard.row, shard.col)


def _one_by_one(view: RasterView, lattice: Lattice, block: Window, threads: int) -> Iterator[tuple[Window, Pixels]]:
    """The cells of a block that could not be read in one go: only those that are damaged themselves fail."""
    cells = [cell.shifted(block.row, block.col) for cell in cover(block.size, Size(1, 1))]
    windows = [_pixels_of(cell, lattice) for cell in cells]
    for cell, (_, pixels) in zip(cells, view.read_many(windows, threads), strict=True):
        yield cell, pixels


def _pixels_of(cells: Window, lattice: Lattice) -> Window:
    """The pixels under a window of cells; the last may lie beyond the plane, where the view is mirrored."""
    stride, reach = lattice.stride, lattice.tile - lattice.stride
    return Window(cells.row * stride, cells.col * stride, cells.rows * stride + reach, cells.cols * stride + reach)


def _cut(cells: Window, pixels: Pixels, lattice: Lattice) -> Iterator[TilePixels]:
    """The tiles of a window of cells out of its pixels."""
    rgb, valid = pixels.rgb, pixels.valid
    complete = bool(valid.all())
    for row, col in np.ndindex(cells.rows, cells.cols):
        at = Window(row * lattice.stride, col * lattice.stride, lattice.tile, lattice.tile).slices
        missing = 0.0 if complete else 1.0 - float(valid[at].mean())
        yield TilePixels(cells.row + row, cells.col + col, rgb[at], missing, pixels.error is not None)
