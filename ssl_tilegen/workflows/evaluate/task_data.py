"""Where the real, the synthetic and the test images of a `--task` folder are.

Two layouts are known, the first that fits is taken:

- ``real/`` (or ``train/``), ``synthetic/`` and ``test/`` (or ``val/``) with one sub-folder per class, or CSV files of
  these names; any of them may hold the class folders by split (``synthetic/train/CLASS``), of which its own is taken;
- the output of `augment --originals copy|link` for a CSV with a column ``split``: its ``manifest.csv`` lists the
  real and the synthetic images of ``train``; the real ones of ``test`` (or ``val``) are the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_tilegen.errors import InputError
from ssl_tilegen.io.image_files import is_image
from ssl_tilegen.workflows.labelled_images import MANIFEST, Labelled, read_labelled, read_manifest

TASK_SETS = ("real", "synthetic", "test")
_NAMES = {"real": ("real", "train"), "synthetic": ("synthetic",), "test": ("test", "val")}
_TRAIN, _TEST = ("train",), ("test", "val")
_TAKES = (
    "it takes real/ (or train/), synthetic/ and test/ (or val/), or the output of `augment --originals link` for a CSV "
    "with a column split"
)


def find_task_data(folder: Path) -> dict[str, Labelled]:
    """The labelled images of each of ``TASK_SETS``, all with the classes of the real ones.

    InputError where a set is missing, or its classes are not those of the real images.
    """
    if not folder.is_dir():
        raise InputError(f"--task {folder}: no such folder; {_TAKES}")
    places = {part: _place(folder, part) for part in TASK_SETS}
    rows = [row for row in read_manifest(folder).values() if row.get("kind")]
    if rows and not all(places.values()):
        return _from_manifest(folder, rows)
    found: dict[str, Labelled] = {}
    for part, place in places.items():
        if place is None:
            raise InputError(f"--task {folder}: no {' or '.join(_NAMES[part])} in it; {_TAKES}")
        found[part] = read_labelled(place, found["real"].classes if part != "real" else None)
    return found


def _place(folder: Path, part: str) -> Path | None:
    """The folder of class folders, or the CSV, of a part."""
    for name in _NAMES[part]:
        for path in (folder / name, folder / f"{name}.csv"):
            if path.is_file() or (path.is_dir() and path.suffix != ".csv"):
                return _of_its_split(path, _TEST if part == "test" else _TRAIN)
    return None


def _of_its_split(path: Path, splits: Sequence[str]) -> Path:
    """``path``, or its sub-folder of one of ``splits`` where that holds folders of images."""
    for split in splits:
        inner = path / split
        kinds = [kind for kind in inner.iterdir() if kind.is_dir()] if inner.is_dir() else []
        if any(is_image(image) for kind in kinds for image in kind.iterdir()):
            return inner
    return path


def _from_manifest(folder: Path, rows: Sequence[dict[str, str]]) -> dict[str, Labelled]:
    """The parts of a folder that `augment` made."""
    manifest = folder / MANIFEST
    splits = sorted({row.get("split") or "" for row in rows})
    if "train" not in splits or not set(_TEST) & set(splits):
        named = ", ".join(filter(None, splits)) or "none"
        raise InputError(f"{manifest}: splits {named}; name train and test (or val) in the column split of the CSV")
    test = next(split for split in _TEST if split in splits)
    wanted = {"real": ("real", "train"), "synthetic": ("synthetic", "train"), "test": ("real", test)}
    own = {part: [row for row in rows if (row["kind"], row.get("split")) == what] for part, what in wanted.items()}
    for part, (kind, split) in wanted.items():
        if not own[part]:
            remedy = "make it with --originals link (or copy)" if kind == "real" else "nothing was painted, or kept"
            raise InputError(f"{manifest}: no {kind} images of split {split}; {remedy}")
    classes = tuple(sorted({row["label"] for row in own["real"]}))
    if len(classes) < 2:
        raise InputError(f"{manifest}: a single class, {classes[0]}, in split train; a task takes two or more")
    strange = sorted({row["label"] for part in own.values() for row in part} - set(classes))
    if strange:
        raise InputError(f"{manifest}: class {strange[0]} is not among those of split train, {', '.join(classes)}")
    return {
        part: Labelled(
            tuple(folder / row["path"] for row in mine),
            np.array([classes.index(row["label"]) for row in mine]),
            np.array([row["group"] for row in mine]),
            classes,
        )
        for part, mine in own.items()
    }
