"""A lock beside an output, so that two jobs never write the same one. It names its host and process.

A lock is a small JSON file. It is stale, and taken away by whoever meets it, when its process is gone (same machine)
or when it has not been touched for `STALE_S` seconds (another machine: the owner touches it every `BEAT_S`).
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ssl_tilegen.errors import OutputError

BEAT_S, STALE_S = 20.0, 300.0
_TRIES = 6
Share = tuple[int, int]


class Busy(OutputError):
    """Another job that is still alive writes this output."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock. ``space`` is the namespace of process numbers (containers), ``began`` the process's birth."""

    host: str
    pid: int
    space: str
    began: str
    since: str

    @classmethod
    def me(cls) -> Owner:
        return cls(socket.gethostname(), os.getpid(), _space(), _birth(os.getpid()), time.strftime("%Y-%m-%d %H:%M:%S"))

    def may_live(self) -> bool:
        """False where this machine can tell that the process is gone, or is another one of the same number."""
        if (self.host, self.space) != (socket.gethostname(), _space()):
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return _birth(self.pid) == self.began


@contextmanager
def lock(path: Path, share: Share = (0, 1), option: str = "-o") -> Iterator[bool]:
    """Hold ``path`` for the body, or only the share (index, count) of it; other shares of as many do not clash.

    Yields whether no other job at all holds a part of ``path``. Raises Busy where a living job clashes, OutputError
    where nothing can be written, which names the ``option`` that ``path`` was given by.
    """
    mine, alone = _take(path, share, option)
    ended = threading.Event()
    threading.Thread(target=_beat, args=(mine, ended), daemon=True, name="lock").start()
    try:
        yield alone
    finally:
        ended.set()
        mine.unlink(missing_ok=True)


def _take(path: Path, share: Share, option: str) -> tuple[Path, bool]:
    """The lock file made, and whether it is the only one.

    First written, then looked around: of two that start together both may step back, so they try again after a while.
    """
    mine = _file(path, share)
    for attempt in range(_TRIES):
        made = _make(mine, option)
        others = [found for found in _found(path) if found[0] != mine or not made]
        living = [(file, other) for file, other in others if not _clear_if_stale(file, mine if made else None)]
        clashing = [file for file, other in living if not made or _clash(share, other)]
        if made and not clashing:
            return mine, not living
        if made:
            mine.unlink(missing_ok=True)
        if attempt < _TRIES - 1:
            time.sleep(random.uniform(0.02, 0.3) if living else 0)
    raise Busy(f"{path}: {_who(clashing[0] if clashing else mine)}; wait for it, or end that job")


def _make(file: Path, option: str) -> bool:
    """Create a lock file of this process; False where there is one."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x") as stream:
            json.dump(asdict(Owner.me()), stream)
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(f"{file.parent}: cannot write here ({error.strerror}); choose another {option}") from error
    return True


def _clear_if_stale(file: Path, fresh: Path | None) -> bool:
    """Remove a lock whose owner is gone; whether it was. Age is told by the clock of the disk, from a fresh file."""
    owner = _owner(file)
    try:
        now = fresh.stat().st_mtime if fresh else time.time()
        stale = (owner is not None and not owner.may_live()) or now - file.stat().st_mtime > STALE_S
    except FileNotFoundError:
        return True
    if stale:
        file.unlink(missing_ok=True)
    return stale


def _owner(file: Path) -> Owner | None:
    """Who holds a lock; None where that cannot be read (it is being written, or is no lock of ours)."""
    try:
        return Owner(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _who(file: Path) -> str:
    owner = _owner(file)
    return f"being written by process {owner.pid} on {owner.host} since {owner.since}" if owner else "being written"


def _file(path: Path, share: Share) -> Path:
    part = "" if share[1] == 1 else f".{share[0]}-of-{share[1]}"
    return path.with_name(f"{path.name}{part}.lock")


def _found(path: Path) -> list[tuple[Path, Share]]:
    """All lock files of ``path`` with their shares."""
    pattern = re.compile(re.escape(path.name) + r"(?:\.(\d+)-of-(\d+))?\.lock")
    names = [(path.parent / entry.name, pattern.fullmatch(entry.name)) for entry in os.scandir(path.parent)]
    return [(file, (int(match[1] or 0), int(match[2] or 1))) for file, match in names if match]


def _clash(first: Share, second: Share) -> bool:
    """Whether two shares have work in common: all but different indices of the same count."""
    return first[1] != second[1] or first[0] == second[0]


def _beat(file: Path, ended: threading.Event) -> None:
    """Touch the lock until the end, to say to other machines that its owner lives."""
    while not ended.wait(BEAT_S):
        try:
            os.utime(file)
        except OSError:
            return


def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _birth(pid: int) -> str:
    """When a process was started, in the kernel's own count; empty where that is not told."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
