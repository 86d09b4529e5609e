"""Where tests write: into memory, where there is room for it. A disk takes milliseconds for each file that a command
makes safe (`fsync`), and there are some ten thousand of them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 8 << 30  # bytes; the tests of networks of full width take 3 GiB
_GROUP = Path("/sys/fs/cgroup")


def write_into_memory() -> None:
    """Tell pytest, unless $PYTEST_DEBUG_TEMPROOT names another folder already."""
    if _has_room() and _spare_bytes() > ROOM + (4 << 30):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def _has_room() -> bool:
    """Whether files in memory are offered here, may be large, and may hold libraries that are loaded."""
    try:
        facts = os.statvfs(MEMORY)
    except OSError:
        return False
    return facts.f_bavail * facts.f_frsize > ROOM and not facts.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK)


def _spare_bytes() -> int:
    """Memory that is free, on the machine and in the container; 0 where nothing says so."""
    spare = 0
    with suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        spare = int(lines["MemAvailable"].split()[0]) << 10
    with suppress(OSError, ValueError):
        spare = min(spare, int((_GROUP / "memory.max").read_text()) - int((_GROUP / "memory.current").read_text()))
    return spare
