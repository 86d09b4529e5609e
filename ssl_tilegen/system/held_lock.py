"""One lock file: taken, signed by its holder, touched while it lives, cleared when it is stale, given back.

The rules are those of `ssl_tilegen.system.locks`, which makes locks of outputs and of shards from it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ssl_tilegen.errors import OutputError
from ssl_tilegen.system.atomic import temporary_beside
from ssl_tilegen.system.lock_owner import RECORD_BYTES, Owner, owner_in, owner_of, record_of, signer_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

STALE_S = 300.0
_REFUSED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


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


def acquired(file: Path) -> Held | None:
    """The lock of this process at ``file``; None where another one has it. OutputError where it is no lock of ours."""
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
    text = record_of(file)  # read once: the next moment it may be another one's
    owner = owner_in(text or b"")
    if text is not None and owner is None and (text or _knows_links(file.parent)):
        raise _foreign(file)
    if text == b"" and not _is_old(file):
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


def cleared_if_stale(file: Path) -> bool:
    """Remove the lock of a job that is gone; whether it is gone. A file of another kind is left, and no lock."""
    try:
        held = acquired(file) if file.exists() else None
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


def _foreign(file: Path) -> OutputError:
    return OutputError(f"{file}: exists and is no lock of this program; move it away, or choose another output")
