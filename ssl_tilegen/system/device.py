"""Devices, precision and the allocator. No torch at import."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ssl_tilegen.errors import SettingError

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


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
        device: torch.device | None = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise SettingError(f"--device {name}: unknown; use auto, cpu, cuda or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= cards:
        raise SettingError(f"--device {name}: this machine has {cards} CUDA devices; use --device cpu or auto")
    return device


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the chip multiplies matrices in it (tensor cores, AMX, AVX-512 BF16), else None for float32."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported() else None


def seed_all(seed: int, device: torch.device) -> None:
    """Seed the processor's generator and that of ``device``, with the numbers of `torch.manual_seed`.

    That one notes the stack of its caller for every kind of device that is not in use: milliseconds in each step of a
    training, and memory that grows.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


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
