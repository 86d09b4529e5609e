"""Training windows straight from slides, rasters and pictures.

A corpus holds whole images in memory as 8-bit RGB (3 bytes a pixel, stated in ``nbytes``); windows are drawn at random
places. Every random choice comes from the generator handed in, so an item is a function of (seed, step, place in
the batch) alone: the same for any number of threads, processes or restarts.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Resolution, Window
from ssl_tilegen.io.raster import open_raster, view_at
from ssl_tilegen.training.settings import DataSettings, SourceSettings

_FLAT_DEVIATION = 6.0
_TRIES = 20


@dataclass(frozen=True)
class Picture:
    """One training image: ``rgb`` (H, W, 3) uint8, ``valid`` (H, W) bool or None where all of it is valid."""

    name: str
    rgb: np.ndarray
    valid: np.ndarray | None
    source: int

    def is_valid(self, window: Window) -> bool:
        return self.valid is None or bool(self.valid[window.slices].all())


@dataclass(frozen=True)
class Corpus:
    """All training images, with the chance of each to be drawn: source weight x share of its area."""

    pictures: list[Picture]
    chances: np.ndarray
    flat_keep: float
    resolutions: dict[str, Resolution]

    @property
    def nbytes(self) -> int:
        return sum(picture.rgb.nbytes for picture in self.pictures)

    def draw(self, rng: np.random.Generator, side: int) -> tuple[Picture, Window]:
        """A random valid square window of ``side`` px; flat ones are kept with the chance ``flat_keep``."""
        for _ in range(_TRIES):
            picture = self.pictures[rng.choice(len(self.pictures), p=self.chances)]
            rows, cols = picture.rgb.shape[:2]
            if rows < side or cols < side:
                continue
            window = Window(int(rng.integers(rows - side + 1)), int(rng.integers(cols - side + 1)), side, side)
            if picture.is_valid(window) and (not is_flat(picture.rgb[window.slices]) or rng.random() < self.flat_keep):
                return picture, window
        return self.draw(rng, side)

    def crop(self, rng: np.random.Generator, side: int) -> np.ndarray:
        """A random window as (side, side, 3) uint8, turned and flipped at random."""
        picture, window = self.draw(rng, side)
        return turned(picture.rgb[window.slices], int(rng.integers(8)))


def is_flat(rgb: np.ndarray) -> bool:
    """Whether a window shows glass or flat ground only: next to no deviation in any channel."""
    return bool(rgb[::4, ::4].reshape(-1, 3).std(0).max() < _FLAT_DEVIATION)


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight symmetries of the square applied to (H, W, ...): 0 to 3 rotations, 4 to 7 mirrored ones."""
    image = np.rot90(image, turn % 4)
    return image[:, ::-1] if turn >= 4 else image


def load_corpus(settings: DataSettings, progress: Callable[[str], None] = lambda _: None) -> Corpus:
    """Read all sources whole. Raises InputError where a source matches no file."""
    pictures: list[Picture] = []
    resolutions: dict[str, Resolution] = {}
    with ThreadPoolExecutor(4) as pool:
        for index, source in enumerate(settings.sources):
            paths = source_files(source)
            progress(f"reading {len(paths)} images of {source.paths[0]}")
            read = list(pool.map(lambda path, i=index, s=source: _read(path, s, i), paths))
            pictures += [picture for picture, _ in read]
            known = [resolution for _, resolution in read if resolution]
            if known:
                resolutions.setdefault(source.domain, sorted(known, key=lambda r: r.value)[len(known) // 2])
    return Corpus(pictures, _chances(pictures, settings), settings.flat_keep, resolutions)


def source_files(source: SourceSettings) -> list[Path]:
    """The files of a source in a fixed order, without the excluded names."""
    found: list[Path] = []
    for pattern in source.paths:
        if Path(pattern).is_dir():
            pattern = f"{pattern}/**/*.*"
        matches = [Path(match) for match in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - absolute patterns
        found += [path for path in matches if path.is_file() and path.name not in source.exclude]
    if not found:
        raise InputError(f"no training image matches {source.paths}: check data.sources.paths")
    return sorted(set(found))


def _read(path: Path, source: SourceSettings, index: int) -> tuple[Picture, Resolution | None]:
    own: dict[str, Any] = {"mpp": source.mpp, "gsd": source.gsd} if _is_picture(path) else {}
    with open_raster(path, **own) as raster:
        wanted = _target(raster.resolution, source)
        view = view_at(raster, wanted)
        pixels = view.read(Window.of(view.size))
    valid = None if pixels.valid.all() else pixels.valid
    return Picture(path.name, np.ascontiguousarray(pixels.rgb), valid, index), wanted


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in {".png", ".jpg", ".jpeg"}


def _target(own: Resolution | None, source: SourceSettings) -> Resolution:
    if source.mpp:
        return Resolution(source.mpp * source.shrink, "um")
    if source.gsd:
        return Resolution(source.gsd * source.shrink, "m")
    assert own is not None
    return Resolution(own.value * source.shrink, own.unit)


def _chances(pictures: list[Picture], settings: DataSettings) -> np.ndarray:
    area = np.array([p.rgb.shape[0] * p.rgb.shape[1] for p in pictures], float)
    of_source = np.array([p.source for p in pictures])
    weight = np.array([s.weight for s in settings.sources])
    total = np.bincount(of_source, area, len(weight))
    chances = area * (weight / total)[of_source]
    return chances / chances.sum()


def to_signed(images: np.ndarray) -> np.ndarray:
    """uint8 (..., H, W, 3) -> float32 (..., 3, H, W) in [-1, 1]."""
    return np.moveaxis(images, -1, -3).astype(np.float32) / 127.5 - 1
