"""Are synthetic images copies of training images? (the test of Meehan et al. 2020, arXiv 2004.05675)"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from ssl_tilegen.metrics.distances import nearest, radii

_LOW = 0.01


class Copying(NamedTuple):
    """Distances of synthetic and of held-out real vectors to their nearest training vector.

    ``nearer``: how often a synthetic vector lies nearer than a held-out one (0.5 for no copying; ties count half);
    ``suspects``: share of synthetic vectors nearer than all but the nearest 1 % of held-out ones (0.01 expected);
    ``synthetic``, ``held_out``: the distances (N,), (M,); ``neighbour`` (N,): the training vector each is nearest to;
    ``limit``: the distance below which a vector is a suspect.
    """

    nearer: float
    suspects: float
    synthetic: np.ndarray
    held_out: np.ndarray
    neighbour: np.ndarray
    limit: float


def copying(synthetic: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> Copying:
    """Compare (N, D) and (M, D), neither of which is in ``train`` (T, D), by their nearest neighbours there."""
    near, index = nearest(synthetic, train)
    held, _ = nearest(held_out, train)
    limit = float(np.quantile(held, _LOW))
    return Copying(share_nearer(near, held), float((near < limit).mean()), near, held, index, limit)


def duplicates(held_out: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(M,) bool: vectors of (M, D) that are a training vector up to rounding, i.e. of the very same image.

    Rounding is taken as a hundredth of the usual distance between neighbours of the training set.
    """
    _, index = nearest(held_out, train)
    exact = np.linalg.norm(held_out - train[index], axis=1)
    apart = radii(train, 1) if len(train) > 1 else np.ones(1)
    usual = apart[apart > 0]
    return exact <= 1e-2 * (float(np.median(usual)) if len(usual) else 0.0)


def share_nearer(near: np.ndarray, held: np.ndarray) -> float:
    """Probability that a value of ``near`` is below one of ``held``; ties count half (Mann and Whitney 1947)."""
    ranks = rankdata(np.concatenate([held, near]))[: len(held)].sum()
    return float((ranks - len(held) * (len(held) + 1) / 2) / (len(held) * len(near)))
