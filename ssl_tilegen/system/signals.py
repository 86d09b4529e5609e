"""Signals that ask a process to stop, and how work finds out.

Work asks `check_stop` between its steps and stops with its state saved. Where it does not get to that within
`GRACE_S` seconds (a long plan, an import), `Interrupted` is raised wherever the program is; where even that cannot be
(one long call into a library), the process ends itself after `LAST_S`, as a kill would end it: outputs are whole or not
there, and an unfinished run goes on from its last saved state. What may take longer to stop says so by `finishing`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ssl_tilegen.errors import Interrupted

GRACE_S, LAST_S = 3.0, 4.5
_WHAT = "the same command continues from what is saved"
_caught: list[int] = []
_until: list[float] = []
_WARNING = getattr(signal, "SIGUSR1", None)  # what batch queues send before they end a job; not on Windows
_STOPPING = [number for number in (signal.SIGINT, signal.SIGTERM, _WARNING) if number is not None]
_ALARM = getattr(signal, "SIGALRM", None)


@contextmanager
def catching_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGUSR1 (a queue's warning, taken as SIGTERM) into a request to stop. `stop_requested`
    sees it, and it is enforced after some seconds; a second SIGINT or SIGTERM kills. In the main thread only."""
    _caught.clear()
    _until.clear()
    before = {number: signal.signal(number, _remember) for number in _STOPPING}
    if _ALARM is not None:
        before[_ALARM] = signal.signal(_ALARM, _interrupt)
    try:
        with _watching():
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


@contextmanager
def finishing(seconds: float) -> Iterator[None]:
    """A body that may take so many seconds to stop after a signal: a step of training and its checkpoint."""
    _until.append(seconds)
    try:
        yield
    finally:
        _until.remove(seconds)


def _remember(signum: int, frame: FrameType | None) -> None:
    _caught.append(signal.SIGTERM if signum == _WARNING else signum)
    if signum != _WARNING:
        signal.signal(signum, signal.SIG_DFL)  # a second one ends the process at once


def _interrupt(signum: int, frame: FrameType | None) -> None:
    check_stop(_WHAT)


@contextmanager
def _watching() -> Iterator[None]:
    """A thread that is told of signals by the interpreter's own C code, even while the main thread is in a library."""
    if _ALARM is None:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(reading, ended), daemon=True, name="signals")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(writing)  # which ends the thread's reading
        thread.join(1)
        os.close(reading)


def _watch(reading: int, ended: threading.Event) -> None:
    stopping = set(map(int, _STOPPING))
    while numbers := os.read(reading, 64):
        if found := [number for number in numbers if number in stopping]:
            return _enforce(signal.SIGTERM if found[0] == _WARNING else found[0], ended)


def _enforce(number: int, ended: threading.Event) -> None:
    """See to it that the process ends: first by an exception in the main thread, then at once."""
    begun = time.monotonic()
    for most, act in ((GRACE_S, _raise_in_main), (LAST_S, _end)):
        while (left := begun + max([most, *_until]) - time.monotonic()) > 0:
            if ended.wait(min(left, 0.1)):
                return
        act(number)


def _raise_in_main(number: int) -> None:
    os.kill(os.getpid(), _ALARM)  # type: ignore[arg-type]


def _end(number: int) -> None:
    with suppress(OSError):
        os.write(2, f"error: interrupted by {signal.Signals(number).name}: {_WHAT}\n".encode())
    os._exit(128 + number)
