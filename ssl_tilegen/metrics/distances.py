"""Euclidean distances between sets of vectors, in pieces of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_CHUNK = 1024


def distances(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows of ``a``, float32 distances (rows, M)) for (N, D) and (M, D); 1024 x M numbers at a time.

    Both sets are moved to the mean of ``b``, so that a large common offset costs no digits.
    """
    centre = b.mean(0, dtype=np.float64).astype(np.float32)
    b = b.astype(np.float32) - centre
    squares = np.einsum("md,md->m", b, b)
    for start in range(0, len(a), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(a)))
        part = a[rows].astype(np.float32) - centre
        found = np.einsum("nd,nd->n", part, part)[:, None] + squares - 2 * (part @ b.T)
        yield rows, np.sqrt(np.maximum(found, 0, out=found), out=found)


def nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every vector of (N, D): the distance (N,) to its nearest in (M, D), and that one's index (N,)."""
    distance, index = np.empty(len(a), np.float32), np.empty(len(a), np.int64)
    for rows, found in distances(a, b):
        index[rows] = found.argmin(1)
        distance[rows] = np.take_along_axis(found, index[rows][:, None], 1)[:, 0]
    return distance, index


def radii(x: np.ndarray, k: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Distance (N,) of every vector to its ``k``-th nearest other one; with ``groups``, of another group (infinite
    where there are fewer than k)."""
    radius = np.empty(len(x), np.float32)
    labels = np.arange(len(x)) if groups is None else np.unique(groups, return_inverse=True)[1]
    for rows, found in distances(x, x):
        found[labels[rows][:, None] == labels[None]] = np.inf
        radius[rows] = np.partition(found, k - 1, axis=1)[:, k - 1]
    return radius
