"""OME-Zarr 0.5: the pyramid as arrays of a Zarr v3 group."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import GzipCodec, ZstdCodec

from ssl_tilegen.geometry import Size
from ssl_tilegen.io.writers.format import Format, ImageSpec
from ssl_tilegen.io.writers.tiled_tiff import software
from ssl_tilegen.system import atomic

_TILES_PER_SHARD = 8  # along a row: a shard is one tile high, so that a row of tiles owns whole shards
_SHARDS_AHEAD = 4  # that are written while the next are made, 6 MiB each
_ZSTD_LEVEL = 1  # twice as fast as level 3, for 3 % more bytes
_OME_UNIT = {"um": "micrometer", "m": "meter"}


class OmeZarr(Format):
    """``.zarr``: one uint8 array (c, y, x) per level, chunks of (3, tile, tile), lossless.

    Chunks lie in shards, unless the spec says ``sharded=False``: then each is a file, as GDAL 3.10 needs it.
    """

    compressions = ("zstd", "deflate")

    def __init__(self, path: Path, part: Path, spec: ImageSpec) -> None:
        super().__init__(path, part, spec)
        self._store = part / "arrays"
        self._arrays: list[Any] = []
        self._pool = ThreadPoolExecutor(_SHARDS_AHEAD // 2, thread_name_prefix="shards")
        self._writing: deque[Future[None]] = deque()
        self._fresh: list[tuple[int, int]] = []  # level and number of the rows of shards that may not be on disk yet

    def start(self) -> None:
        """Make the group and its arrays."""
        group = zarr.create_group(self._store, zarr_format=3, overwrite=True)
        group.attrs.update(ome_attributes(self.spec, self.path.name, len(self.sizes)))
        for level, size in enumerate(self.sizes):
            group.create_array(
                str(level),
                shape=(3, size.rows, size.cols),
                chunks=(3, self.spec.tile_px, self.spec.tile_px),
                shards=self._shard(size) if self.spec.sharded else None,
                dtype="uint8",
                compressors=ZstdCodec(level=_ZSTD_LEVEL) if self.compression == "zstd" else GzipCodec(level=6),
                dimension_names=("c", "y", "x"),
            )
        self._open()

    def _shard(self, size: Size) -> tuple[int, int, int]:
        side = self.spec.tile_px
        return 3, side, side * min(_TILES_PER_SHARD, -(-size.cols // side))

    def has_work(self) -> bool:
        """The store that is being filled, or that is whole but for its name."""
        return self._store.exists() or (self.part / "whole").is_dir()

    def resume(self, state: object) -> None:
        """Continue with the store as it is; chunks after the saved state are written again."""
        whole = self.part / "whole"
        if whole.is_dir() and not self._store.exists():  # killed when all was there but the name
            whole.rename(self._store)
        self._open()

    def _open(self) -> None:
        with zarr.config.set({"array.write_empty_chunks": True}):  # looking for zeros took a third of the time
            group = zarr.open_group(self._store, mode="r+")
            self._arrays = [group[str(level)] for level in range(len(self.sizes))]

    def put(self, level: int, first_row: int, rows: np.ndarray) -> None:
        """Hand rows of a level to the writing threads."""
        wide = self.spec.tile_px * _TILES_PER_SHARD
        for col in range(0, rows.shape[1], wide):
            while len(self._writing) >= _SHARDS_AHEAD:
                self._writing.popleft().result()
            planes = np.ascontiguousarray(rows[:, col : col + wide].transpose(2, 0, 1))
            self._writing.append(self._pool.submit(self._write, level, first_row, col, planes))
        self._fresh.append((level, first_row // self.spec.tile_px))

    def _write(self, level: int, row: int, col: int, planes: np.ndarray) -> None:
        self._arrays[level][:, row : row + planes.shape[1], col : col + planes.shape[2]] = planes

    def _settle(self) -> None:
        """Wait for all that is being written."""
        while self._writing:
            self._writing.popleft().result()

    def state(self) -> dict[str, np.ndarray]:
        """Flush the chunks written so far to the disk, and list them."""
        self._settle()
        for level, number in self._fresh:
            atomic.flush_tree(self._store / str(level) / "c" / "0" / str(number))
        self._fresh.clear()
        return {}

    def finish(self, target: Path) -> None:
        """Wait for all chunks and give the store its name."""
        self._settle()
        self._store.rename(target)

    def close(self) -> None:
        """Stop the writing threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def ome_attributes(spec: ImageSpec, name: str, levels: int) -> dict[str, Any]:
    """The group's attributes: OME metadata, and the provenance under ``ssl_tilegen``."""
    unit = {"unit": _OME_UNIT[spec.resolution.unit]} if spec.resolution else {}
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space", **unit} for axis in "yx")]
    multiscale = {
        "name": name,
        "axes": axes,
        "datasets": [_dataset(level, spec.resolution.value if spec.resolution else 1.0) for level in range(levels)],
        "type": "2 x 2 mean",
    }
    colours = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    channels = [{"label": k, "color": v, "active": True, "window": window} for k, v in colours.items()]
    ome = {"version": "0.5", "multiscales": [multiscale], "omero": {"channels": channels, "rdefs": {"model": "color"}}}
    own = {"software": software(), "provenance": spec.record, "crs": spec.crs, "transform": spec.transform}
    return {"ome": ome, "ssl_tilegen": own}


def _dataset(level: int, pixel: float) -> dict[str, Any]:
    """A level's scale, and the shift of its first pixel's centre that averaging brings."""
    scale = pixel * 2**level
    shift = (scale - pixel) / 2
    transforms = [{"type": "scale", "scale": [1.0, scale, scale]}]
    if level:
        transforms.append({"type": "translation", "translation": [0.0, shift, shift]})
    return {"path": str(level), "coordinateTransformations": transforms}
