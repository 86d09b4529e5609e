"""One lock for everything that is written: a file beside the output, held by the kernel and signed by its holder.

``NAME.lock`` (``NAME.I-of-N.lock`` for a shard of the work) is flocked for as long as the job lives and holds a line of
JSON: who holds it, and since when. Its rules:

* A process that ends in any way frees its lock at once on its own machine: the kernel does it.
* To other machines the holder shows that it lives by touching the file every `BEAT_S`. They take over after `STALE_S`
  without a touch. So a shared folder works as well where flock is known to one machine only (NFS with ``local_lock``).
* A lock is flocked and signed before it gets its name, so an empty file of that name is a user's.
* A lock is cleared and given back only by a process that has it flocked and has seen that the name still is
  this file: none of them can meet another's lock in between.
* Where flock is refused (some network file systems), the file itself is the lock, and only its age and its process
  say whether it is stale. Takeovers go through a second file then. Should two machines still meet, the one that lost
  the name sees it at the next beat and stops (`Held.check`).
* A file of another kind with that name is not ours: it is an error, not a lock.

filelock, which torch brings, leaves its file behind and knows no shards, holders or messages, so it does not serve.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ssl_tilegen.errors import OutputError
from ssl_tilegen.system.atomic import temporary_beside
from ssl_tilegen.system.lock_owner import RECORD_BYTES, Owner, owner_of, signer_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BEAT_S, STALE_S = 20.0, 300.0
_TRIES = 6
_REFUSED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
Shard = tuple[int, int]


class Busy(OutputError):
    """Another job that is still alive writes this output."""


@dataclass
class Held:
    """A lock that is held: ``alone`` says whether no other job held a part of the same output when it was taken."""

    file: Path
    owner: Owner
    alone: bool
    descriptor: int
    _lost: threading.Event = field(default_factory=threading.Event)

    def is_mine(self) -> bool:
        """Whether the name still is the file that was locked, with this holder's signature."""
        try:
            here, own = self.file.lstat(), os.fstat(self.descriptor)
            return (here.st_dev, here.st_ino) == (own.st_dev, own.st_ino) and signer_of(self.descriptor) == self.owner
        except OSError:
            return False

    def check(self) -> None:
        """Busy where another job has the lock by now: nothing may be published any more."""
        if self._lost.is_set() or not self.is_mine():
            self._lost.set()
            raise Busy(f"{self.file}: this job's lock was taken away or removed; nothing more is written, run it again")

    def beat(self) -> bool:
        """Touch the lock if it is still this holder's; whether it is."""
        if not self.is_mine():
            self._lost.set()
            return False
        with suppress(OSError):
            os.utime(self.descriptor)
        return True

    def release(self) -> None:
        """Give the lock back: remove the file if it is this holder's, then close it."""
        if self.is_mine():
            self.file.unlink(missing_ok=True)
        with suppress(OSError):
            os.close(self.descriptor)


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
        living = [file for file in others if not _clear_if_stale(file)]
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
            return _acquire(file)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and more:
                continue  # another job, which has failed, took its empty folder away in between
            reason = error.strerror or error
            raise OutputError(f"{file.parent}: cannot write here ({reason}); choose another {option}") from error
    return None


def _acquire(file: Path) -> Held | None:
    while True:
        if not os.path.lexists(file):
            held = _made(file)
            if held:
                return held
        descriptor = _open(file)
        if descriptor is None:
            continue  # given back between the two
        try:
            free = _flocked(descriptor)
            if free is None:
                os.close(descriptor)
                return _acquire_by_name(file)
            if free and not _is_at(file, descriptor):  # removed between opening and locking
                os.close(descriptor)
                continue
            if free and _may_be_taken(file, descriptor):
                return _sign(file, descriptor)
            os.close(descriptor)
            return None
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise


