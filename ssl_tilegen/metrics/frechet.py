"""Frechet distance between two sets of features, each taken as a Gaussian (Heusel et al. 2017, arXiv 1706.08500)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Gaussian(NamedTuple):
    """``vectors``: how many, with ``mean`` (D,) and unbiased ``covariance`` (D, D), float64."""

    vectors: int
    mean: np.ndarray
    covariance: np.ndarray


@dataclass
class Moments:
    """Mean and covariance of vectors that come in batches; holds D x D numbers whatever their count.

    Batches are merged about their own means (Chan, Golub and LeVeque 1983), so a large common offset costs no digits.
    """

    count: int = 0
    mean: np.ndarray | None = None
    scatter: np.ndarray | None = None

    def add(self, batch: np.ndarray) -> Moments:
        """Take in (N, D)."""
        values = np.asarray(batch, np.float64)
        if not len(values):
            return self
        mean = values.mean(0)
        centred = values - mean
        self._merge(len(values), mean, centred.T @ centred)
        return self

    def _merge(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        if self.mean is None or self.scatter is None:
            self.count, self.mean, self.scatter = count, mean, scatter
            return
        total, step = self.count + count, mean - self.mean
        self.scatter += scatter + np.outer(step, step) * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total

    def gaussian(self) -> Gaussian:
        """Raises ValueError for fewer than two vectors."""
        if self.mean is None or self.scatter is None or self.count < 2:
            raise ValueError(f"a covariance takes two vectors or more, got {self.count}")
        return Gaussian(self.count, self.mean, self.scatter / (self.count - 1))


def frechet(a: Gaussian, b: Gaussian) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of two covariances A and B.

    The last trace is the sum of singular values of F^T G for A = F F^T and B = G G^T: it exists and is real for
    singular covariances too (fewer vectors than dimensions), where a square root of the product A B fails.
    """
    step = a.mean - b.mean
    cross = np.linalg.svd(_factor(a.covariance).T @ _factor(b.covariance), compute_uv=False).sum()
    return max(0.0, float(step @ step + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The distance between two sets of features (N, D) and (M, D)."""
    return frechet(Moments().add(a).gaussian(), Moments().add(b).gaussian())


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F with F F^T = covariance, without the directions in which there is nothing."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * 1e-12
    return vectors[:, kept] * np.sqrt(values[kept])
