"""Faults of the file system, made inside the process: the n-th step of a kind below a folder fails, or is the last.

Steps are counted where Python takes them: `open` for writing, `read` (open for reading), `write`, `rename`, `unlink`,
`mkdir`, `fsync`. Libraries that write by themselves (GDAL, HDF5) are met by a full disk instead.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

USER_TEXT = "This file is somebody's work of ten years, and there is no other copy.\n"
CHANGES = ("open", "write", "rename", "unlink", "mkdir", "fsync")
_LONGEST_WAIT_S = 120
GROWS = ("open", "write", "mkdir", "fsync")


@dataclass(frozen=True)
class Fault:
    """What happens at step ``number`` (from 0) of kind ``step`` below ``root``; ``step`` "any" counts all changes.

    ``what`` is a name of `errno`, which the step raises, or a signal, which the process gets before the step.
    "APPEARS NAME": a user's file gets that name below the root before the step, unless something has it already.
    "WAITS": another command runs from its start to its end before the step.
    A full disk (ENOSPC, EDQUOT) stays full: every later step that takes room fails too. ``log`` is a file that gets
    one line per step, and then nothing fails.
    """

    root: str
    what: str = ""
    step: str = "any"
    number: int = 0
    log: str = ""


def appeared(root: Path) -> Path:
    """The sign, beside the folder ``root``, that the user's file of a fault "APPEARS" got its name."""
    return root.with_name(f"{root.name}.appeared")


def waiting(root: Path) -> Path:
    """The sign, beside the folder ``root``, that a command waits for another one at the step of a fault "WAITS"."""
    return root.with_name(f"{root.name}.waiting")


def ended(sign: Path) -> Path:
    """The sign that the other command has ended."""
    return sign.with_name(f"{sign.name}.ended")


def inject(fault: Fault) -> None:
    """Patch this process; there is no way back."""
    Steps(fault).patch()


class Steps:
    """Counts steps and strikes at one of them."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self._root = fault, os.path.realpath(fault.root) + os.sep
        self._count = 0
        self._lock = threading.Lock()
        self._fds: dict[int, str] = {}
        self._log = os.open(fault.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if fault.log else -1
        self._os_write, self._os_open = os.write, os.open

    def __call__(self, step: str, path: Any, dir_fd: int | None = None) -> None:
        """One step on ``path``; raises OSError where it is to fail."""
        place = self._place(path, dir_fd)
        if place is None:
            return
        fault = self.fault
        with self._lock:
            if self._log >= 0:
                self._os_write(self._log, f"{step}\t{place}\n".encode())
                return
            counted = step == fault.step or (fault.step == "any" and step in CHANGES)
            now, self._count = self._count, self._count + counted
        if fault.what.startswith("SIG"):
            if counted and now == fault.number:
                os.kill(os.getpid(), getattr(signal, fault.what))
            return
        if fault.what.startswith("APPEARS "):
            if counted and now == fault.number:
                self._appears(Path(self._root, fault.what.partition(" ")[2]))
            return
        if fault.what == "WAITS":
            if counted and now == fault.number:
                self._waits()
            return
        full = fault.what in ("ENOSPC", "EDQUOT")
        struck = counted and now == fault.number
        if struck or (full and step in GROWS and now > fault.number):
            number = getattr(errno, fault.what)
            raise OSError(number, os.strerror(number), str(path))

    def _appears(self, path: Path) -> None:
        with suppress(FileExistsError):
            fd = self._os_open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            self._os_write(fd, USER_TEXT.encode())
            os.close(fd)
            os.close(self._os_open(appeared(Path(self._root)), os.O_WRONLY | os.O_CREAT, 0o644))

    def _waits(self) -> None:
        sign = waiting(Path(self._root))
        os.close(self._os_open(sign, os.O_WRONLY | os.O_CREAT, 0o644))
        until = time.monotonic() + _LONGEST_WAIT_S
        while not ended(sign).exists() and time.monotonic() < until:
            time.sleep(0.01)

    def patch(self) -> None:
        """Put the counting in the place of what Python calls."""
        plain_open, plain_os_open = io.open, os.open
        steps = self

        class Counted(io.FileIO):
            place = ""

            def write(self, data: Any) -> Any:
                steps("write", self.place)
                return super().write(data)

        def opened(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
            place = steps._fds.get(file) if isinstance(file, int) else steps._place(file, None)
            if place is None:
                return plain_open(file, mode, buffering, *more, **named)
            writes = bool(set(mode) & set("wax+"))
            if not isinstance(file, int):
                steps("open" if writes else "read", file)
            if not writes or buffering not in (-1, 0) or named.get("opener"):
                return plain_open(file, mode, buffering, *more, **named)
            raw = Counted(file, mode.replace("b", "").replace("t", ""), closefd=named.pop("closefd", True))
            raw.place = place
            if buffering == 0:
                return raw
            binary: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            if "b" in mode:
                return binary
            text = io.TextIOWrapper(binary, *more, **named)
            text.mode = mode  # type: ignore[misc]
            return text

        def os_open(path: Any, flags: int, *more: Any, **named: Any) -> int:
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not flags & getattr(os, "O_DIRECTORY", 0):
                steps("open" if writes else "read", path, named.get("dir_fd"))
            fd = plain_os_open(path, flags, *more, **named)
            place = steps._place(path, named.get("dir_fd"))
            if place is not None and writes:
                steps._fds[fd] = place
            else:
                steps._fds.pop(fd, None)
            return fd

        def os_write(fd: int, data: Any) -> int:
            if fd in steps._fds:
                steps("write", steps._fds[fd])
            return steps._os_write(fd, data)

        builtins.open = io.open = opened  # type: ignore[assignment]
        os.open, os.write = os_open, os_write
        for step, names in {"rename": ("rename", "replace", "link"), "unlink": ("unlink", "remove", "rmdir"),
                            "mkdir": ("mkdir",)}.items():  # fmt: skip
            for name in names:
                setattr(os, name, self._before(step, getattr(os, name)))
        os.symlink = self._before("open", os.symlink, at=1)
        os.fsync = self._synced(os.fsync)
        os.fdatasync = self._synced(os.fdatasync)

    def _before(self, step: str, call: Callable[..., Any], at: int = 0) -> Callable[..., Any]:
        def counted(*words: Any, **named: Any) -> Any:
            self(step, words[at], named.get("dir_fd") or named.get("src_dir_fd"))
            return call(*words, **named)

        return counted

    def _synced(self, call: Callable[[Any], None]) -> Callable[[Any], None]:
        def counted(fd: Any) -> None:
            number = fd if isinstance(fd, int) else fd.fileno()
            self("fsync", Path(f"/proc/self/fd/{number}").readlink())
            call(fd)

        return counted

    def _place(self, path: Any, dir_fd: int | None) -> str | None:
        """The whole path where it lies below the root, else None."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        name = os.fsdecode(path)
        if dir_fd is not None and not name.startswith(os.sep):
            name = str(Path(f"/proc/self/fd/{dir_fd}").readlink() / name)
        whole = os.path.abspath(name)  # noqa: PTH100
        return whole if whole.startswith(self._root) else None


def steps_of(log: Path) -> list[str]:
    """The steps that a run with a ``log`` took, in order."""
    return [line.partition("\t")[0] for line in log.read_text(errors="replace").splitlines()]
