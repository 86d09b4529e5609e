"""Inputs and outputs of `embed`: files, folders, globs, addresses and lists, each image with its grid."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.errors import InputError, OutputError, SettingError
from ssl_tilegen.io.image_files import SUFFIXES, images_among, is_zarr_image, stem_of
from ssl_tilegen.io.uri import Source, Uri, source_of
from ssl_tilegen.system.csv_table import Row, read_csv
from ssl_tilegen.system.names import unfit_name
from ssl_tilegen.system.outputs import require_plain

_GLOB = frozenset("*?[")
_COLUMNS = ("path", "id", "mpp", "gsd")
_LEAST, _MOST = 1e-6, 1e6
"""Range of the resolutions that a list may state, in their unit."""


class EmbedJob(NamedTuple):
    """One image and the grid to be made of it; ``mpp`` or ``gsd``: the size of its pixels by the list."""

    image: Source
    grid: Path
    mpp: float | None = None
    gsd: float | None = None

    def beside(self, suffix: str) -> Path:
        """The grid's path with another suffix, for companion files."""
        return self.grid.with_name(self.grid.name.removesuffix(".zarr") + suffix)


class Entry(NamedTuple):
    """An image as it was given, before its grid is known."""

    image: Source
    id: str | None = None
    mpp: float | None = None
    gsd: float | None = None


def find_jobs(inputs: Sequence[str | Path], settings: EmbedSettings) -> list[EmbedJob]:
    """The images of ``inputs`` and of ``settings.list`` in a fixed order, each with its grid.

    Raises InputError, OutputError or SettingError.
    """
    entries = [Entry(image) for item in inputs for image in _expand(item)]
    if settings.list is not None:
        entries += read_list(settings.list)
    entries = list({(entry.image, entry.id): entry for entry in entries}.values())
    if not entries:
        raise InputError("no input; give images, folders or globs")
    if settings.out and len(entries) > 1:
        raise SettingError(f"-o {settings.out}: one output for {len(entries)} inputs; give --out-dir instead")
    jobs = [EmbedJob(e.image, settings.out or _grid_of(e, settings.out_dir), e.mpp, e.gsd) for e in entries]
    _refuse_clashes(jobs)
    return jobs


def read_list(path: Path) -> list[Entry]:
    """The images of a CSV with columns path, optional id, mpp, gsd; paths are taken from the CSV's folder on.

    Raises InputError with the line's number where one cannot be used.
    """
    require_plain(path, "--list")
    rows = read_csv(path, ["path"], shown=f"--list {path}", remedy=f"give a CSV with columns {', '.join(_COLUMNS)}")
    entries = [_entry(path, row) for row in rows]
    if not entries:
        raise InputError(f"--list {path}: names no image")
    _refuse_same_ids(path, rows)
    return entries


def _refuse_same_ids(path: Path, rows: Sequence[Row]) -> None:
    lines: dict[str, int] = {}
    for row in rows:
        name = row.text("id")
        if name and lines.setdefault(name, row.number) != row.number:
            raise InputError(
                f"--list {path}, line {row.number}: id {name} is that of line {lines[name]}; give another one"
            )


def _entry(path: Path, row: Row) -> Entry:
    values = {name: row.text(name) for name in _COLUMNS}
    place = f"--list {path}, line {row.number}"
    if not values["path"]:
        raise InputError(f"{place}: no path")
    if values["mpp"] and values["gsd"]:
        raise InputError(f"{place}: gives mpp and gsd; a slide has the one, a raster the other")
    if values["id"] and (problem := unfit_name(values["id"])):
        raise InputError(f"{place}: id {values['id'][:80]} {problem}; give another one")
    image = source_of(values["path"])
    image = image if isinstance(image, Uri) else path.parent / image
    measures = (_positive(place, name, values[name]) for name in ("mpp", "gsd"))
    return Entry(image, values["id"] or None, *measures)


def _positive(place: str, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not _LEAST <= number <= _MOST:
        raise InputError(
            f"{place}: {name} {text} is not a positive number from {_LEAST:g} to {_MOST:g}; leave it empty if unknown"
        )
    return number


def _expand(item: str | Path) -> Iterable[Source]:
    """The images that one argument stands for: itself, those in a folder, or those a glob finds, sorted."""
    path = source_of(item)
    if isinstance(path, Uri) or is_zarr_image(path):
        return [path]
    if path.is_dir():
        found = list(images_among(path.iterdir()))
    elif _GLOB & set(str(item)) and not path.exists():
        paths = [Path(p) for p in sorted(glob.glob(str(item), recursive=True))]  # noqa: PTH207
        found = [p for p in paths if p.is_file() or is_zarr_image(p)]
    else:
        return [path]
    if not found:
        raise InputError(f"{item}: no images there; looked for {' '.join(sorted(SUFFIXES))} and OME-Zarr")
    return found


def _grid_of(entry: Entry, folder: Path | None) -> Path:
    """ID.zarr or NAME.zarr in ``folder``, by default the image's own (the working folder for an address)."""
    image = entry.image
    folder = folder or (Path() if isinstance(image, Uri) else image.parent)
    stem = entry.id or stem_of(image)
    grid = folder / f"{stem}.zarr"
    same = isinstance(image, Path) and grid.resolve() == image.resolve()
    return folder / f"{stem}.grid.zarr" if same else grid


def _refuse_clashes(jobs: list[EmbedJob]) -> None:
    first: dict[Path, Source] = {}
    for job in jobs:
        other = first.setdefault(job.grid, job.image)
        if other != job.image:
            raise OutputError(
                f"{job.image} and {other} would both become {job.grid}; "
                "embed them separately with -o, or name them by the ids of a --list"
            )
