"""What lies in a case's folder before its command runs: copies of good files, files and folders of a user, traps."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.faults.inject import USER_TEXT

State = dict[str, tuple[Any, ...]]


class Piece(Protocol):
    """Something that is put into the folder ``root``; ``world`` holds the good files to copy from."""

    def put(self, root: Path, world: Path) -> None: ...


def put_all(pieces: Sequence[Piece], root: Path, world: Path) -> None:
    """Put all pieces into ``root``, one after the other, where nothing is in their way; what came by it is written to
    the file `came`."""
    before = state_of(root)
    for piece in pieces:
        with suppress(OSError):
            piece.put(root, world)
    fresh = {path: found for path, found in state_of(root).items() if before.get(path) != found}
    came(root).write_bytes(pickle.dumps(fresh))


def came(root: Path) -> Path:
    """The record, beside the folder ``root``, of what a user put there while a command ran."""
    return root.with_name(f"{root.name}.came")


def state_of(folder: Path) -> State:
    """Every file, folder and link below a folder with its content."""
    found: State = {}
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(at) / name
            key = str(path.relative_to(folder))
            if path.is_symlink():
                found[key] = ("link", str(path.readlink()))
            elif path.is_dir():
                found[key] = ("folder",)
            elif path.is_file():
                stat = path.stat()
                content = path.read_bytes() if stat.st_size < 1 << 24 else b""
                found[key] = ("file", stat.st_size, content)
            else:
                found[key] = ("other",)
    return found


@dataclass(frozen=True)
class Copy:
    """A file or folder of the world, under its own name or another; ``cut``: only its first bytes."""

    source: str
    name: str = ""
    cut: int | None = None

    def put(self, root: Path, world: Path) -> None:
        here, there = world / self.source, root / (self.name or self.source)
        there.parent.mkdir(parents=True, exist_ok=True)
        if here.is_dir():
            shutil.copytree(here, there, symlinks=True, dirs_exist_ok=True)
        else:
            there.write_bytes(here.read_bytes()[: self.cut])


@dataclass(frozen=True)
class File:
    """A file with a content of its own; that of a user unless given."""

    name: str
    content: str | bytes = USER_TEXT
    size: int | None = None

    def put(self, root: Path, world: Path) -> None:
        path = root / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content if isinstance(self.content, bytes) else self.content.encode())
        if self.size is not None:
            os.truncate(path, self.size)


@dataclass(frozen=True)
class Append:
    """More text at the end of a file that is there already."""

    name: str
    content: str

    def put(self, root: Path, world: Path) -> None:
        path = root / self.name
        path.write_text(path.read_text() + self.content)


@dataclass(frozen=True)
class Swap:
    """Some text in a file that is there already in the place of other text of the same length."""

    name: str
    old: str
    new: str

    def put(self, root: Path, world: Path) -> None:
        path = root / self.name
        text = path.read_text()
        assert self.old in text and len(self.old) == len(self.new)
        path.write_text(text.replace(self.old, self.new, 1))


@dataclass(frozen=True)
class Remove:
    """A file that is there already is taken away."""

    name: str

    def put(self, root: Path, world: Path) -> None:
        (root / self.name).unlink()


@dataclass(frozen=True)
class Gone:
    """A folder that is there already is taken away with all that is in it."""

    name: str

    def put(self, root: Path, world: Path) -> None:
        shutil.rmtree(root / self.name)


@dataclass(frozen=True)
class Folder:
    """A user's folder: a text, a picture's bytes, a sub-folder."""

    name: str
    empty: bool = False

    def put(self, root: Path, world: Path) -> None:
        (root / self.name).mkdir(parents=True, exist_ok=True)
        for name in () if self.empty else ("thesis.txt", "data/results.csv", ".hidden/notes"):
            File(f"{self.name}/{name}").put(root, world)


@dataclass(frozen=True)
class Moved:
    """Something that is there already under another name, and a link to ``target`` in its place, if one is given.
    Nothing where it is not there."""

    name: str
    to: str
    target: str = ""

    def put(self, root: Path, world: Path) -> None:
        if os.path.lexists(root / self.name):
            (root / self.name).rename(root / self.to)
            if self.target:
                (root / self.name).symlink_to(self.target)


@dataclass(frozen=True)
class Link:
    """A symbolic link (``hard``: a second name of the same file)."""

    name: str
    target: str
    hard: bool = False

    def put(self, root: Path, world: Path) -> None:
        path = root / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.hard:
            path.hardlink_to(root / self.target)
        else:
            path.symlink_to(self.target)


@dataclass(frozen=True)
class Fifo:
    """A named pipe that nobody writes to."""

    name: str

    def put(self, root: Path, world: Path) -> None:
        (root / self.name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(root / self.name)


@dataclass(frozen=True)
class Socket:
    """A socket's name in the file system."""

    name: str

    def put(self, root: Path, world: Path) -> None:
        before = Path.cwd()
        os.chdir(root)  # the name of a socket must be short
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(self.name)
        finally:
            os.chdir(before)


@dataclass(frozen=True)
class Edit:
    """A JSON file that is there already, with values changed: ``key`` is a path of names and indices with dots."""

    name: str
    key: str
    value: object
    remove: bool = False

    def put(self, root: Path, world: Path) -> None:
        import json

        path = root / self.name
        tree = json.loads(path.read_text())
        *way, last = self.key.split(".")
        inner = tree
        for step in way:
            inner = inner[int(step) if isinstance(inner, list) else step]
        if self.remove:
            del inner[last]
        else:
            inner[int(last) if isinstance(inner, list) else last] = self.value
        path.write_text(json.dumps(tree))
