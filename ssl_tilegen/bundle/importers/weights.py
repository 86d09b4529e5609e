"""Strict accounts of the weights of a checkpoint, and bundles written from them tensor by tensor."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_tilegen.bundle.importers.mapped import DTYPES, release_pages
from ssl_tilegen.errors import FormatError
from ssl_tilegen.nets import build_component
from ssl_tilegen.nets.hollow import without_values

_PIECE, _RELEASE = 16 << 20, 64 << 20
_SHOWN = 3


class Ledger:
    """The tensors of a checkpoint, each of which must be used once or be left out by name.

    Args:
        source: What an error calls the checkpoint.
        tensors: Its tensors by name.
    """

    def __init__(self, source: Path | str, tensors: Mapping[str, Tensor]) -> None:
        self.source, self._tensors = source, tensors
        self._open = dict.fromkeys(tensors)
        self.left_out: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin with ``prefix``, used or not."""
        return [name for name in self._tensors if name.startswith(prefix)]

    def peek(self, name: str) -> Tensor:
        """The tensor ``name`` without using it up. Raises FormatError where there is none."""
        if name not in self._tensors:
            raise FormatError(f"{self.source}: has no {name}; the checkpoint is incomplete or of another model")
        return self._tensors[name]

    def take(self, name: str) -> Tensor:
        """The tensor ``name``, which nobody else may take."""
        tensor = self.peek(name)
        if name not in self._open:
            raise FormatError(f"{self.source}: {name} would be used twice; the checkpoint is of another model")
        del self._open[name]
        return tensor

    def leave(self, names: Iterable[str], reason: str) -> None:
        """Leave tensors out for a ``reason`` (a few words) that the bundle records."""
        for name in names:
            if name in self._open:
                del self._open[name]
                self.left_out[name] = reason

    def close(self) -> None:
        """Raises FormatError where tensors were neither used nor left out."""
        if self._open:
            first = ", ".join(list(self._open)[:_SHOWN])
            raise FormatError(
                f"{self.source}: {len(self._open)} tensors that this model does not have ({first}); "
                "it is of another model or another version of it"
            )

    def renamed(self, pairs: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
        """Tensors taken by (theirs, ours): ours -> tensor."""
        return {ours: self.take(theirs) for theirs, ours in pairs}


@dataclass(frozen=True)
class Component:
    """A network of a bundle: its configuration, its weights, and the class of diffusers or of ours that builds it."""

    config: dict[str, Any]
    weights: dict[str, Tensor] = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.weights.values())

    def check(self, name: str) -> None:
        """That all weights fit the configuration by name and shape, before anything is allocated.

        Raises FormatError with the first that does not.
        """
        with without_values():
            wanted = {key: tuple(value.shape) for key, value in build_component(self.config).state_dict().items()}
        given = {key: tuple(value.shape) for key, value in self.weights.items()}
        for key, shape in wanted.items():
            if given.get(key) != shape:
                found = f"has shape {given[key]}" if key in given else "is missing"
                raise FormatError(f"{name}: {key} {found}, expected {shape}; the checkpoint is of another model")
        strange = sorted(set(given) - set(wanted))
        if strange:
            raise FormatError(f"{name}: {strange[0]} has no place in {self.config.get('_class_name')}")


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as they are, one piece of at most 16 MiB in memory at a time.

    ``safetensors.save_file`` makes a copy of all tensors first, which for mapped weights doubles the memory.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise FormatError(f"{name}: weights of type {tensor.dtype} cannot be stored")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        written = 0
        for tensor in tensors.values():
            for piece in _pieces(tensor):
                written += file.write(piece)
            if written > _RELEASE:
                release_pages()
                written = 0


def _pieces(tensor: Tensor) -> Iterator[Any]:
    """The bytes of a tensor in row-major order, in pieces."""
    if tensor.numel() == 0:
        return
    step = max(1, _PIECE * len(tensor) // (tensor.numel() * tensor.element_size())) if tensor.ndim else 1
    rows = tensor if tensor.ndim else tensor[None]
    for first in range(0, len(rows), step):
        raw = rows[first : first + step].detach().contiguous().reshape(-1).view(torch.uint8)
        yield raw.numpy()
