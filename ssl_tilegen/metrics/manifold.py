"""Is every synthetic vector among the real ones, and is every real one covered?

Precision and recall after Kynkaanniemi et al. 2019 (arXiv 1904.06991), density and coverage after Naeem et al. 2020
(arXiv 2002.09797): a set's manifold is the union of balls about its vectors that reach their k-th neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssl_tilegen.metrics.distances import distances, radii


class Manifold(NamedTuple):
    """``precision``: share of synthetic vectors inside real balls; ``recall``: of real ones inside synthetic balls;
    ``density``: how many real balls a synthetic vector lies in, relative to k (1 for like sets, may exceed it);
    ``coverage``: share of real balls that hold a synthetic vector."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(
    real: np.ndarray,
    synthetic: np.ndarray,
    k: int = 5,
    *,
    real_groups: np.ndarray | None = None,
    synthetic_groups: np.ndarray | None = None,
) -> Manifold:
    """The four scores for (N, D) and (M, D). Memory: 1024 x max(N, M). ValueError for sets of k vectors or fewer.

    With groups (N,), (M,) a ball reaches the k-th neighbour of another group: balls between copies of one field would
    be so small that no other field lies in them.
    """
    if min(len(real), len(synthetic)) <= k:
        raise ValueError(f"needs more than {k} vectors on each side, got {len(real)} and {len(synthetic)}")
    real_radius, synthetic_radius = radii(real, k, real_groups), radii(synthetic, k, synthetic_groups)
    inside, balls = np.empty(len(synthetic), bool), 0
    covered, recalled = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, found in distances(synthetic, real):
        within = found <= real_radius
        inside[rows], balls = within.any(1), balls + int(within.sum())
        covered |= within.any(0)
        recalled |= (found <= synthetic_radius[rows][:, None]).any(0)
    return Manifold(float(inside.mean()), float(recalled.mean()), balls / (k * len(synthetic)), float(covered.mean()))
