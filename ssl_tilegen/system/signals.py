"""Signals that ask a process to stop, and how work finds out."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ssl_tilegen.errors import Interrupted

_caught: list[int] = []
_WARNING = getattr(signal, "SIGUSR1", None)  # what batch queues send before they end a job; not on Windows
_STOPPING = [number for number in (signal.SIGINT, signal.SIGTERM, _WARNING) if number is not None]


def _remember(signum: int, frame: FrameType | None) -> None:
    _caught.append(signal.SIGTERM if signum == _WARNING else signum)
    if signum != _WARNING:
        signal.signal(signum, signal.SIG_DFL)  # a second one ends the process at once


@contextmanager
def catching_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGUSR1 (a queue's warning, taken as SIGTERM) into a request to stop, which is seen by
    `stop_requested`; a second SIGINT or SIGTERM kills."""
    _caught.clear()
    before = {number: signal.signal(number, _remember) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_requested() -> bool:
    """Whether a signal asked this process to stop."""
    return bool(_caught)


def check_stop(what: str = "the state is saved; the same command continues") -> None:
    """Raise `Interrupted` if a signal asked this process to stop."""
    if _caught:
        raise Interrupted(f"interrupted by {signal.Signals(_caught[0]).name}: {what}", _caught[0])
