"""The table that a prior learns from: grids or images, each with a label, captions, a vector.

Columns; all but ``path`` may be left out:

- ``path``: a grid made by `embed`, or an image; from the table's folder on.
- ``label``, ``domain``: names.
- ``caption``: a text, or several wordings of the same, separated by `` | ``.
- ``vector``: numbers separated by spaces, or FILE.npz:KEY or FILE.npy.
- ``group``: the same for rows that show one thing.
- ``region``: X,Y,W,H in pixels of the image or the grid's view.
- ``shrink``: read so many times coarser.
- ``mpp``, ``gsd``: the size of a pixel of an image that does not state its own.
- ``turns``: flips and rotations of an image that are embedded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Window
from ssl_tilegen.io.npy_vectors import finite, load_vector
from ssl_tilegen.system import csv_table
from ssl_tilegen.system.hashing import sha256, sha256_of_file, sha256_of_json

COLUMNS = ("path", "label", "caption", "vector", "group", "domain", "region", "shrink", "mpp", "gsd", "turns")


@dataclass(frozen=True)
class PriorRow:
    """One line of the table."""

    path: Path
    label: str | None = None
    captions: tuple[str, ...] = ()
    vector: np.ndarray | None = None
    group: str = ""
    domain: str | None = None
    region: Window | None = None
    shrink: int = 1
    mpp: float | None = None
    gsd: float | None = None
    turns: int | None = None

    @property
    def is_grid(self) -> bool:
        """Whether the row names a grid, not an image."""
        return self.path.suffix == ".zarr"

    @property
    def file(self) -> Path:
        """The image, or the metadata file of a grid, which is new whenever the grid is."""
        return self.path / "zarr.json" if self.is_grid else self.path

    def fingerprint(self) -> list[Any]:
        """The data outside the table: size of an image or hash of a grid's metadata, and hash of the vector."""
        known: int | str | None = None
        if self.file.is_file():
            known = sha256_of_file(self.file) if self.is_grid else self.file.stat().st_size
        return [known, None if self.vector is None else sha256(self.vector)]


@dataclass(frozen=True)
class PriorTable:
    """All rows, and the file they were read from."""

    path: Path
    rows: list[PriorRow]

    @classmethod
    def read(cls, path: Path) -> PriorTable:
        """See ``read_table``."""
        return cls(path, read_table(path))

    def fingerprint(self) -> dict[str, Any]:
        """The record of the data in a run: names of the images, and a hash of the table and what it names."""
        names = sorted({row.path.name for row in self.rows})
        rows = [row.fingerprint() for row in self.rows]
        return {"files": names, "sha256": sha256_of_json(rows, self.path.read_bytes())}


def read_table(path: Path) -> list[PriorRow]:
    """The rows of a CSV. InputError with the line's number where one cannot be used."""
    lines = csv_table.read_csv(path, ["path"], known=COLUMNS, remedy="give a CSV with a column 'path'")
    rows = [_row(path, line) for line in lines]
    if not rows:
        raise InputError(f"{path}: has no rows")
    lengths = {len(row.vector) for row in rows if row.vector is not None}
    if len(lengths) > 1:
        raise InputError(f"{path}: vectors of different lengths: {', '.join(map(str, sorted(lengths)))}")
    return rows


def _row(table: Path, line: csv_table.Row) -> PriorRow:
    text = {name: line.text(name) for name in COLUMNS}
    place = f"{table}, line {line.number}"
    try:
        path = table.parent / text["path"]
        return PriorRow(
            path=path,
            label=" ".join(text["label"].split()) or None,
            captions=tuple(part.strip() for part in text["caption"].split("|") if part.strip()),
            vector=_vector(text["vector"], table.parent) if text["vector"] else None,
            group=text["group"] or path.stem.rpartition("_")[0] or path.stem,
            domain=text["domain"] or None,
            region=_region(text["region"]) if text["region"] else None,
            shrink=int(text["shrink"] or 1),
            mpp=float(text["mpp"]) if text["mpp"] else None,
            gsd=float(text["gsd"]) if text["gsd"] else None,
            turns=int(text["turns"]) if text["turns"] else None,
        )
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"{place}: {error}") from None


def _vector(text: str, folder: Path) -> np.ndarray:
    if ".npy" in text or ".npz" in text:
        return load_vector(text, folder)
    vector = np.array([float(part) for part in text.replace(",", " ").split()], np.float32)
    return finite(vector, text[:40])


def _region(text: str) -> Window:
    x, y, width, height = (int(part) for part in text.split(","))
    return Window(y, x, height, width)
