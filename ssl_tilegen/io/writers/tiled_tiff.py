"""Tiled pyramidal TIFF: tiles are encoded as they come, kept in one file per level, and only copied at the end."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import imagecodecs
import numpy as np

from ssl_tilegen import __version__
from ssl_tilegen.errors import OutputError
from ssl_tilegen.geometry import Size
from ssl_tilegen.io.tiff.layout import Page, Tag, ascii_tag, long_tag, rational_tag, short_tag, write_tiff
from ssl_tilegen.io.writers.format import Format, ImageSpec
from ssl_tilegen.system import atomic

_ENCODERS = min(8, os.cpu_count() or 1)
_TILES_AHEAD = 8 * _ENCODERS  # that are encoded while the next are made
_COMPRESSION_TAG = {"jpeg": 7, "deflate": 8, "zstd": 50000}
_ZSTD_LEVEL = 2  # half again as fast as level 3, for 2 % more bytes
_RGB, _YCBCR = 2, 6
_CENTIMETRE = 3
_UM_PER_CM = 10_000


def tile_encoder(compression: str, quality: int) -> Callable[[np.ndarray], bytes]:
    """uint8 (t, t, 3) -> the bytes of one TIFF tile. JPEG is YCbCr without chroma subsampling."""
    if compression == "jpeg":
        return partial(_jpeg, quality=quality)
    return {"deflate": _deflate, "zstd": _zstd}[compression]


def _deflate(tile: np.ndarray) -> bytes:
    """By libdeflate, whose bytes depend on the pixels alone: a resumed image is to have the same bytes. ISA-L is 2.3
    times as fast, but its bytes differed for the same pixels, once in many runs."""
    return bytes(imagecodecs.deflate_encode(_differences(tile), 1, raw=False))  # type: ignore[arg-type]


def _zstd(tile: np.ndarray) -> bytes:
    return bytes(imagecodecs.zstd_encode(_differences(tile), _ZSTD_LEVEL))  # type: ignore[arg-type]


def _differences(tile: np.ndarray) -> np.ndarray:
    """Each pixel less the one before in its row (modulo 256): TIFF's predictor 2; (t, 3 t)."""
    rows = tile.reshape(len(tile), -1)
    change = np.empty_like(rows)
    change[:, :3] = rows[:, :3]
    np.subtract(rows[:, 3:], rows[:, :-3], out=change[:, 3:])
    return change


def _jpeg(tile: np.ndarray, quality: int) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(tile, level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="444")
    )


