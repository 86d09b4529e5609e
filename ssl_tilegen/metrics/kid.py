"""Kernel distance: unbiased, so small and unequal sets compare (Binkowski et al. 2018, arXiv 1801.01401)."""

from __future__ import annotations

import numpy as np

_CHUNK = 2048


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared maximum mean discrepancy of (N, D) and (M, D) under the kernel (x . y / D + 1)^3; may be below zero.

    Memory: 2048 x N numbers. Raises ValueError for sets of fewer than two.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a kernel distance takes two vectors or more on each side, got {len(a)} and {len(b)}")
    return _within(a) + _within(b) - 2 * _sum(a, b) / (len(a) * len(b))


def _within(x: np.ndarray) -> float:
    """Mean of the kernel over all pairs of different vectors."""
    own = (np.einsum("nd,nd->n", x, x, dtype=np.float64) / x.shape[1] + 1) ** 3
    return (_sum(x, x) - float(own.sum())) / (len(x) * (len(x) - 1))


def _sum(a: np.ndarray, b: np.ndarray) -> float:
    b = b.astype(np.float64)
    chunks = (a[i : i + _CHUNK].astype(np.float64) for i in range(0, len(a), _CHUNK))
    return float(sum(((part @ b.T / b.shape[1] + 1) ** 3).sum() for part in chunks))
