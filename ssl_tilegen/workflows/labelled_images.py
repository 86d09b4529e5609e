"""Labelled images: a folder with one sub-folder per class, or a CSV, and which of them belong together.

Two images belong to one group if they show the same patient, slide or field; a split never parts a group. Groups
come from a ``manifest.csv`` in the folder (or the CSV itself) with columns ``path``, ``label`` and ``group``; for
images that it does not name, the group is the file's name before its last underscore (``g012_03.jpg`` -> ``g012``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_tilegen.errors import InputError
from ssl_tilegen.io.image_files import is_image, stem_of
from ssl_tilegen.system.csv_table import Row, read_csv

MANIFEST = "manifest.csv"


class Labelled(NamedTuple):
    """``paths`` (N), ``labels`` (N,) indices into ``classes``, ``groups`` (N,) text."""

    paths: tuple[Path, ...]
    labels: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def read_labelled(source: str | Path, classes: Sequence[str] | None = None, least_classes: int = 2) -> Labelled:
    """The images of a folder of class folders, or of a CSV (columns path, label, optional group).

    ``classes``: those of another set, which this one must not exceed. InputError for an empty folder, fewer classes
    than ``least_classes``, a CSV without labels.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(f"{source}: no such folder or CSV; check the path")
    rows = _from_folder(source) if source.is_dir() else _from_csv(source)
    if not rows:
        loose = source.is_dir() and sum(map(is_image, source.iterdir()))
        found = f"{loose} images, but none in a class folder; move them to {source / 'CLASS'}" if loose else "no images"
        raise InputError(f"{source}: {found}; expected a sub-folder per class, or a CSV with path, label")
    names = tuple(classes) if classes else tuple(sorted({label for _, label, _ in rows}))
    if len(names) < least_classes:
        raise InputError(f"{source}: a single class, {names[0]}; a task takes two or more, one sub-folder for each")
    strange = sorted({label for _, label, _ in rows} - set(names))
    if strange:
        raise InputError(f"{source}: class {strange[0]} is not among {', '.join(names)}; name the folders alike")
    paths, labels, groups = zip(*rows, strict=True)
    return Labelled(paths, np.array([names.index(label) for label in labels]), np.array(groups), names)


def group_of(path: Path) -> str:
    """The group that a file's name says: the part before its last underscore, else all of it without suffix."""
    stem = stem_of(path)
    return stem.rsplit("_", 1)[0] if "_" in stem else stem


def read_manifest(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of ``manifest.csv`` in ``folder`` by their ``path`` (as written there); empty without such a file."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    rows = read_csv(path, remedy="write it again or remove it")
    return {row.cells["path"]: row.cells for row in rows if row.cells.get("path")}


def _from_folder(folder: Path) -> list[tuple[Path, str, str]]:
    manifest = read_manifest(folder)
    if not manifest:  # `augment` writes one for all splits, above their folders
        own, above = f"{folder.name}/", read_manifest(folder.parent)
        manifest = {name.removeprefix(own): row for name, row in above.items() if name.startswith(own)}
    rows = []
    for kind in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        for path in sorted(p for p in kind.iterdir() if is_image(p)):
            said = manifest.get(f"{kind.name}/{path.name}", {})
            rows.append((path, kind.name, said.get("group") or group_of(path)))
    return rows


def _from_csv(path: Path) -> list[tuple[Path, str, str]]:
    return [_labelled(path, row) for row in read_labelled_csv(path)]


def read_labelled_csv(path: Path) -> list[Row]:
    """The rows of a CSV of labelled images. InputError where it cannot be read, or has no path or label."""
    return read_csv(path, ["path", "label"], remedy="give a CSV with path, label, group")


def _labelled(source: Path, row: Row) -> tuple[Path, str, str]:
    named, label = row.text("path"), row.text("label")
    if not named or not label:
        missing = "label" if named else "path"
        raise InputError(f"{source}, line {row.number}: no {missing}; fill it in or remove the line")
    image = source.parent / named
    return image, label, row.text("group") or group_of(image)
