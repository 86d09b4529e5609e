"""Reads the tensors of a torch checkpoint without running any of its pickle, and without copying them.

A checkpoint that torch wrote (1.6 or later) is a zip archive: one pickle that describes objects, one uncompressed entry
per storage. Training frameworks put configuration objects beside the weights: ``torch.load(weights_only=True)`` refuses
such files, and plain ``torch.load`` runs code that they name. Here tensors are built by functions of this module,
objects of known libraries become inert ``Swallowed`` values. A pickle that names anything else is refused.

Tensors are views of the memory-mapped file: reading costs memory only for those that are used.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_tilegen.bundle.importers.mapped import MappedFile
from ssl_tilegen.errors import FormatError

_PICKLE_BYTES = 256 << 20
_LOCAL_HEADER = 30

_SWALLOWED_ROOTS = {
    "__main__",
    "argparse",
    "collections",
    "datetime",
    "enum",
    "ldm",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "main",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "taming",
    "typing",
    "uuid",
}
"""Packages whose objects lie in checkpoints of training runs. None of their code is imported or called."""
_SWALLOWED_NAMES = {
    "_codecs.encode",
    "copyreg._reconstructor",
    "functools.partial",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "torch.Generator",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_device_tensor_from_numpy",
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in (
            "bool",
            "bytearray",
            "bytes",
            "complex",
            "dict",
            "float",
            "frozenset",
            "int",
            "list",
            "object",
            "range",
            "set",
            "slice",
            "str",
            "tuple",
            "unicode",
            "long",
        )
    ),
}
_SWALLOWED_TORCH = ("torch.optim.", "torch.distributed.", "torch.cuda.amp.", "torch.amp.", "torch.nn.modules.")


class Swallowed:
    """Stands for an object of another library; takes whatever a pickle does to it and keeps nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Swallowed:
        """Take any arguments and return itself."""
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Drop the item."""
        pass

    def extend(self, items: Any) -> None:
        """Drop the items."""
        pass

    def add(self, item: Any) -> None:
        """Drop the item."""
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


class Hostile(pickle.UnpicklingError):
    """A pickle names something that no checkpoint needs."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.ckpt``, ``.pt``, ``.pth`` or ``.bin`` file: those of its ``state_dict`` where it has one.

    Returns:
        Name -> tensor, memory-mapped; nested mappings are joined by dots.

    Raises:
        FormatError: the file is no torch checkpoint, is damaged, holds no tensors or names code to be run.
    """
    content = _unpickled(path)
    for key in ("state_dict", "model", "teacher"):
        inner = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
            content = inner
            break
    tensors = dict(_named(content)) if isinstance(content, Mapping) else {}
    if not tensors:
        raise FormatError(f"{path}: a torch checkpoint without tensors; give the file that holds the weights")
    return tensors


def _named(content: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for key, value in content.items():
        if isinstance(value, Tensor):
            found.append((f"{prefix}{key}", value))
        elif isinstance(value, Mapping):
            found += _named(value, f"{prefix}{key}.")
    return found


def _unpickled(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            description = entries.get("data.pkl")
            if description is None:
                raise FormatError(f"{path}: a zip archive but no torch checkpoint (no data.pkl)")
            if description.file_size > _PICKLE_BYTES or description.compress_type != zipfile.ZIP_STORED:
                raise FormatError(
                    f"{path}: its data.pkl is compressed or larger than 256 MiB; torch writes none like it"
                )
            if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
                raise FormatError(f"{path}: written on a big-endian machine; save it anew on another")
            return _Unpickler(archive.read(description), _Storages(path, entries)).load()
    except Hostile as error:
        raise FormatError(
            f"{path}: refused: its pickle names {error}, which no weights need; nothing of it was run"
        ) from None
    except zipfile.BadZipFile:
        raise FormatError(
            f"{path}: not a checkpoint of torch 1.6 or later (no zip archive); load and save it anew "
            "with a trusted torch"
        ) from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error})") from None
    except FormatError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{path}: damaged or no checkpoint ({type(error).__name__}: {reason})") from None


class _Storages:
    """The storages of an archive, as views of the mapped file."""

    def __init__(self, path: Path, entries: Mapping[str, zipfile.ZipInfo]) -> None:
        self._path, self._entries, self._map = path, entries, MappedFile(path)
        self._made: dict[str, Tensor] = {}

    def get(self, key: str, dtype: torch.dtype) -> Tensor:
        """The storage ``key`` as a flat tensor of ``dtype``."""
        if key not in self._made:
            self._made[key] = self._bytes(key)
        return self._made[key].view(dtype)

    def _bytes(self, key: str) -> Tensor:
        info = self._entries.get(f"data/{key}")
        if info is None or info.compress_type != zipfile.ZIP_STORED:
            raise FormatError(f"{self._path}: storage {key} is missing or compressed; the file is incomplete")
        names = self._map.data[info.header_offset + 26 : info.header_offset + _LOCAL_HEADER]
        start = info.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", names))
        return self._map.view(start, info.file_size)


class _Unpickler(pickle.Unpickler):
    """Builds containers and tensors; knows no other function or class."""

    def __init__(self, data: bytes, storages: _Storages) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        whole = f"{module}.{name}"
        if whole in _BUILDERS:
            return _BUILDERS[whole]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return _StorageType(name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        known = module.partition(".")[0] in _SWALLOWED_ROOTS or whole in _SWALLOWED_NAMES
        if known or whole.startswith(_SWALLOWED_TORCH):
            return Swallowed
        raise Hostile(whole)

    def persistent_load(self, pid: Any) -> Any:
        kind, storage_type, key, _, count = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise Hostile(f"a persistent object of kind {str(kind)[:40]!r}")
        return _Storage(self._storages, str(key), storage_type.dtype, int(count))


class _StorageType:
    """``torch.FloatStorage`` and its like: an element type."""

    def __init__(self, name: str) -> None:
        names = {
            "HalfStorage": torch.float16,
            "BFloat16Storage": torch.bfloat16,
            "FloatStorage": torch.float32,
            "DoubleStorage": torch.float64,
            "LongStorage": torch.int64,
            "IntStorage": torch.int32,
            "ShortStorage": torch.int16,
            "CharStorage": torch.int8,
            "ByteStorage": torch.uint8,
            "BoolStorage": torch.bool,
            "UntypedStorage": torch.uint8,
        }
        if name not in names:
            raise Hostile(f"torch.{name}")
        self.dtype = names[name]


class _Storage:
    """A storage that is read when a tensor of it is built."""

    def __init__(self, storages: _Storages, key: str, dtype: torch.dtype, count: int) -> None:
        self.storages, self.key, self.dtype, self.count = storages, key, dtype, count


def _tensor(
    storage: _Storage, offset: int, size: Any, stride: Any, *_: Any, dtype: torch.dtype | None = None
) -> Tensor:
    """The tensor of ``torch._utils._rebuild_tensor_v2``; torch checks that the view lies inside its storage."""
    flat = storage.storages.get(storage.key, dtype or storage.dtype)
    return flat.as_strided(tuple(size), tuple(stride), offset)


def _typed_tensor(
    storage: _Storage, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: torch.dtype, *_: Any
) -> Tensor:
    return _tensor(storage, offset, size, stride, dtype=dtype)


def _parameter(data: Any, *_: Any) -> Any:
    return data


_BUILDERS: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": lambda build, kind, args, state: build(*args),
    "torch.nn.parameter.Parameter": _parameter,
}
