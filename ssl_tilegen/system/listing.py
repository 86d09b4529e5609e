"""Hashes of all that is in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ssl_tilegen.system.atomic import is_temporary
from ssl_tilegen.system.hashing import sha256, sha256_of_file


def content_sha256(folder: Path) -> str:
    """A hash of the names and contents of all files in the folder of `augment`, but for ``augment.json``, which has it;
    links count by where they lead."""
    return _listing_sha256(folder, lambda file: str(file.readlink()) if file.is_symlink() else sha256_of_file(file))


def _sizes_sha256(folder: Path) -> str:
    """The same of names and sizes, which earlier versions kept."""
    return _listing_sha256(folder, lambda file: file.lstat().st_size)


LISTINGS: dict[str, Callable[[Path], str]] = {"files_sha256": _sizes_sha256, "content_sha256": content_sha256}


def _listing_sha256(folder: Path, of: Callable[[Path], object]) -> str:
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for each in (Path(place, name) for name in (*files, *links) if not is_temporary(name)):
            found.append(f"{each.relative_to(folder).as_posix()}\t{of(each)}")
    return sha256(os.fsencode("\n".join(sorted(line for line in found if not line.startswith("augment.json\t")))))


def not_named_in(folder: Path, named: set[str]) -> str | None:
    """The first file in a folder, from its root on, that is not named and lies in no folder that is."""
    for place, folders, files in os.walk(folder):
        within = os.path.relpath(place, folder)
        inside = {name: name if within == "." else f"{within}/{name}" for name in (*folders, *files)}
        links = {name for name in folders if Path(place, name).is_symlink()}
        for name in (*files, *links):
            if inside[name] not in named and not is_temporary(name):
                return inside[name]
        folders[:] = [name for name in folders if inside[name] not in named and name not in links]
    return None
