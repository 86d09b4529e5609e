"""The gate: asked by every command with all it reads and all it writes, before anything is made or removed.

It refuses an output that is an input, holds one, or lies in one; outputs that are each other or lie in each other; what
is there and was not made by this program; and what is no file or folder. Links, relative paths, hard links and folders
that are mounted twice make no difference. Neither does the case of names, where the file system ignores it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssl_tilegen.errors import InputError, OutputError
from ssl_tilegen.system.marks import Mark

_LONGEST_SUFFIX = len(".00-of-99.lock.taking")
_LONGEST_PATH = 4096
_KINDS = {stat.S_IFIFO: "a pipe (FIFO)", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@dataclass(frozen=True)
class Input:
    """An input of a command. ``whole``: nothing may enter this folder (a Zarr store, a bundle, a data set)."""

    path: Path
    option: str = "the input"
    whole: bool = True


@dataclass(frozen=True)
class Output:
    """A place that a command writes. ``mark`` says whether the file there is ours.

    ``main`` is replaced with --overwrite only; ``side`` goes with the main output; ``work`` is an unfinished run, taken
    up or started over.
    """

    path: Path
    mark: Mark
    option: str = "-o"
    role: Literal["main", "side", "work"] = "main"


def check_paths(inputs: Iterable[Input], outputs: Iterable[Output], *, overwrite: bool = False) -> None:
    """Raise InputError or OutputError, with one line, where the outputs may not be written. Writes nothing."""
    read, written = list(inputs), list(outputs)
    for each in read:
        require_plain(each.path, each.option)
    refuse_meetings(read, written)
    for output in written:
        check_output(output, overwrite=overwrite)


def check_output(output: Output, *, overwrite: bool = False) -> None:
    """OutputError where one output may not be written: something foreign is there, its name is too long, its folder is
    none. To be asked again before an output is replaced that took long to make."""
    path, option = output.path, output.option
    _check_place(path, option)
    if not os.path.lexists(path):
        return
    kind = _special(path)
    if kind:
        raise OutputError(f"{path}: is {kind}; choose another {option}")
    if not path.exists():
        raise OutputError(f"{path}: is a link to nothing; remove it or choose another {option}")
    if output.role == "main" and not overwrite:
        raise OutputError(f"{path}: exists; give --overwrite or another {option}")
    missing = output.mark(path)
    if missing:
        raise OutputError(
            f"{path}: exists and was not made by this program (it has {missing}); it is left as it is: choose another "
            f"{option}, or move it away"
        )


def require_plain(path: Path, option: str = "the input") -> None:
    """InputError for a pipe, a socket or a device: opening one may wait for ever."""
    kind = _special(path)
    if kind:
        raise InputError(f"{path}: is {kind}; give {option} as a file or folder")


def require_name(path: Path, option: str = "-o") -> Path:
    """``path`` itself; OutputError for the working folder, the root and what lies above, which cannot be an output."""
    if not path.name or path.name == "..":
        raise OutputError(f"{path}: is no name of an output; choose another {option}")
    return path


def _special(path: Path) -> str | None:
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return None


def _check_place(path: Path, option: str) -> None:
    """The folder can be made or written to, and the name leaves room for those of temporary files."""
    require_name(path, option)
    length, most = len(os.fsencode(path.name)), 255 - _LONGEST_SUFFIX
    if length > most:
        raise OutputError(
            f"{path.name[:40]}...: a name of {length} bytes, at most {most} can be used; choose another {option}"
        )
    try:
        there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another {option}") from None
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise OutputError(f"{path}: cannot be written ({there} is no folder to write to); choose another {option}")


def refuse_meetings(inputs: Sequence[Input], outputs: Sequence[Output]) -> None:
    """OutputError for outputs that are an input, hold one or lie in one; and the same of other outputs."""
    everything: list[Input | Output] = [*inputs, *outputs]
    for item in everything:
        if len(os.fsencode(item.path)) > _LONGEST_PATH:
            said = f"{str(item.path)[:40]}...: a path of more than {_LONGEST_PATH} bytes; give a shorter {item.option}"
            raise InputError(said) if isinstance(item, Input) else OutputError(said)
    read: dict[object, Input] = {}
    above_read: dict[object, Input] = {}
    for each in inputs:
        for key in _keys(each.path):
            read.setdefault(key, each)
        for key in _above(each.path):
            above_read.setdefault(key, each)
    written: dict[object, Output] = {}
    above_written: dict[object, Output] = {}
    for output in outputs:
        for key in _keys(output.path):
            if key in read:
                _refuse(output, f"is {_said(read[key])} at the same time")
            if key in above_read:
                _refuse(output, f"holds {_said(above_read[key])} {above_read[key].path}")
            if key in written:
                _refuse(output, f"is {written[key].option} at the same time")
            if key in above_written:
                _refuse(output, f"holds {above_written[key].option} {above_written[key].path}")
        for key in _above(output.path):
            if key in read and read[key].whole:
                _refuse(output, f"lies in {_said(read[key])} {read[key].path}")
            if key in written:
                _refuse(output, f"lies in {written[key].option} {written[key].path}")
        written |= dict.fromkeys(_keys(output.path), output)
        above_written |= dict.fromkeys(_above(output.path), output)


def _said(item: Input) -> str:
    return item.option


def _refuse(output: Output, why: str) -> None:
    raise OutputError(f"{output.path}: {why}; it is left as it is: choose another {output.option}")


def _keys(path: Path) -> Iterator[object]:
    """The identity of a place: its resolved path, and its inode where it exists."""
    yield _resolved(path)
    yield from _on_disk(path)


def _on_disk(path: Path) -> Iterator[object]:
    try:
        facts = path.stat()
        if facts.st_ino:
            yield facts.st_dev, facts.st_ino
    except (OSError, ValueError):
        return


def _above(path: Path) -> Iterator[object]:
    """The folders that a place lies in: their names, and what they are on the disk (a folder that is mounted a second
    time has another name)."""
    for folder in Path(os.path.realpath(path)).parents:
        yield _named(str(folder))
        yield from _on_disk(folder)


def _resolved(path: Path) -> str:
    return _named(os.path.realpath(path))


def _named(text: str) -> str:
    """A resolved path by which it is known: in small letters where the file system does not tell case."""
    return text.casefold() if _folds(os.path.dirname(text)) else text  # noqa: PTH120


_folding: dict[str, bool] = {}


def _folds(folder: str) -> bool:
    """Whether names in a folder are the same in capitals and small letters."""
    if folder not in _folding:
        other = os.path.join(os.path.dirname(folder), os.path.basename(folder).swapcase())  # noqa: PTH118, PTH119, PTH120
        try:
            _folding[folder] = other != folder and os.path.samefile(folder, other)  # noqa: PTH121
        except OSError:
            _folding[folder] = False
    return _folding[folder]
