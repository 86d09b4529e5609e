"""Fingerprints: one way to hash values, arrays, files and folders. All are sha256 in hex.

Hashes of files are kept in memory by the file's identity, size and time of change. So a process reads gigabytes of
weights once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_tilegen.system.atomic import is_temporary

if TYPE_CHECKING:  # its import is most of what --help would wait for
    import numpy as np

_CHUNK = 1 << 20
_known: dict[tuple[Any, ...], str] = {}


def sha256(*parts: bytes | str | np.ndarray[Any, Any]) -> str:
    """The hash of bytes, texts (UTF-8) and the bytes of arrays, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(_bytes_of(part))
    return digest.hexdigest()


def sha256_of_json(value: Any, *more: bytes | str | np.ndarray[Any, Any], sort_keys: bool = True) -> str:
    """The hash of a value as JSON (what JSON does not know is taken by its ``str``), and of what follows it."""
    return sha256(json.dumps(value, sort_keys=sort_keys, default=str), *more)


def sha256_of_file(path: Path) -> str:
    """The hash of a file's content. Memory: 1 MiB, whatever the size."""
    return _of_files((path,), names=False)


def file_state(path: Path) -> list[int] | None:
    """Size and modification time (ns) of a file, by which a change in place is known; None where there is no file."""
    return [(known := path.stat()).st_size, known.st_mtime_ns] if path.is_file() else None


def sha256_of_folder(folder: Path, files: Iterable[Path] | None = None) -> str:
    """The hash of the names and contents of ``files`` (default: all files directly in ``folder``), sorted by path."""
    found = (path for path in folder.glob("*") if not is_temporary(path.name)) if files is None else files
    return _of_files(tuple(path for path in sorted(found) if path.is_file()), names=True)


def _of_files(paths: tuple[Path, ...], *, names: bool) -> str:
    """Before and after reading, the files must be the same; else the hash is not kept."""
    before = (names, *map(_identity, paths))
    if before in _known:
        return _known[before]
    digest = hashlib.sha256()
    for path in paths:
        if names:
            digest.update(path.name.encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    if before == (names, *map(_identity, paths)):
        _known[before] = digest.hexdigest()
    return digest.hexdigest()


def _identity(path: Path) -> tuple[Any, ...]:
    facts = path.stat()
    return str(path.absolute()), facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _bytes_of(part: bytes | str | np.ndarray[Any, Any]) -> bytes:
    if isinstance(part, str):
        return part.encode("utf-8", "surrogateescape")
    return part if isinstance(part, bytes) else part.tobytes()
