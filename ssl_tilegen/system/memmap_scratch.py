"""Arrays larger than memory should hold: in unnamed files, which vanish with the process."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ssl_tilegen.errors import OutputError


def memmap_scratch(shape: tuple[int, ...], dtype: DTypeLike, folder: Path) -> np.ndarray[Any, Any]:
    """Zeros in a file in ``folder`` that the system pages in and out. OutputError where there is no room for it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # the mapping keeps the file alive
            _reserve(file.fileno(), size)
            return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
    except OSError as error:
        raise OutputError(f"{folder}: no room for a scratch file of {size >> 20} MiB ({error.strerror}): "
                          "free some, or choose another folder") from error  # fmt: skip


def _reserve(descriptor: int, size: int) -> None:
    """Claim the disk now: a mapping that runs out of it later kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
