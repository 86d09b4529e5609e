"""Sizes as arithmetic, before they are arrays: an excess is one line with the number and the option that allows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ssl_tilegen.errors import BudgetError

GIB = 1 << 30
MAX_GPX = 100.0
"""Gigapixels of an image or canvas that are taken on unasked: 316,000 x 316,000 px."""
_FREE_SHARE = 0.8


@dataclass
class Limits:
    """Limits: gigapixels of an image or canvas, GiB of memory of one step (None: what is free)."""

    gpx: float = MAX_GPX
    gib: float | None = None


_limits = Limits()


@contextmanager
def limits(gpx: float | None = None, gib: float | None = None) -> Iterator[None]:
    """Other limits for the body, of the whole process (--max-gpx, --max-gib); None leaves one as it is."""
    before = replace(_limits)
    _limits.gpx, _limits.gib = gpx or before.gpx, gib or before.gib
    try:
        yield
    finally:
        _limits.gpx, _limits.gib = before.gpx, before.gib


def check_pixels(rows: float, cols: float, what: str) -> None:
    """BudgetError where ``what`` has more gigapixels than allowed."""
    rows, cols = _float(rows), _float(cols)
    gpx = rows * cols / 1e9
    if not gpx <= _limits.gpx:
        raise BudgetError(
            f"{what}: {_number(cols)} x {_number(rows)} px are {_number(gpx)} gigapixels, more than the "
            f"{_limits.gpx:g} that are taken on; check the size and the resolution, or allow it with "
            f"--max-gpx {_rounded_up(gpx)}"
        )


def check_memory(need: float, what: str) -> None:
    """BudgetError where ``what`` takes more bytes of memory than allowed."""
    need = _float(need)
    limit = _limits.gib * GIB if _limits.gib else _FREE_SHARE * free_memory()
    if not need <= limit:
        raise BudgetError(
            f"{what}: takes {_number(need / GIB)} GiB of memory, {_number(limit / GIB)} GiB are allowed; make it "
            f"smaller, or allow it with --max-gib {_rounded_up(need / GIB)}"
        )


def free_memory() -> float:
    """Bytes that this process may still take, by the system and its control group; infinite where that is not told."""
    return min(_system_free(), _group_free())


def _system_free() -> float:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return float("inf")


def _group_free() -> float:
    """Memory that the control group leaves, version 2 or 1; the kernel gives back its cache of files when it must."""
    places = (("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
              ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
               "total_inactive_file"))  # fmt: skip
    for most, used, cached in places:
        with suppress(OSError, ValueError):
            limit, now = float(Path(most).read_text()), float(Path(used).read_text())
            facts = dict(line.split() for line in Path(most).with_name("memory.stat").read_text().splitlines())
            return max(0.0, limit - now + float(facts.get(cached, 0)))
    return float("inf")


def _float(value: float) -> float:
    """A number, infinite where it is a whole one too large for floating point."""
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _number(value: float) -> str:
    return f"{value:,.0f}" if 100 <= value < 1e15 else f"{value:.3g}"


def _rounded_up(value: float) -> str:
    """A limit that just allows a value: two digits, rounded up."""
    digits = f"{value * 1.05:.1e}"
    return f"{float(digits):g}" if float(digits) >= value else f"{float(digits) * 1.1:g}"
