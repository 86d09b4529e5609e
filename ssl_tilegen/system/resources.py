"""Cores, open files and installed packages of this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allow_many_files() -> None:
    """As many open files as the system lets a process have: slides that are read window by window stay open."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems name a limit and refuse it
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def reading_threads() -> int:
    """Threads that read tiles ahead of the encoder."""
    return max(2, min(16, cores()))


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of ``packages``, those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
