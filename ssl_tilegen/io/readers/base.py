"""The contract of a reader: an image of any kind, read by windows, at any scale."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ssl_tilegen.errors import TilegenError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.io.resample import Axis, Taps, filter_pixels
from ssl_tilegen.io.uri import Source

Kind = Literal["slide", "georaster", "picture"]  # grids store it: "picture" is an image without mpp or CRS
Rgb = tuple[int, int, int]
_FINEST_SOURCE_PX = 1 << 24  # source pixels held at once; larger reads are cut into parts
_LEVEL_TOLERANCE = 1.01  # a level this much coarser than the target still serves it (levels of odd sizes)
_HASHED_BYTES = 1 << 20
_HASHED_SIDE_PX = 1024


class ReadError(TilegenError):
    """Part of a file cannot be decoded; the rest may be fine. The caller marks that part as invalid."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixels of a window: ``rgb`` uint8 (H, W, 3) and ``valid`` bool (H, W).

    Where not valid, ``rgb`` is the raster's background. ``error`` is set by ``RasterView.read_many`` where the window
    could not be decoded (then nothing is valid).
    """

    rgb: np.ndarray
    valid: np.ndarray
    error: ReadError | None = None

    @classmethod
    def blank(cls, size: Size, background: Rgb, error: ReadError | None = None) -> Pixels:
        """Nothing valid, all background."""
        rgb = np.broadcast_to(np.array(background, np.uint8), (size.rows, size.cols, 3)).copy()
        return cls(rgb, np.zeros((size.rows, size.cols), bool), error)


class Raster(ABC):
    """An image that is read by windows, at any scale, from any thread. Use as a context manager.

    ``path``, ``name`` (the file's stem), ``kind``;
    ``size``: level-0 pixels; ``levels``: sizes of all resolution levels, finest first;
    ``resolution``: of a level-0 pixel, None where unknown (the geometric mean of both axes);
    ``assumed``: whether that is the ``if_unknown`` of `open_raster`;
    ``crs`` ("EPSG:n" or WKT) and ``transform`` (a, b, c, d, e, f: x = a col + b row + c, y = d col + e row + f) of
    georasters, else None;
    ``background``: colour of invalid pixels;
    ``stained``: whether it shows stained tissue on a bright background, so that colour separates them;
    ``scaling``: (lo, hi) per band that were mapped to 0..255, None where the file is 8-bit;
    ``remarks``: facts about the reading that whoever stores results should store too.
    """

    kind: Kind
    size: Size
    levels: Sequence[Size]
    resolution: Resolution | None = None
    assumed: bool = False
    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    background: Rgb = (255, 255, 255)
    stained: bool = False
    scaling: tuple[tuple[float, float], ...] | None = None
    remarks: tuple[str, ...] = ()

    def __init__(self, path: Source) -> None:
        self.path = path
        self.name = path.name.split(".")[0] or path.name

    @classmethod
    @abstractmethod
    def can_read(cls, path: Source) -> bool:
        """Whether this reader is the one for the file."""

    @abstractmethod
    def close(self) -> None:
        """Release all file handles."""

    @abstractmethod
    def _read_level(self, level: int, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """rgb uint8 (h, w, 3) and valid bool (h, w) of a window inside the level, as stored. Raises ReadError."""

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def fingerprint(self) -> str:
        """16 hex digits from the file's length, first and last MiB: the same for a copy, whatever its date.

        Of what is no file on this machine: from its facts and the pixels of its smallest level's first corner.
        """
        if not isinstance(self.path, Path) or not self.path.is_file():
            return self._fingerprint_of_pixels()
        length = self.path.stat().st_size
        digest = hashlib.sha256(str(length).encode())
        with self.path.open("rb") as file:
            digest.update(file.read(_HASHED_BYTES))
            file.seek(max(0, length - _HASHED_BYTES))
            digest.update(file.read(_HASHED_BYTES))
        return digest.hexdigest()[:16]

    def _fingerprint_of_pixels(self) -> str:
        facts = (self.size, list(self.levels), self.crs, self.transform, self.resolution)
        digest = hashlib.sha256(repr(facts).encode())
        last = len(self.levels) - 1
        corner = Window(
            0, 0, *(min(side, _HASHED_SIDE_PX) for side in (self.levels[last].rows, self.levels[last].cols))
        )
        digest.update(self._read_level(last, corner)[0].tobytes())
        return digest.hexdigest()[:16]

    def read(self, window: Window, out: Size | None = None) -> Pixels:
        """The pixels of ``window`` (level-0 pixels, may reach outside), area-filtered to ``out`` (default: its size).

        Raises ReadError where the file is damaged.
        """
        out = out or window.size
        rows = Axis(0, out.rows, window.rows / out.rows, window.row)
        cols = Axis(0, out.cols, window.cols / out.cols, window.col)
        return self.sample(rows, cols)

    def sample(self, rows: Axis, cols: Axis) -> Pixels:
        """The pixels of two axes over level-0 pixels, from the coarsest level that is fine enough."""
        level = self._level_for(min(rows.step, cols.step))
        size = self.levels[level]
        rows = rows.on_level(_downsample(self.size.rows, size.rows))
        cols = cols.on_level(_downsample(self.size.cols, size.cols))
        return self._sample_level(level, rows, cols)

    def _level_for(self, step: float) -> int:
        limit = step * _LEVEL_TOLERANCE
        fine = [i for i, size in enumerate(self.levels) if self.size.rows / size.rows <= limit]
        return next((i for i in reversed(fine) if self._averages(i)), 0)

    def _averages(self, level: int) -> bool:
        """Whether a level was made by averaging, so that reading it aliases nothing."""
        return True

    def _sample_level(self, level: int, rows: Axis, cols: Axis) -> Pixels:
        size = self.levels[level]
        row_taps, col_taps = rows.taps(size.rows), cols.taps(size.cols)
        if row_taps is None or col_taps is None:
            return Pixels.blank(Size(rows.count, cols.count), self.background)
        source_px = (row_taps.stop - row_taps.start) * (col_taps.stop - col_taps.start)
        if source_px > _FINEST_SOURCE_PX and max(rows.count, cols.count) > 1:
            return self._sample_in_parts(level, rows, cols)
        rgb, valid = self._read_level(level, _source_window(row_taps, col_taps))
        rgb, valid = filter_pixels(rgb, valid, row_taps, col_taps, rows.step * cols.step)
        if not valid.all():
            rgb = np.where(valid[..., None], rgb, np.array(self.background, np.uint8))
        return Pixels(rgb, valid)

    def _sample_in_parts(self, level: int, rows: Axis, cols: Axis) -> Pixels:
        by_rows = cols.count == 1 or (rows.count > 1 and rows.count * rows.step >= cols.count * cols.step)
        if by_rows:
            parts = [self._sample_level(level, half, cols) for half in rows.halves()]
        else:
            parts = [self._sample_level(level, rows, half) for half in cols.halves()]
        axis = 0 if by_rows else 1
        return Pixels(
            np.concatenate([part.rgb for part in parts], axis), np.concatenate([part.valid for part in parts], axis)
        )


def _downsample(full_px: int, level_px: int) -> float:
    """Level-0 pixels per level pixel; whole where the level's length is that fraction, rounded up or down."""
    whole = round(full_px / level_px)
    return float(whole) if level_px in (full_px // whole, -(-full_px // whole)) else full_px / level_px


def _source_window(rows: Taps, cols: Taps) -> Window:
    return Window(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)


class Options(NamedTuple):
    """Facts of a file that the user states: ``mpp`` (um/px), ``gsd`` (m/px), ``bands`` (from 1), ``scale`` (lo, hi)."""

    mpp: float | None = None
    gsd: float | None = None
    bands: tuple[int, ...] | None = None
    scale: tuple[float, float] | None = None

    def resolution(self) -> Resolution | None:
        """The resolution the user gave, if any."""
        return Resolution.stated(self.mpp, self.gsd)
