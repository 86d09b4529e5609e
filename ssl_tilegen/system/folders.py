"""Outputs that are folders: they get their name when they are whole."""

from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path

from ssl_tilegen.errors import OutputError


def replace_folder(part: Path, path: Path, *, overwrite: bool) -> None:
    """Rename ``part`` to ``path``; what was there is removed only after the new one has taken its place.

    Does nothing where another process has just done it. OutputError where ``path`` exists and may not be replaced.
    """
    if not part.exists() and path.exists():
        return
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists; choose another -o or give --overwrite")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    if path.exists():
        path.rename(aside)
    try:
        part.rename(path)
    except FileNotFoundError:  # another process was first: what is aside is the new grid
        if aside.exists():
            aside.rename(path)
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.exists():
        aside.unlink()


def sweep_leftovers(path: Path, part: Path) -> None:
    """Remove what killed runs left of the making or replacing of ``path``. Only for the one job that is at it."""
    ours = re.compile(rf"\.({re.escape(path.name)}|{re.escape(part.name)})\.[0-9a-f]{{8}}")
    if not (path.exists() or part.exists()):
        return
    for entry in path.parent.iterdir():
        if ours.fullmatch(entry.name) and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
