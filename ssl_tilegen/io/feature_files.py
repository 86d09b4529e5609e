"""Files of features as TRIDENT and CLAM keep them: N vectors and the level-0 corners of their patches.

``.h5``: datasets ``features`` (N, D) and ``coords`` (N, 2) as x, y, facts as attributes of ``coords``. ``.npz``: the
same two arrays, and the facts as JSON text in ``attributes``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from ssl_tilegen.errors import InputError, OutputError
from ssl_tilegen.system import atomic
from ssl_tilegen.system.boundary import reason_of

Parts = Iterable[tuple[np.ndarray, np.ndarray]]
_FARTHEST = 1 << 40
SUFFIXES = (".h5", ".hdf5", ".npz")


class StoredFeatures(NamedTuple):
    """``vectors`` (N, D) float, ``corners`` (N, 2) int64 as x, y in level-0 pixels, ``facts`` by TRIDENT's names."""

    vectors: np.ndarray
    corners: np.ndarray
    facts: Mapping[str, Any]


def read_features(path: Path) -> StoredFeatures:
    """The features of a file; those of a batch of one (1, N, D) are taken out of it. Raises InputError."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: not a file of features; give {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        found = _read_npz(path) if path.suffix.lower() == ".npz" else _read_h5(path)
        vectors = found.vectors[0] if found.vectors.ndim == 3 and len(found.vectors) == 1 else found.vectors
        if vectors.ndim != 2 or found.corners.shape != (len(vectors), 2) or not vectors.size:
            raise ValueError(f"features {found.vectors.shape} with coords {found.corners.shape}")
        if vectors.dtype.kind not in "fiu" or found.corners.dtype.kind not in "fiu":
            raise ValueError(f"features of {vectors.dtype} with coords of {found.corners.dtype}")
        if not np.isfinite(found.corners).all() or np.abs(found.corners).max() > _FARTHEST:
            raise ValueError("coords that are no pixels")
    except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        reason = reason_of(error)
        raise InputError(f"{path}: no features with coords in it ({reason}); give a file of TRIDENT or CLAM") from error
    return StoredFeatures(vectors, found.corners.astype(np.int64), found.facts)


def write_features(
    path: Path,
    parts: Parts,
    dim: int,
    facts: Mapping[str, Any],
    before: Callable[[], None] = lambda: None,
    *,
    replace: bool = True,
) -> int:
    """Write (vectors (n, D), corners (n, 2)) after each other; how many there were. The file appears when whole, once
    ``before`` has been asked whether it still may; with ``replace`` in the place of another one."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: unknown suffix; use {', '.join(SUFFIXES)}")
    try:
        write = _write_npz if path.suffix.lower() == ".npz" else _write_h5
        with atomic.writing(path, before=before, replace=replace) as part:
            count = write(part, parts, dim, facts)
    except OSError as error:
        raise OutputError(f"{path}: cannot write here ({error.strerror or error}); choose another -o") from error
    return count


def _read_h5(path: Path) -> StoredFeatures:
    with _h5py().File(path, "r") as file:
        facts: dict[str, Any] = {}
        for place in (file, file["features"], file["coords"]):
            facts |= {str(key): _plain(value) for key, value in place.attrs.items()}
        return StoredFeatures(file["features"][()], file["coords"][()], facts)


def _read_npz(path: Path) -> StoredFeatures:
    with np.load(path, allow_pickle=False) as file:
        facts = json.loads(str(file["attributes"])) if "attributes" in file else {}
        if not isinstance(facts, dict):
            raise ValueError("attributes that are no JSON object")
        return StoredFeatures(file["features"], file["coords"], facts)


def _write_h5(path: Path, parts: Parts, dim: int, facts: Mapping[str, Any]) -> int:
    with _h5py().File(path, "w") as file:
        chunk = max(1, (1 << 18) // (4 * dim))
        features = file.create_dataset("features", (0, dim), "f4", maxshape=(None, dim), chunks=(chunk, dim))
        coords = file.create_dataset("coords", (0, 2), "i8", maxshape=(None, 2), chunks=(chunk, 2))
        coords.attrs.update(facts)
        for vectors, corners in parts:
            count = len(features)
            features.resize(count + len(vectors), axis=0)
            coords.resize(count + len(vectors), axis=0)
            features[count:], coords[count:] = vectors, corners
        return len(features)


def _write_npz(path: Path, parts: Parts, dim: int, facts: Mapping[str, Any]) -> int:
    vectors, corners = [np.zeros((0, dim), np.float32)], [np.zeros((0, 2), np.int64)]
    for some, places in parts:
        vectors.append(some.astype(np.float32))
        corners.append(places)
    features = np.concatenate(vectors)
    with path.open("wb") as file:
        np.savez(file, features=features, coords=np.concatenate(corners), attributes=np.array(json.dumps(dict(facts))))
    return len(features)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise InputError("reading and writing .h5 takes h5py; run `pip install h5py`, or use .npz") from None
    return h5py


def _plain(value: Any) -> Any:
    """An attribute as a JSON value."""
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
