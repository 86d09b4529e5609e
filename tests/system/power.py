"""A power loss: what of a folder is still there when only what was flushed counts.

``Disk`` watches ``os.fsync``. A file has on the disk what it held when it was last flushed (nothing before that); a
folder has the names it had when it was last flushed. Renames may have reached the disk earlier than that or not, so
there are two worlds to look at after a crash: ``names_now`` (all renames did) and ``names_flushed`` (none since).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Tree = dict[str, bytes]


class Disk:
    """The files below ``root`` as a power loss would leave them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        for place in [root, *(p for p in root.rglob("*"))]:
            self._flushed(place)

    def _flushed(self, path: Path) -> None:
        node = path.stat().st_ino
        if path.is_dir():
            self._names[node] = {name.name: name.stat().st_ino for name in path.iterdir() if name.exists()}
        else:
            self._content[node] = path.read_bytes()

    def names_now(self) -> Tree:
        """Every name there is, with the content that was flushed."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        return {str(p.relative_to(self.root)): self._content.get(p.stat().st_ino, b"") for p in files}

    def names_flushed(self) -> Tree:
        """The names that were flushed, from the root on, with the content that was flushed."""
        return dict(self._below(self.root.stat().st_ino, ""))

    def _below(self, node: int, before: str) -> Iterator[tuple[str, bytes]]:
        for name, inner in self._names.get(node, {}).items():
            if inner in self._content:
                yield before + name, self._content[inner]
            elif inner in self._names:
                yield from self._below(inner, f"{before}{name}/")


@contextmanager
def watched(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk that sees every flush of the body."""
    disk, flush = Disk(root), os.fsync

    def seen(descriptor: int) -> None:
        flush(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_relative_to(root.resolve()) and path.exists():
            disk._flushed(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", seen)
        yield disk
