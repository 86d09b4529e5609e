"""One lock for everything that is written: a file beside the output, held by the kernel and signed by its holder.

``NAME.lock`` (``NAME.I-of-N.lock`` for a shard of the work) is flocked for as long as the job lives and holds a line of
JSON: who holds it, and since when. Its rules:

* A process that ends in any way frees its lock at once on its own machine: the kernel does it.
* To other machines the holder shows that it lives by touching the file every `BEAT_S`. They take over after `STALE_S`
  without a touch. So a shared folder works as well where flock is known to one machine only (NFS with ``local_lock``).
* A lock is flocked and signed before it gets its name, so an empty file of that name is a user's.
* Only a process that has a lock flocked, and has seen that the name still is this file, clears it or gives it back.
  So none of them can meet another's lock in between.
* Where flock is refused (some network file systems), the file itself is the lock, and only its age and its process
  say whether it is stale. Takeovers go through a second file then. Should two machines still meet, the one that lost
  the name sees it at the next beat and stops (`Held.check`).
* A file of another kind with that name is not ours: it is an error, not a lock.

filelock, which torch brings, leaves its file behind and knows no shards, holders or messages, so it does not serve.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_tilegen.errors import OutputError
from ssl_tilegen.system.held_lock import STALE_S, Busy, Held, acquired, cleared_if_stale
from ssl_tilegen.system.lock_owner import owner_of

__all__ = ["BEAT_S", "STALE_S", "Busy", "Held", "Shard", "lock", "lock_file"]

BEAT_S = 20.0
_TRIES = 6
Shard = tuple[int, int]


@contextmanager
def lock(path: Path, shard: Shard = (0, 1), option: str = "-o", *, wait_s: float = 0.0) -> Iterator[Held]:
    """Hold ``path`` for the body, or only the shard (index, count) of it; other shards of as many do not clash.

    Raises Busy where a living job clashes (after ``wait_s`` seconds of trying), OutputError where nothing can be
    written, which names the ``option`` that ``path`` was given by.
    """
    held = _take(path, shard, option, time.monotonic() + wait_s)
    ended = threading.Event()
    threading.Thread(target=_beat, args=(held, ended), daemon=True, name="lock").start()
    try:
        yield held
    finally:
        ended.set()
        held.release()


def lock_file(path: Path, shard: Shard = (0, 1)) -> Path:
    """The lock file of an output."""
    part = "" if shard[1] == 1 else f".{shard[0]}-of-{shard[1]}"
    return path.with_name(f"{path.name}{part}.lock")


def _take(path: Path, shard: Shard, option: str, until: float) -> Held:
    """First the own lock is made, then looked around: of two that start together both may step back, so they try
    again after a while."""
    attempt = 0
    while True:
        mine = _make(lock_file(path, shard), option)
        others = [lock_file(path, other) for other in _shards(path) if lock_file(path, other) != lock_file(path, shard)]
        living = [file for file in others if not cleared_if_stale(file)]
        clashing = [file for file in living if _clash(shard, _shard_of(path, file))]
        if mine and not clashing:
            mine.alone = not living
            return mine
        blocking = lock_file(path, shard) if mine is None else clashing[0]
        who = _who(blocking)
        if mine:
            mine.release()
        attempt += 1
        if attempt >= _TRIES and time.monotonic() >= until:
            raise Busy(f"{path}: {who}; wait for it, or end that job")
        time.sleep(random.uniform(0.02, 0.3))


def _make(file: Path, option: str) -> Held | None:
    """The lock of this process at ``file``; None where another one has it."""
    for more in reversed(range(_TRIES)):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            return acquired(file)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and more:
                continue  # another job, which has failed, took its empty folder away in between
            reason = error.strerror or error
            raise OutputError(f"{file.parent}: cannot write here ({reason}); choose another {option}") from error
    return None


def _who(file: Path) -> str:
    owner = owner_of(file)
    return f"being written by process {owner.pid} on {owner.host} since {owner.since}" if owner else "being written"


def _shards(path: Path) -> list[Shard]:
    """The shards of ``path`` that there are lock files of."""
    names = [entry.name for entry in os.scandir(path.parent)] if path.parent.is_dir() else []
    return [shard for name in names if (shard := _shard_named(path, name))]


def _shard_of(path: Path, file: Path) -> Shard:
    return _shard_named(path, file.name) or (0, 1)


def _shard_named(path: Path, name: str) -> Shard | None:
    match = re.fullmatch(re.escape(path.name) + r"(?:\.(\d+)-of-(\d+))?\.lock", name)
    return (int(match[1] or 0), int(match[2] or 1)) if match else None


def _clash(first: Shard, second: Shard) -> bool:
    """Whether two shards have work in common: all but different indices of the same count."""
    return first[1] != second[1] or first[0] == second[0]


def _beat(held: Held, ended: threading.Event) -> None:
    """Touch the lock until the end, as long as it is this holder's."""
    while not ended.wait(BEAT_S):
        if not held.beat():
            return
