"""Folders of unfinished runs: their mark, how they are made, and how they are removed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ssl_tilegen.errors import OutputError
from ssl_tilegen.system.atomic import is_temporary, remove, write_json
from ssl_tilegen.system.marks import SOFTWARE, Mark
from ssl_tilegen.system.metadata import (
    OURS,
    foreign_in,
    json_of,
    odd_in,
)

WORK_FILE = ".ssl-tilegen.json"


def work(known: str = ".*") -> Mark:
    """The folder of an unfinished run: it holds `WORK_FILE` and what is ``known`` (a regular expression of names), or
    nothing at all."""

    def mark(path: Path) -> str | None:
        if not path.is_dir() or path.is_symlink():
            return f"no {WORK_FILE}: it is no folder"
        if all(is_temporary(entry.name) for entry in path.iterdir()):
            return None
        odd = odd_in(path)
        if odd:
            return f"'{odd}' in it, which is no plain file of its own"
        facts = json_of(path / WORK_FILE)
        if not (isinstance(facts, dict) and str(facts.get("software", "")).startswith(OURS)):
            return f"no {WORK_FILE} in it"
        strange = foreign_in(path, f"{re.escape(WORK_FILE)}|{known}")
        return f"'{strange}' in it, which is no part of it" if strange else None

    return mark


def open_work(path: Path, known: str = ".*") -> None:
    """Make the folder of an unfinished run, and sign it. OutputError where a foreign one is there."""
    missing = work(known)(path) if os.path.lexists(path) else None
    if missing:
        raise OutputError(f"{path}: was not made by this program (it has {missing}); it is left as it is: move it away")
    path.mkdir(parents=True, exist_ok=True)
    if not (path / WORK_FILE).exists():
        write_json(path / WORK_FILE, {"software": SOFTWARE, "what": "an unfinished run; the same command continues it"})


def remove_work(path: Path, known: str = ".*") -> None:
    """Remove the folder of an unfinished run with all that is ``known`` in it; what is foreign stays, and the folder
    with it."""
    if not path.is_dir() or path.is_symlink() or not (path / WORK_FILE).exists():
        return
    if not foreign_in(path, f"{re.escape(WORK_FILE)}|{known}"):
        remove(path)  # as a whole: half of a run could not be continued
        return
    pattern = re.compile(known)
    for entry in list(path.iterdir()):
        if entry.name != WORK_FILE and (pattern.fullmatch(entry.name) or is_temporary(entry.name)):
            remove(entry)
    if [entry.name for entry in path.iterdir()] == [WORK_FILE]:
        remove(path)


def run(path: Path) -> str | None:
    """The folder of one stage of `train`: signed, or of an earlier version, which kept its settings and no sign."""
    facts = json_of(path / "settings.json") if path.is_dir() and not path.is_symlink() else None
    if isinstance(facts, dict) and isinstance(facts.get("run"), dict):
        return None
    return work()(path)