def _made(file: Path) -> Held | None:
    """A new lock, which is flocked and signed before it gets its name: an empty file of that name is never ours. None
    where another one is there. On file systems without hard links it gets its name first."""
    aside = temporary_beside(file)
    descriptor = os.open(aside, _FLAGS | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        _flocked(descriptor)
        held = _sign(file, descriptor)
        os.fsync(descriptor)  # else it might be empty after a power loss
        try:
            os.link(aside, file)
        except FileExistsError:
            if not held.is_mine():  # which it is where a network lost the answer to the first try
                os.close(descriptor)
                return None
        except OSError:
            os.close(descriptor)
            return _made_in_place(file)
        return held
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise
    finally:
        with suppress(OSError):
            aside.unlink()


def _made_in_place(file: Path) -> Held | None:
    try:
        descriptor = os.open(file, _FLAGS | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return None
    try:
        _flocked(descriptor)
        return _sign(file, descriptor)
    except BaseException:
        file.unlink(missing_ok=True)
        os.close(descriptor)
        raise


def _knows_links(folder: Path) -> bool:
    """Whether a file in ``folder`` can have two names."""
    one, two = (temporary_beside(folder / "lock") for _ in range(2))
    try:
        one.touch()
        os.link(one, two)
        return True
    except OSError:
        return False
    finally:
        for each in (one, two):
            with suppress(OSError):
                each.unlink()


def _open(file: Path) -> int | None:
    """A descriptor of the lock file; None where there is none."""
    try:
        descriptor = os.open(file, _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _foreign(file) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _foreign(file)
    return descriptor


def _flocked(descriptor: int) -> bool | None:
    """Whether the file could be flocked; None where the file system (or the system) does not know flock."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
            return False
        if error.errno in _REFUSED:
            return None
        raise


def _is_at(file: Path, descriptor: int) -> bool:
    try:
        here, own = file.lstat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (own.st_dev, own.st_ino)


def _may_be_taken(file: Path, descriptor: int) -> bool:
    """Whether a file that is flocked here is nobody's: fresh, of this machine (whose kernel has freed it), or of
    another one that does not touch it any more. OutputError where it is no lock of ours."""
    text = os.pread(descriptor, RECORD_BYTES, 0)
    if not text and _knows_links(file.parent):
        raise _foreign(file)
    if not text.strip(b"\0"):  # never signed: as a crash leaves it where there are no links
        return True
    owner = signer_of(descriptor)
    if owner is None:
        raise _foreign(file)
    return owner.is_here or _is_old(file)


def _acquire_by_name(file: Path) -> Held | None:
    """Without flock: whoever makes the file has the lock. A stale one is cleared by one process at a time."""
    owner, is_empty = owner_of(file), file.exists() and not file.stat().st_size
    if file.exists() and owner is None and (not is_empty or _knows_links(file.parent)):
        raise _foreign(file)
    if is_empty and not _is_old(file):
        return None  # being signed at this moment
    if owner is not None and not (owner.is_gone() or _is_old(file)):
        return None
    guard = file.with_name(f"{file.name}.taking")
    held = _made(guard)
    if held is None:
        if owner_of(guard) and _is_old(guard):
            guard.unlink(missing_ok=True)
        return None
    try:
        if owner_of(file) == owner:
            file.unlink(missing_ok=True)
        return _made(file)
    finally:
        held.release()


def _sign(file: Path, descriptor: int) -> Held:
    owner = Owner.me()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(owner)).encode(), 0)
    return Held(file, owner, alone=True, descriptor=descriptor)


def _clear_if_stale(file: Path) -> bool:
    """Remove the lock of a job that is gone; whether it is gone. A file of another kind is left, and no lock."""
    try:
        held = _acquire(file) if file.exists() else None
    except OutputError:
        return True
    if held:
        held.release()
    return held is not None or not file.exists()


def _is_old(file: Path) -> bool:
    """Whether nobody has touched a file for long, by the clock of the disk it lies on."""
    try:
        touched = file.stat().st_mtime
        with tempfile.TemporaryFile(dir=file.parent) as fresh:
            return os.fstat(fresh.fileno()).st_mtime - touched > STALE_S
    except OSError:
        return not file.exists()


def _who(file: Path) -> str:
    owner = owner_of(file)
    return f"being written by process {owner.pid} on {owner.host} since {owner.since}" if owner else "being written"


def _foreign(file: Path) -> OutputError:
    return OutputError(f"{file}: exists and is no lock of this program; move it away, or choose another output")


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
