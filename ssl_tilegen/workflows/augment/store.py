"""The unfinished output of `augment`: sheets that are done, and the folder that gets its name at the end.

``OUT.part`` has ``plan.json`` (what run this is), ``sheets/N.npz`` (one record per finished sheet, written after its
pictures) and ``out`` (the pictures). Any number of processes may work at it as long as they take different sheets.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_tilegen.errors import FormatError, OutputError
from ssl_tilegen.system.folders import replace_folder


class Record(NamedTuple):
    """What is known of a sheet's S samples and its R originals.

    ``vectors`` (S, D): mean cell of each sample, re-embedded; ``cosine`` (S,): mean cosine of its cells to those of its
    source; ``originals`` (R,): indices; ``real`` (R, D): their mean cells.
    """

    vectors: np.ndarray
    cosine: np.ndarray
    originals: np.ndarray
    real: np.ndarray


class Store:
    """The unfinished output of ``out``. OutputError where another run's is in the way."""

    def __init__(self, out: Path, key: str, *, restart: bool) -> None:
        self.out, self.part = out, part_of(out)
        self.folder, self._records = self.part / "out", self.part / "sheets"
        plan = self.part / "plan.json"
        try:
            if restart and self.part.exists():
                shutil.rmtree(self.part)
            if plan.exists() and _key_of(plan) != key:
                raise OutputError(
                    f"{self.part}: an unfinished run with other settings or pictures; finish that one, or start over "
                    "with --restart"
                )
            for folder in (self.folder, self._records):
                folder.mkdir(parents=True, exist_ok=True)
            if not plan.exists():
                _write(plan, json.dumps({"key": key}).encode())
        except OSError as error:
            raise OutputError(f"{self.part}: cannot write here ({error.strerror}); choose another -o") from error

    def done(self, index: int) -> bool:
        """Whether sheet ``index`` is finished."""
        return (self._records / f"{index}.npz").exists()

    def put(self, index: int, record: Record) -> None:
        """Say that sheet ``index`` is finished; its pictures are there."""
        part = self._records / f".{index}.{os.getpid()}.npz"
        np.savez(part, **record._asdict())
        part.replace(self._records / f"{index}.npz")

    def get(self, index: int) -> Record:
        try:
            with np.load(self._records / f"{index}.npz") as arrays:
                return Record(**{name: arrays[name] for name in Record._fields})
        except (OSError, ValueError, KeyError) as error:
            raise FormatError(f"{self._records / f'{index}.npz'}: damaged ({error}); remove it and run again") from None

    def finish(self, drop: Sequence[str], *, overwrite: bool) -> None:
        """Leave out the pictures ``drop``, and give the folder its name."""
        for leftover in self.folder.rglob(".*.part"):  # of a killed run
            _remove(leftover)
        for file in drop:
            _remove(self.folder / file)
            _remove(self.folder / f"{file}.json")
        replace_folder(self.folder, self.out, overwrite=overwrite)
        shutil.rmtree(self.part, ignore_errors=True)


def part_of(out: Path) -> Path:
    """Where an unfinished output lies."""
    return out.with_name(f"{out.name}.part")


def _key_of(plan: Path) -> str:
    try:
        return str(json.loads(plan.read_text())["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
