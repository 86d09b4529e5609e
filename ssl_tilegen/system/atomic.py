"""Files and folders that get their name when they are whole: temporary name, fsync, rename.

What is promised after a power loss (or a crash of the system), on a file system that keeps its word about fsync:

* A name that is published here refers to the old content or to the whole new one, never to a part of it.
* When a command has ended with exit code 0, its outputs are on the disk.
* An unfinished run goes on from a state that is on the disk: its data are flushed before the state that refers to them.

So every file is flushed before it is renamed, and its folder after. There is no second policy: caches and tables are
written in the same way. Only log lines (``log.jsonl``) may lose their end.

Temporary files are called ``.NAME.HOST-PID-N.tmp.SUFFIX`` and lie beside what they become; ``old`` instead of ``tmp``
is what is being replaced. Those of a process that is gone are litter; ``sweep`` removes them.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ssl_tilegen.errors import OutputError
from ssl_tilegen.system.processes import host_key, process_lives

NAME_BYTES = 255
_MARK = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-\d+\.(?P<kind>tmp|old)(?:\.[A-Za-z0-9]+)?")
_OLD_S = 24 * 3600.0
_counter = itertools.count()


@contextmanager
def writing(path: Path, *, replace: bool = True, before: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """Yield a temporary path with the suffix of ``path``; a clean exit publishes it as ``path``, any other removes it.

    The folder is made where it is missing. ``before`` it gets its name, but after it is on the disk, that is asked
    whether it still may. OSError as the system raises it; OutputError where ``path`` exists and may not be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        publish_file(temporary, path, replace=replace, before=before)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole file as UTF-8, line ends as given."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any, **how: Any) -> None:
    """Write a value as a JSON file that ends in a line feed."""
    write_text(path, json.dumps(value, **{"indent": 2, **how}) + "\n")


def publish_file(
    temporary: Path, path: Path, *, replace: bool = True, before: Callable[[], object] = lambda: None
) -> None:
    """Flush a file, give it its name and flush the name. OutputError where ``path`` exists and may not be replaced.
    ``before``: as for `writing`."""
    flush(temporary)
    before()
    if replace:
        temporary.replace(path)
    else:
        _rename_to_free_name(temporary, path)
    flush(path.parent)


def publish_files(
    pairs: Sequence[tuple[Path, Path]], before: Callable[[], object] = lambda: None, *, replace: bool = True
) -> None:
    """Publish several files (temporary, path) together: where one rename fails, those before it are taken back.
    ``before`` and ``replace``: as for `writing`."""
    for temporary, _ in pairs:
        flush(temporary)
    before()
    undo: list[Callable[[], object]] = []
    aside: list[Path] = []
    try:
        for temporary, path in pairs:
            if replace:
                undo.append(_put_aside(path, aside))
                temporary.replace(path)
            else:
                _rename_to_free_name(temporary, path)
                undo.append(_removal(path))
    except BaseException:
        for step in reversed(undo):
            step()
        raise
    for folder in dict.fromkeys(path.parent for _, path in pairs):
        flush(folder)
    for copy in aside:
        copy.unlink(missing_ok=True)


def publish_folder(
    part: Path, path: Path, *, replace: bool = False, mark: Callable[[Path], str | None] = lambda path: None
) -> None:
    """Flush a folder with all that is in it and give it its name; the old one is removed afterwards.

    Does nothing where ``part`` is gone and ``path`` is there: another process was first. OutputError where ``path``
    exists and may not be replaced, or lacks the ``mark`` of an output of this program. That is asked again once it has
    lost its name: a user may put something there while ``part`` is being flushed.
    """
    if not part.exists() and path.exists():
        return
    _refuse_taken(path, replace=replace, mark=mark)
    flush_tree(part)
    if not part.exists() and path.exists():
        return
    _refuse_taken(path, replace=replace, mark=mark)
    aside = temporary_beside(path, "old")
    if os.path.lexists(path) and replace:
        path.rename(aside)
    try:
        _refuse_taken(aside, replace=replace, mark=mark, shown=path)
        part.rename(path)
        if path.is_symlink():  # somebody has put it in the place of the folder
            path.rename(part)
            raise OutputError(f"{part}: is a link, where this program had a folder; move it away, and run it again")
    except FileNotFoundError:  # another process was first: what is aside is the new folder
        if os.path.lexists(aside):
            aside.rename(path)
    except BaseException:
        if os.path.lexists(aside) and not os.path.lexists(path):
            aside.rename(path)
        raise
    flush(path.parent)
    remove(aside)


