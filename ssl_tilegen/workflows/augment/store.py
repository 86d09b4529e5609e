"""The unfinished output of `augment`: sheets that are done, and the folder that gets its name at the end.

``OUT.part`` has ``plan.json`` (what run this is), ``sheets/N.npz`` (one record per finished sheet, written after its
images) and ``out`` (the images). Any number of processes may work at it as long as they take different sheets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from ssl_tilegen.errors import FormatError, OutputError
from ssl_tilegen.system import atomic, marks, work_folder
from ssl_tilegen.system.listing import content_sha256
from ssl_tilegen.system.outputs import Output, check_output

FACTS = "augment.json"
PART_NAMES = r"out|sheets|grids|plan\.json"


class Record(NamedTuple):
    """The results of a sheet: its S samples and its R originals.

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
        self.out, self.part = out, run_folder(out)
        self.folder, self._records = self.part / "out", self.part / "sheets"
        plan = self.part / "plan.json"
        try:
            if restart:
                work_folder.remove_work(self.part, PART_NAMES)
            work_folder.open_work(self.part, PART_NAMES)
            if plan.exists() and _key_of(plan) != key:
                raise OutputError(
                    f"{self.part}: an unfinished run with other settings or images; finish that one, or start over "
                    "with --restart"
                )
            for folder in (self.folder, self._records):
                folder.mkdir(parents=True, exist_ok=True)
            if not plan.exists():
                atomic.write_json(plan, {"key": key})
        except OSError as error:
            raise OutputError(f"{self.part}: cannot write here ({error.strerror}); choose another -o") from error

    def done(self, index: int) -> bool:
        """Whether sheet ``index`` is finished."""
        return (self._records / f"{index}.npz").exists()

    def put(self, index: int, record: Record) -> None:
        """Say that sheet ``index`` is finished; its images are there."""
        with atomic.writing(self._records / f"{index}.npz") as part:
            np.savez(part, **record._asdict())

    def get(self, index: int) -> Record:
        """The record of a finished sheet. FormatError where it cannot be read."""
        try:
            with np.load(self._records / f"{index}.npz") as arrays:
                return Record(**{name: arrays[name] for name in Record._fields})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise FormatError(f"{self._records / f'{index}.npz'}: damaged ({error}); remove it and run again") from None

    def finish(self, drop: Sequence[str], facts: dict[str, Any], *, overwrite: bool) -> None:
        """Leave out the images ``drop``, write the ``facts``, and give the folder its name."""
        for path in list(self.folder.rglob("*")):  # of a killed run
            if atomic.is_temporary(path.name) or path.suffix in (".part", ".lock"):
                atomic.remove(path)
        for file in drop:
            atomic.remove(self.folder / file)
            atomic.remove(self.folder / f"{file}.json")
        atomic.write_json(self.folder / FACTS, facts | {"content_sha256": content_sha256(self.folder)})
        check_output(Output(self.out, marks.augmented), overwrite=overwrite)
        atomic.publish_folder(self.folder, self.out, replace=overwrite, mark=marks.augmented)
        self.discard()

    def discard(self) -> None:
        """Remove the unfinished output."""
        work_folder.remove_work(self.part, PART_NAMES)


def run_folder(out: Path) -> Path:
    """Where an unfinished output lies."""
    return out.with_name(f"{out.name}.part")


def _key_of(plan: Path) -> str:
    try:
        return str(json.loads(plan.read_text())["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
