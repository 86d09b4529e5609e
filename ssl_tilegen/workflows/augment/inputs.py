"""The inputs of `augment`: labelled images that can be read, and those that cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_tilegen.errors import InputError, TilegenError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.image_files import is_image, is_zarr_image
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.system.names import recordable, unfit_name
from ssl_tilegen.system.progress import Progress
from ssl_tilegen.system.resources import reading_threads
from ssl_tilegen.workflows.labelled_images import read_labelled, read_labelled_csv

PATCH_PX = 1024
LEAST_PX = 16
_OURS = ("manifest.csv", "augment.json")


class Original(NamedTuple):
    """A labelled image. ``name``: its path as the manifest has it; ``split``: empty where none is known; ``level``:
    'patch' is painted with others in a stack; 'slide', 'map' and 'picture' are large, each painted from its grid;
    ``fingerprint``: `Raster.fingerprint`."""

    path: Path
    name: str
    label: str
    group: str
    split: str
    size: Size
    level: str
    fingerprint: str


class Failure(NamedTuple):
    """An image that could not be used, and why."""

    name: str
    label: str
    error: str


class Originals(NamedTuple):
    """Usable images in the order given, and the failures."""

    images: tuple[Original, ...]
    failed: tuple[Failure, ...]

    def classes(self) -> dict[str, int]:
        """How many usable images each class has."""
        return dict(sorted(Counter(image.label for image in self.images).items()))


def read_originals(source: Path, level: str, progress: Progress, *, sampled: bool = False) -> Originals:
    """The images of a folder of class folders, or of a CSV (path, label, optional group and split). Each is decoded
    once; large ones are only opened. ``level``: 'patch', 'image', or 'auto', which calls patches what has at most 1024
    px on each side. ``sampled``: the user says the resolution of large images, so theirs need not be known.

    InputError for an empty folder or class, a single class, lines without a label, or a group in two splits; and where
    no image can be read.
    """
    if source.is_dir():
        _check_folder(source)
    found = read_labelled(source, least_classes=1)
    labels = [found.classes[index] for index in found.labels]
    for label in set(labels):
        _check_label(source, label)
    splits = _splits(source, len(found))
    _check_groups(source, labels, list(found.groups), splits)
    base = source if source.is_dir() else source.parent
    images: list[Original] = []
    failed: list[Failure] = []
    with ThreadPoolExecutor(reading_threads()) as pool:
        looks = pool.map(lambda path: _look(path, level, sampled), found.paths)
        rows = zip(found.paths, labels, found.groups, splits, looks, strict=True)
        for done, (path, label, group, split, look) in enumerate(rows, 1):
            name = str(path.relative_to(base)) if path.is_relative_to(base) else str(path)
            if isinstance(look, str):
                failed.append(Failure(name, label, look))
            else:
                images.append(Original(path, name, label, str(group), split, *look))
            if done % 64 == 0 or done == len(found):
                progress("look", done, len(found))
    lost = sorted(set(labels) - {image.label for image in images})
    if lost:
        first = next(failure for failure in failed if failure.label == lost[0])
        raise InputError(f"{source}: no image of class {lost[0]} can be read; the first: {first.error}")
    return Originals(tuple(images), tuple(failed))


def read_pixels(path: Path) -> np.ndarray:
    """A whole image, uint8 (H, W, 3), at its own sampling."""
    with open_raster(path) as raster:
        return np.ascontiguousarray(raster.read(Window.of(raster.size)).rgb)


def _look(path: Path, level: str, sampled: bool) -> tuple[Size, str, str] | str:
    """Size, level and fingerprint of an image, or why it cannot be used. The manifest and the names of new images are
    made of its name."""
    if recordable(path.name) != path.name:
        return f"{path}: its name is not UTF-8; rename the file"
    try:
        with open_raster(path) as raster:
            size = raster.size
            if min(size.rows, size.cols) < LEAST_PX:
                return f"{path}: {size} px are too few; at least {LEAST_PX} on each side"
            if level == "patch" or (level == "auto" and max(size.rows, size.cols) <= PATCH_PX):
                raster.read(Window.of(size))
                return size, "patch", raster.fingerprint
            if raster.resolution is None and not sampled:
                return f"{path}: its resolution is unknown; say it with --mpp (um/px) or --gsd (m/px), or --level patch"
            kind = "map" if raster.crs else "picture" if raster.kind == "picture" else "slide"
            return size, kind, raster.fingerprint
    except (TilegenError, OSError) as error:
        return str(error)
    except Exception as error:  # a decoder's surprise in one of ten thousand must not end the run
        return f"{path}: {type(error).__name__}: {error}".splitlines()[0]


def _check_folder(folder: Path) -> None:
    """InputError for class folders that hold no image, or hold class folders themselves."""
    for kind in _folders(folder):
        if any(is_image(path) for path in kind.iterdir()):
            continue
        if any(is_image(path) for inner in _folders(kind) for path in inner.iterdir()):
            raise InputError(f"{folder}: its sub-folder {kind.name} holds folders of images; give {kind} instead")
        raise InputError(f"{kind}: a class without images; fill it or remove it")


def _folders(folder: Path) -> Iterable[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".") and not is_zarr_image(p))


def _check_label(source: Path, label: str) -> None:
    problem = "is the name of a file of ours" if label in _OURS else unfit_name(label)
    if problem:
        raise InputError(f"{source}: label {label[:80]} {problem}, and a class is a folder; rename the class")


def _splits(source: Path, count: int) -> list[str]:
    """The CSV's column ``split``, empty text where there is none."""
    if source.is_dir():
        return [""] * count
    splits = [row.text("split") for row in read_labelled_csv(source)]
    for split in splits:
        if split:
            _check_label(source, split)
    return splits


def _check_groups(source: Path, labels: list[str], groups: list[str], splits: list[str]) -> None:
    """InputError where images of one group lie in two splits: images made of them would leak."""
    known: dict[tuple[str, str], str] = {}
    for label, group, split in zip(labels, groups, splits, strict=True):
        if known.setdefault((label, group), split) != split:
            raise InputError(
                f"{source}: group {group} of {label} is in two splits, {known[label, group]} and {split}; "
                "a group must stay on one side"
            )
