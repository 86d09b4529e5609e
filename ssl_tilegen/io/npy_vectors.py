"""Vectors from files: conditions that are not images."""

from __future__ import annotations

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ssl_tilegen.errors import InputError
from ssl_tilegen.system.boundary import reason_of


def load_vector(name: str, folder: Path = Path()) -> np.ndarray:
    """A vector (V,) float32 from ``FILE.npy`` or ``FILE.npz:KEY`` (its first entry where no key is given)."""
    path, key = folder / file_of(name), name.partition(".npz:")[2]
    try:
        stored = np.load(path, allow_pickle=False)
        array = stored[key or stored.files[0]] if hasattr(stored, "files") else stored
        if array.dtype.kind not in "fiub":
            raise ValueError(f"values of {array.dtype}")
    except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: no vector can be read ({reason_of(error)}); give .npy, or .npz:KEY") from None
    return finite(np.squeeze(np.asarray(array, np.float32)), str(path))


def file_of(name: str) -> Path:
    """The file of ``FILE.npy`` or ``FILE.npz:KEY``."""
    return Path(f"{name.partition('.npz:')[0]}.npz" if ".npz:" in name else name)


def finite(vector: np.ndarray, name: str) -> np.ndarray:
    """``vector``; InputError where it is empty or holds numbers that are not finite."""
    if not vector.size or not np.isfinite(vector).all():
        raise InputError(f"{name}: a vector must hold finite numbers")
    return vector
