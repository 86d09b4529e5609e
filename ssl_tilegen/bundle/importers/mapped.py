"""Memory-mapped weight files: tensors that are views of a file, and pages that can be given back."""

from __future__ import annotations

import json
import mmap
import struct
import weakref
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_tilegen.errors import FormatError

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
          torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}  # fmt: skip
"""Element types and their names in safetensors files."""
_BY_NAME = {name: dtype for dtype, name in DTYPES.items()}
_HEADER_BYTES = 100 << 20
_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()  # tensors keep them alive


class MappedFile:
    """A file mapped for reading. FormatError where it is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise FormatError(f"{path}: is empty; fetch it again")
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        _maps.add(self.data)

    def view(self, start: int, nbytes: int) -> Tensor:
        """Bytes of the file as a flat uint8 tensor that must not be written to. FormatError beyond its end."""
        if start < 0 or nbytes < 0 or start + nbytes > len(self.data):
            raise FormatError(f"{self.path}: ends early; fetch it again")
        if nbytes == 0:
            return torch.zeros(0, dtype=torch.uint8)
        raw = torch.frombuffer(self.data, dtype=torch.uint8, count=nbytes, offset=start)
        return raw if raw.data_ptr() % 8 == 0 else raw.clone()


def release_pages() -> None:
    """Give the memory of all mapped files back to the system; pages that are used again are read again."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapped in list(_maps):
            mapped.madvise(mmap.MADV_DONTNEED)


def read_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file by name, as views of it. Raises FormatError where it is broken."""
    mapped = MappedFile(path)
    try:
        (length,) = struct.unpack("<Q", mapped.data[:8])
        if length > min(_HEADER_BYTES, len(mapped.data) - 8):
            raise ValueError("header longer than the file")
        header = json.loads(mapped.data[8 : 8 + length])
        facts = {name: entry for name, entry in header.items() if name != "__metadata__"}
        found = [(name, _tensor(mapped, 8 + length, entry)) for name, entry in facts.items()]
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RuntimeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise FormatError(f"{path}: broken, or no safetensors file ({reason})") from None
    yield from found


def _tensor(mapped: MappedFile, start: int, entry: dict[str, Any]) -> Tensor:
    dtype, shape, (first, end) = _BY_NAME[entry["dtype"]], [int(n) for n in entry["shape"]], entry["data_offsets"]
    if min(shape, default=0) < 0 or end - first != prod(shape) * dtype.itemsize:
        raise ValueError(f"{end - first} bytes for a tensor of shape {shape}")
    return mapped.view(start + first, end - first).view(dtype).reshape(shape)
