"""Training windows straight from slides, rasters and images.

Windows are drawn at random places. Every random choice comes from the generator handed in, so an item is a function
of (seed, step, place in the batch) alone: the same for any number of threads, processes or restarts.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.config.train import DataSettings, SourceSettings
from ssl_tilegen.errors import InputError, SettingError
from ssl_tilegen.geometry import Resolution, Window
from ssl_tilegen.io.image_files import images_among, is_zarr_image
from ssl_tilegen.training.data.colour_jitter import jittered_colours
from ssl_tilegen.training.data.images import TrainingImage, Wanted, read_training_images

_FLAT_DEVIATION = 6.0
_EARLY, _TRIES = 20, 10_000
_ALIKE = 1.1


@dataclass(frozen=True)
class Corpus:
    """All training images, with the chance of each to be drawn: source weight x share of its area.

    ``validation`` holds the images kept apart, or is None.
    """

    images: Sequence[TrainingImage]
    chances: np.ndarray
    settings: DataSettings
    validation: Corpus | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the images that are in memory."""
        return sum(3 * image.size.area for image in self.images if image.in_memory)

    @property
    def held_out(self) -> Corpus:
        """The images for the scores: the validation images, or the training images where there are none."""
        return self.validation or self

    @property
    def resolutions(self) -> dict[str, Resolution]:
        """Domain -> the median resolution of its first source."""
        found: dict[str, Resolution] = {}
        for index, source in enumerate(self.settings.sources):
            known = sorted((p.resolution for p in self.images if p.source == index), key=lambda r: r.value)
            if known:
                found.setdefault(source.domain, known[len(known) // 2])
        return found

    def sample(self, rng: np.random.Generator, side: int) -> np.ndarray:
        """A random valid square window (side, side, 3) uint8; flat ones are kept with the chance ``flat_keep``.

        InputError where no image is large enough, or none seems to show anything.
        """
        for number in range(_TRIES):
            if number == _EARLY and all(min(p.size.rows, p.size.cols) < side for p in self.images):
                raise InputError(f"no training image is {side} px wide and high: use larger images or smaller windows")
            image = self.images[rng.choice(len(self.images), p=self.chances)]
            rows, cols = image.size.rows, image.size.cols
            if rows < side or cols < side:
                continue
            window = Window(int(rng.integers(rows - side + 1)), int(rng.integers(cols - side + 1)), side, side)
            keep_flat = self.settings.flat_keep
            if image.seems_empty(window) and rng.random() >= keep_flat:
                continue
            rgb, valid = image.take(window)
            if (valid is None or valid.all()) and (not is_flat(rgb) or rng.random() < keep_flat):
                return rgb
        raise InputError(f"none of {_TRIES} windows drawn of {side} px can be read and shows anything: raise "
                         "data.flat_keep or look at the images")  # fmt: skip

    def crop(self, rng: np.random.Generator, side: int) -> np.ndarray:
        """A random window as (side, side, 3) uint8, turned and flipped at random."""
        return apply_d4(self.sample(rng, side), int(rng.integers(8)))

    def recoloured(self, rng: np.random.Generator, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 with the stain and brightness jitter of the settings."""
        return jittered_colours(rng, rgb, self.settings.stain, self.settings.brightness)

    def fingerprint(self) -> dict[str, Any]:
        """The identity of the data: every file's name, size in bytes and in pixels, and one hash of it all."""
        files = [
            {"name": p.path.name, "bytes": p.path.stat().st_size if p.path.is_file() else None,
             "size_px": [p.size.rows, p.size.cols], "source": p.source} for p in self.images
        ]  # fmt: skip
        facts: dict[str, Any] = {"sha256": hashlib.sha256(repr(files).encode()).hexdigest(), "files": files}
        return facts | ({"validation": self.validation.fingerprint()} if self.validation else {})


def is_flat(rgb: np.ndarray) -> bool:
    """Whether a window shows background or flat ground only: next to no deviation in any channel."""
    return bool(rgb[::4, ::4].reshape(-1, 3).std(0).max() < _FLAT_DEVIATION)


def apply_d4(image: np.ndarray, d4: int) -> np.ndarray:
    """One of the eight symmetries of the square applied to (H, W, ...): 0 to 3 rotations, 4 to 7 mirrored ones."""
    image = np.rot90(image, d4 % 4)
    return image[:, ::-1] if d4 >= 4 else image


def load_corpus(
    settings: DataSettings,
    progress: Callable[[str], None] = lambda _: None,
    usual: Mapping[str, Resolution] | None = None,
) -> Corpus:
    """Open all sources; images are read whole as far as ``memory_mib`` goes. InputError where one matches no file.

    ``usual``: the resolutions of the bundle that is trained on, by domain: slides are read at them unless their source
    says otherwise, and differences from them go to ``progress``.
    """
    wanted: list[Wanted] = []
    if not settings.sources:
        raise InputError("data.sources is empty: name one or more, each with its paths")
    for index, source in enumerate(settings.sources):
        paths = source_files(source)
        progress(f"{len(paths)} images of {source.paths[0]}")
        wanted += [Wanted(path, index, source, (usual or {}).get(source.domain)) for path in paths]
    images = read_training_images(wanted, settings.memory_mib)
    for line in _strange_resolutions(images, settings, usual or {}):
        progress(line)
    viewed = sum(not image.in_memory for image in images)
    if viewed:
        progress(f"{viewed} of {len(images)} images are read window by window (data.memory_mib)")
    apart = [_is_kept_apart(w, settings) for w in wanted]
    training = [p for p, kept in zip(images, apart, strict=True) if not kept]
    kept_apart = [p for p, kept in zip(images, apart, strict=True) if kept]
    if not training:
        raise InputError("every image is kept for validation: lower data.validation_share or give a source role train")
    if settings.validation_share and not kept_apart:
        progress(f"data.validation_share {settings.validation_share:g} keeps none of {len(training)} images apart: "
                 "scores and images are of training images")  # fmt: skip
    validation = Corpus(kept_apart, _chances(kept_apart, settings), settings) if kept_apart else None
    return Corpus(training, _chances(training, settings), settings, validation)


def _strange_resolutions(
    images: Sequence[TrainingImage], settings: DataSettings, usual: Mapping[str, Resolution]
) -> Iterator[str]:
    """A line for every domain whose images differ by more than `_ALIKE`, or from the bundle's resolution."""
    for domain in dict.fromkeys(source.domain for source in settings.sources):
        found = [p.resolution for p in images if settings.sources[p.source].domain == domain]
        known = [*found, usual[domain]] if domain in usual else found
        low, high = min(known, key=lambda r: r.value), max(known, key=lambda r: r.value)
        if low.unit != high.unit or high.value > _ALIKE * low.value:
            of_bundle = f", the bundle is for {usual[domain]}" if domain in usual else ""
            yield (f"warning: images of domain {domain} are read at {low} to {high}{of_bundle}; data.sources.mpp or "
                   "gsd read them alike")  # fmt: skip


def source_files(source: SourceSettings) -> list[Path]:
    """The files of a source in a fixed order, without the excluded names."""
    found: list[Path] = []
    for pattern in source.paths:
        if is_zarr_image(Path(pattern)) or Path(pattern).is_file():
            matches = [Path(pattern)]
        elif Path(pattern).is_dir():  # with what else lies there: grids, tables, notes, parts of slides
            matches = [m for m in images_among(Path(pattern).rglob("*.*")) if not _inside_zarr(m)]
        else:
            matches = [Path(match) for match in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - absolute patterns
            matches = [m for m in matches if m.is_file() or is_zarr_image(m)]
        found += [path for path in matches if path.name not in source.exclude]
    if not found:
        raise InputError(f"no training image matches {source.paths}: check data.sources.paths")
    return sorted(set(found))


def _inside_zarr(path: Path) -> bool:
    return any(parent.suffix == ".zarr" for parent in path.parents)


def _is_kept_apart(wanted: Wanted, settings: DataSettings) -> bool:
    """By role, else by a hash of the group's name: a group goes to one side whole, whatever other files there are."""
    if wanted.source.role == "validation" or not settings.validation_share:
        return wanted.source.role == "validation"
    name = group_of(wanted.path.name, settings.group)
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32 < settings.validation_share


def group_of(name: str, pattern: str | None) -> str:
    """The part of a file's name that ``pattern`` matches, or the whole name."""
    if pattern is None:
        return name
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise SettingError(f"data.group '{pattern}' is no regular expression ({error})") from None
    return match.group(0) if match else name


def _chances(images: Sequence[TrainingImage], settings: DataSettings) -> np.ndarray:
    area = np.array([p.size.rows * p.size.cols for p in images], float)
    of_source = np.array([p.source for p in images])
    weight = np.array([s.weight for s in settings.sources])
    total = np.bincount(of_source, area, len(weight)).clip(1)
    chances = area * (weight / total)[of_source]
    return chances / chances.sum()


def to_signed(images: np.ndarray) -> np.ndarray:
    """uint8 (..., H, W, 3) -> float32 (..., 3, H, W) in [-1, 1]."""
    return np.moveaxis(images, -1, -3).astype(np.float32) / 127.5 - 1
