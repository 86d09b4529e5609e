"""Who holds a lock, as its file says, and whether that process is still there."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ssl_tilegen.system.processes import process_lives

RECORD_BYTES = 4096


@dataclass(frozen=True)
class Owner:
    """Who holds a lock. ``boot`` tells machines (and starts of one) apart, ``space`` the namespaces of process numbers
    (containers), ``began`` processes of one number; ``token`` is of this one holding."""

    host: str
    pid: int
    space: str
    began: str
    since: str
    boot: str = ""
    token: str = ""

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(socket.gethostname(), os.getpid(), _space(), _birth(os.getpid()), now, _boot(), secrets.token_hex(8))

    @property
    def is_here(self) -> bool:
        """Whether this is a process of this machine since its last start."""
        return bool(self.boot) and self.boot == _boot()

    def is_gone(self) -> bool:
        """Whether this machine can tell that the process is gone, or is another one of the same number."""
        if not self.is_here or self.space != _space():
            return False
        with suppress(OSError):
            os.kill(self.pid, 0)
            return _birth(self.pid) != self.began
        return not process_lives(self.pid)


def signer_of(descriptor: int) -> Owner | None:
    """Who signed an open lock file; None where it is no lock of ours."""
    return owner_in(os.pread(descriptor, RECORD_BYTES, 0))


def owner_of(file: Path) -> Owner | None:
    """Who signed a lock file; None where it is no lock of ours, or is gone."""
    return owner_in(record_of(file) or b"")


def record_of(file: Path) -> bytes | None:
    """What a lock file holds; None where there is no file."""
    try:
        return file.read_bytes()[:RECORD_BYTES] if file.is_file() else None
    except OSError:
        return None


def owner_in(text: bytes) -> Owner | None:
    """Who signed what a lock file holds; None where it is no lock of ours."""
    try:
        return Owner(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None


def _read_or_empty(read: Callable[[], str]) -> str:
    try:
        return read().strip()
    except OSError:
        return ""


@lru_cache(maxsize=1)
def _boot() -> str:
    """The start of this machine's kernel; its name where that is not told."""
    return _read_or_empty(Path("/proc/sys/kernel/random/boot_id").read_text) or socket.gethostname()


def _space() -> str:
    return _read_or_empty(lambda: str(Path("/proc/self/ns/pid").readlink()))


def _birth(pid: int) -> str:
    """When a process was started, in the kernel's own count; empty where that is not told."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