def _refuse_taken(place: Path, *, replace: bool, mark: Callable[[Path], str | None], shown: Path | None = None) -> None:
    """OutputError where ``place`` exists and may not be replaced."""
    if not os.path.lexists(place):
        return
    path = shown or place
    if not replace:
        raise OutputError(f"{path}: exists; choose another -o or give --overwrite")
    missing = mark(place)
    if missing:
        raise OutputError(
            f"{path}: exists and was not made by this program (it has {missing}); it is left as it is: choose another "
            "name, or move it away"
        )


def temporary_beside(path: Path, kind: str = "tmp") -> Path:
    """A name that no other call gives, beside ``path`` and with its last suffix, within the limits of file systems."""
    suffix = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,12}", path.suffix) else ""
    end = f".{host_key()}-{os.getpid()}-{next(_counter)}.{kind}{suffix}"
    stem = os.fsdecode(os.fsencode(path.name)[: NAME_BYTES - len(end) - 1])
    return path.with_name(f".{stem}{end}")


def sweep(folder: Path, *names: str) -> None:
    """Remove temporary files and folders that ended processes left in ``folder``: those of the outputs ``names`` and of
    what lies beside them (``NAME.json``, ``NAME.part``), by default all. For the one job that holds the lock."""
    if not folder.is_dir():
        return
    for entry in list(folder.iterdir()):
        match = _MARK.fullmatch(entry.name)
        if not match or not _is_of(match["name"], names):
            continue
        needed = match["kind"] == "old" and not any(map(os.path.lexists, _successors(folder, match["name"])))
        if not needed and _is_litter(entry, match["host"], int(match["pid"])):
            remove(entry)


def is_temporary(name: str) -> bool:
    """Whether a file name is one that this module gives to unfinished files."""
    return _MARK.fullmatch(name) is not None


def remove(path: Path) -> None:
    """Remove a file, a link or a folder of ours; nothing where it is gone already.

    A folder loses its name first: what cannot be removed of it is a temporary folder, which `sweep` knows, and not half
    of something that was whole.
    """
    if path.is_dir() and not path.is_symlink():
        doomed = path if is_temporary(path.name) else temporary_beside(path)
        if doomed is not path:
            try:
                path.rename(doomed)
            except OSError:
                doomed = path
        if doomed.is_symlink():  # somebody has put it in the folder's place meanwhile
            doomed.rename(path)
            return
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, reach the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # Windows does not open folders
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # not on this file system
            raise
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Have all files of a folder reach the disk, and their names."""
    for place, _, files in os.walk(folder):
        for name in files:
            flush(Path(place, name))
        flush(Path(place))


def _rename_to_free_name(temporary: Path, path: Path) -> None:
    """A rename that never replaces; file systems without hard links leave a moment between look and rename."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise OutputError(f"{path}: exists; choose another name or give --overwrite") from None
    except OSError:
        if os.path.lexists(path):
            raise OutputError(f"{path}: exists; choose another name or give --overwrite") from None
        temporary.replace(path)
    else:
        temporary.unlink()


def _put_aside(path: Path, aside: list[Path]) -> Callable[[], object]:
    """Keep a second name of the file at ``path``; the call that brings the old file back."""
    if not os.path.lexists(path):
        return _removal(path)
    copy = temporary_beside(path, "old")
    try:
        os.link(path, copy, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, copy, follow_symlinks=False)
    aside.append(copy)
    return lambda: copy.replace(path)


def _removal(path: Path) -> Callable[[], object]:
    return lambda: path.unlink(missing_ok=True)


def _successors(folder: Path, name: str) -> tuple[Path, Path]:
    """What takes the place of something that was put aside: where neither is there, it is the only one."""
    return folder / name, folder / f"{name}.part"


def _is_of(found: str, names: Sequence[str]) -> bool:
    shown = found.lstrip(".")  # grids of a command's own are hidden beside its output
    return not names or any(shown == name.lstrip(".") or shown.startswith(f"{name.lstrip('.')}.") for name in names)


def _is_litter(entry: Path, host: str, pid: int) -> bool:
    """Whether nobody is at work on a temporary file: its process is gone, or (of another machine) it is a day old."""
    if host != host_key():
        try:
            return time.time() - entry.lstat().st_mtime > _OLD_S
        except OSError:
            return False
    return pid != os.getpid() and not process_lives(pid)
