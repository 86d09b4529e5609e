"""Do generated cells carry the embedding they were made from? (Graikos et al. 2024, embedding similarity)"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CHUNK = 1024


@dataclass(frozen=True)
class Retrieval:
    """``cosine``: mean cosine of a cell to its own condition; ``top1``, ``top5``: share of cells whose own source is
    the nearest, or among the five nearest, of all sources; ``cells``: how many."""

    cosine: float
    top1: float
    top5: float
    cells: int


def retrieval(generated: np.ndarray, source: np.ndarray) -> Retrieval:
    """Compare re-embedded cells (N, D) with the cells (N, D) they were generated from, by cosine.

    Memory: 1024 x N floats. Raises ValueError where the shapes differ or there is no cell.
    """
    own, nearer = ranks(generated, source)
    return Retrieval(float(own.mean()), float((nearer == 0).mean()), float((nearer < 5).mean()), len(own))


def ranks(generated: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every cell the cosine (N,) to its own source, and how many other sources (N,) are nearer to it.

    Memory and errors as `retrieval`.
    """
    if generated.shape != source.shape or generated.ndim != 2 or not len(generated):
        raise ValueError(f"expected two equal arrays (N, D), got {generated.shape} and {source.shape}")
    a, b = _unit(generated), _unit(source)
    own = (a * b).sum(1)
    nearer = np.concatenate(
        [((a[i : i + _CHUNK] @ b.T) > own[i : i + _CHUNK, None] + 1e-6).sum(1) for i in range(0, len(a), _CHUNK)]
    )
    return own, nearer


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
