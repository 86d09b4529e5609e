"""The machine underneath: device, threads, precision, signals. No torch at import."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import TYPE_CHECKING

from ssl_tilegen.errors import Interrupted, SettingError

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, float, float], None]
"""``progress(stage, done, total)``: from the main thread; may raise `Interrupted`, which is let through."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


def silent(stage: str, done: float, total: float) -> None:
    """The progress callback that does nothing."""


def pick_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """The torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:i``. SettingError where it is not there.

    Of several processes on one machine each gets a card of its own, as far as there are enough.
    """
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name in ("auto", "cuda") and cards:
        return torch.device("cuda", local_rank % cards)  # with its number: torch.cuda.set_device asks for one
    if name == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingError(f"--device {name}: unknown; use auto, cpu, cuda or cuda:0") from None
    if device.type == "cuda" and (device.index or 0) >= cards:
        raise SettingError(f"--device {name}: this machine has {cards} CUDA devices; use --device cpu or auto")
    return device


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the chip multiplies matrices in it (tensor cores, AMX, AVX-512 BF16), else None for float32."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported() else None


@contextmanager
def autocast(device: torch.device) -> Iterator[None]:
    """Inference in the device's fast precision: no gradients, bfloat16 where it pays."""
    import torch

    dtype = fast_dtype(device)
    with torch.inference_mode(), torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        yield


def tune_allocator() -> bool:
    """Keep freed memory for the next large tensor instead of giving it back to the system; whether it could be done.

    glibc maps every large allocation anew, and the page faults of it cost CPU inference a large part of its time. Only
    for programs whose peak is the same call again and again: freed memory stays with the process. Elsewhere: nothing.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        options = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
        return all(libc.mallopt(option, value) for option, value in options)
    except (OSError, AttributeError):
        return False


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