class TiledTiff(Format):
    """The base of all TIFF outputs; they differ in the tags of their first page and in how the pages are linked."""

    sub_ifds = False

    def __init__(self, path: Path, part: Path, spec: ImageSpec) -> None:
        super().__init__(path, part, spec)
        self._encode = tile_encoder(self.compression, spec.quality)
        self._tile_bytes: list[list[int]] = [[] for _ in self.sizes]
        self._files = [part / f"level{level}.tiles" for level in range(len(self.sizes))]
        self._pool = ThreadPoolExecutor(_ENCODERS, thread_name_prefix="encode")
        self._encoding: deque[tuple[int, Future[bytes]]] = deque()  # tiles with their level, in order

    def start(self) -> None:
        """Make an empty file of tiles for each level."""
        for file in self._files:
            file.write_bytes(b"")

    def put(self, level: int, first_row: int, rows: np.ndarray) -> None:
        """Encode rows of a level on threads, and append their tiles."""
        side = self.spec.tile_px
        right, bottom = -rows.shape[1] % side, side - len(rows)
        padded = np.pad(rows, ((0, bottom), (0, right), (0, 0)), mode="edge") if right or bottom else rows
        for col in range(0, padded.shape[1], side):
            tile = padded[:, col : col + side].copy()
            self._encoding.append((level, self._pool.submit(self._encode, tile)))
            if len(self._encoding) >= 2 * _TILES_AHEAD:
                self._store(_TILES_AHEAD)

    def _store(self, ahead: int = 0) -> None:
        """Put encoded tiles into their files, all but the last ``ahead``."""
        done = [self._encoding.popleft() for _ in range(len(self._encoding) - ahead)]
        for level, tiles in groupby(done, key=itemgetter(0)):
            with self._files[level].open("ab") as file:
                for _, encoded in tiles:
                    file.write(encoded.result())
                    self._tile_bytes[level].append(len(encoded.result()))

    def state(self) -> dict[str, np.ndarray]:
        """Flush the tiles written so far to the disk, and list their sizes."""
        self._store()
        for file in self._files:
            atomic.flush(file)
        return {f"tile_bytes{level}": np.array(sizes, np.int64) for level, sizes in enumerate(self._tile_bytes)}

    def resume(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue after the tiles that ``state`` lists; later ones are cut off."""
        for level, file in enumerate(self._files):
            self._tile_bytes[level] = [int(size) for size in state[f"tile_bytes{level}"]]
            length = sum(self._tile_bytes[level])
            if not file.exists() or file.stat().st_size < length:
                raise OutputError(f"{file}: is cut short; give --restart to begin {self.path} anew")
            os.truncate(file, length)

    def finish(self, target: Path) -> None:
        """Copy the tiles of all levels into one TIFF file."""
        self._store()
        pages = [
            Page(self._page_tags(level), np.array(self._tile_bytes[level], np.int64), self._files[level])
            for level in range(len(self.sizes))
        ]
        write_tiff(target, pages, sub_ifds=self.sub_ifds)

    def close(self) -> None:
        """Stop the encoding threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def first_page_tags(self) -> list[Tag]:
        """Description and place, which only the finest level carries."""
        return [ascii_tag(270, json.dumps(self.spec.record, sort_keys=True)), ascii_tag(305, software())]

    def _page_tags(self, level: int) -> list[Tag]:
        tags = _layout_tags(self.sizes[level], self.spec.tile_px, self.compression, is_first=level == 0)
        tags += self._resolution_tags(level)
        return tags + self.first_page_tags() if level == 0 else tags

    def _resolution_tags(self, level: int) -> list[Tag]:
        """Pixels per centimetre: where OpenSlide finds the mpp. Only for slides."""
        if self.spec.resolution is None or self.spec.resolution.unit != "um":
            return []
        size, full = self.sizes[level], self.sizes[0]
        per_cm = _UM_PER_CM / self.spec.resolution.value
        across, down = per_cm * size.cols / full.cols, per_cm * size.rows / full.rows
        return [rational_tag(282, across), rational_tag(283, down), short_tag(296, _CENTIMETRE)]


class PlainTiff(TiledTiff):
    """``.tif`` without a CRS: provenance as JSON in the description, mpp in the resolution tags."""

    compressions = ("jpeg", "deflate", "zstd")


def software() -> str:
    """This program, as files name it."""
    return f"ssl-tilegen {__version__}"


def _layout_tags(size: Size, tile_px: int, compression: str, *, is_first: bool) -> list[Tag]:
    tags = [
        long_tag(254, 0 if is_first else 1),  # NewSubfileType: 1 = a reduced version
        long_tag(256, size.cols),
        long_tag(257, size.rows),
        short_tag(258, 8, 8, 8),
        short_tag(259, _COMPRESSION_TAG[compression]),
        short_tag(262, _YCBCR if compression == "jpeg" else _RGB),
        short_tag(277, 3),
        short_tag(284, 1),
        long_tag(322, tile_px),
        long_tag(323, tile_px),
    ]
    if compression == "jpeg":
        # No YCbCrSubSampling of (1, 1), though that is what it is: Bio-Formats would turn the colours that its JPEG
        # decoder has made RGB into RGB once more. All readers take the sampling from the JPEG itself.
        return tags
    return [*tags, short_tag(317, 2)]  # horizontal differences
