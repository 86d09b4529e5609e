"""Votes of the real neighbours of a vector on its class: the gate of `augment`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_CHUNK = 1024


class Votes(NamedTuple):
    """For M vectors: ``label`` (M,), the class most of its neighbours have; ``share`` (M,), the share of the neighbours
    that have the vector's own class; ``nearest`` (M,) and ``cosine`` (M,), the nearest real vector of all."""

    label: np.ndarray
    share: np.ndarray
    nearest: np.ndarray
    cosine: np.ndarray


def class_votes(
    vectors: np.ndarray, labels: np.ndarray, kin: np.ndarray, real: np.ndarray, real_labels: np.ndarray,
    real_groups: np.ndarray, *, k: int = 9,
) -> Votes:  # fmt: skip
    """The ``k`` nearest of ``real`` (N, D) to each of ``vectors`` (M, D) by cosine about the real mean.

    ``labels`` (M,) are the vectors' own classes, integers. ``kin`` (M, P) names the groups of ``real_groups`` (N,)
    that a vector was made from: they have no vote, for a vector always resembles its own source (but they count for
    ``nearest``). Classes are weighed alike, whatever their number of images, and ``k`` is at most half the smallest
    class, that it may win. Memory: 1024 x N floats.
    """
    sizes = np.bincount(real_labels)
    classes, k = len(sizes), max(1, min(k, int(sizes[sizes > 0].min()) // 2))
    weight = 1 / sizes[real_labels]
    centre = real.mean(0, dtype=np.float64)
    a, b = _unit(vectors - centre), _unit(real - centre)
    found = [
        _vote(a[rows] @ b.T, labels[rows], kin[rows], real_labels, real_groups, weight, k, classes)
        for start in range(0, len(a), _CHUNK)
        for rows in [slice(start, start + _CHUNK)]
    ]
    return Votes(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _vote(
    cosine: np.ndarray, labels: np.ndarray, kin: np.ndarray, real_labels: np.ndarray, real_groups: np.ndarray,
    weight: np.ndarray, k: int, classes: int,
) -> Votes:  # fmt: skip
    nearest = cosine.argmax(1)
    highest = cosine[np.arange(len(cosine)), nearest]
    related = (kin[:, :, None] == real_groups).any(1)
    foreign = np.where(related, -np.inf, cosine)
    k = max(1, min(k, int((~related).sum(1).min())))
    chosen = np.argpartition(-foreign, k - 1, axis=1)[:, :k]
    votes = np.zeros((len(cosine), classes))
    np.add.at(votes, (np.arange(len(cosine))[:, None], real_labels[chosen]), weight[chosen])
    votes /= votes.sum(1, keepdims=True)
    return Votes(votes.argmax(1), votes[np.arange(len(votes)), labels], nearest, highest)


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)
