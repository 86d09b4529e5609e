"""Classifiers over features, and their accuracy: the cheap half of the question whether images are useful.

Features are (N, D), labels (N,) integers from 0, groups (N,) anything that can be compared. Splits never part a group.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from ssl_tilegen.metrics.distances import distances


def linear_probe(
    x: np.ndarray,
    y: np.ndarray,
    test: np.ndarray,
    classes: int,
    *,
    l2: float = 1e-2,
    weights: np.ndarray | None = None,
    common_scale: bool = False,
) -> np.ndarray:
    """Class probabilities (M, C) of ``test`` (M, D) by softmax regression fitted to (N, D) and (N,).

    Features are standardised by the training set, with ``common_scale`` all by one deviation; ``l2`` is per mean loss;
    ``weights`` (N,) say how much an item counts. Convex, so nothing about it is random.
    """
    mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    std = np.full_like(std, np.sqrt(np.mean(std**2))) if common_scale else std
    gain = np.where(std > 1e-8, 1 / np.maximum(std, 1e-8), 0)
    z, v = _with_one((x - mean) * gain), _with_one((test - mean) * gain)
    share = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    share = share / share.sum()
    target = np.eye(classes)[y]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(z.shape[1], classes)
        logs = log_softmax(z @ w, axis=1)
        free = np.concatenate([w[:-1], np.zeros((1, classes))])
        gradient = z.T @ ((np.exp(logs) - target) * share[:, None]) + l2 * free
        return float(-(share * (logs * target).sum(1)).sum() + 0.5 * l2 * (free**2).sum()), gradient.ravel()

    start = np.zeros(z.shape[1] * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return softmax(v @ found.x.reshape(z.shape[1], classes), axis=1)


def knn_probe(x: np.ndarray, y: np.ndarray, test: np.ndarray, classes: int, *, k: int = 10) -> np.ndarray:
    """Class shares (M, C) among the ``k`` nearest of (N, D) by cosine, each weighted by exp(cosine / 0.07)."""
    k = min(k, len(x))
    centre = x.mean(0, dtype=np.float64)
    a, b = _unit(test - centre), _unit(x - centre)
    votes = np.zeros((len(test), classes))
    for rows, found in distances(a, b):
        index = np.argpartition(found, k - 1, axis=1)[:, :k]
        cosine = 1 - np.take_along_axis(found, index, 1).astype(np.float64) ** 2 / 2
        weight = np.exp((cosine - 1) / 0.07)
        for c in range(classes):
            votes[rows, c] = (weight * (y[index] == c)).sum(1)
    return votes / votes.sum(1, keepdims=True).clip(1e-300)


def pick_groups(groups: np.ndarray, labels: np.ndarray, per_class: int | float, seed: int) -> np.ndarray:
    """(N,) bool: the items of ``per_class`` groups of each class (a share of them below 1), drawn at random.

    The draw of n groups is the beginning of the draw of n + 1 by the same seed. A group with several labels is
    counted for each of them.
    """
    keep = np.zeros(len(groups), bool)
    for label in np.unique(labels):
        own = np.unique(groups[labels == label])
        count = max(1, round(per_class * len(own))) if per_class < 1 else int(per_class)
        order = np.random.default_rng([seed, int(label)]).permutation(len(own))
        keep |= (labels == label) & np.isin(groups, own[order[:count]])
    return keep


class Scores(NamedTuple):
    """``accuracy``; ``balanced``: mean of the classes' recalls; ``auc``: area under the ROC curve, one class against
    the rest, averaged."""

    accuracy: float
    balanced: float
    auc: float


def scores(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """How (M, C) agree with the labels (M,); classes that do not occur have no say."""
    right = probabilities.argmax(1) == labels
    present = np.unique(labels)
    recalls = [float(right[labels == c].mean()) for c in present]
    area = areas(probabilities, labels, np.ones((1, len(labels)), int))[0]
    return Scores(float(right.mean()), float(np.mean(recalls)), float(area))


def areas(probabilities: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(R,) areas under the ROC curve, averaged over classes, of (M, C) about labels (M,) with image m counted
    ``counts[r, m]`` times. Classes that are counted 0 times have no say; NaN where fewer than two remain."""
    classes = np.unique(labels)
    each = np.stack([_auc(probabilities[:, c], labels == c, counts) for c in classes], axis=1)
    present = np.stack([counts[:, labels == c].any(axis=1) for c in classes], axis=1)
    enough = present.sum(1) > 1
    return np.array([own[there].mean() if some else np.nan for own, there, some in
                     zip(each, present, enough, strict=True)])  # fmt: skip


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C): row = the label, column = the prediction."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table


def _auc(score: np.ndarray, positive: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(R,): the share of pairs of a positive and another item whose scores rise, ties by half; NaN without pairs."""
    order = np.argsort(score)
    ranked, wanted, counts = score[order], positive[order], counts[:, order]
    others = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts * ~wanted, axis=1)], axis=1)
    below, up_to = (np.searchsorted(ranked, ranked[wanted], side) for side in ("left", "right"))
    own = counts[:, wanted]
    pairs = (own * (others[:, below] + others[:, up_to])).sum(1) / 2  # whole and half numbers: exact
    with np.errstate(invalid="ignore"):
        return pairs / (own.sum(1) * others[:, -1])


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)
