"""How sure is a score? Half-samples drawn by group, and intervals from them.

Tiles of one slide or field are not independent, so groups are drawn, never single tiles. They are drawn without
replacement: a repeated vector is its own nearest neighbour, which breaks every metric built on distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_NORMAL_95 = 1.96


class Interval(NamedTuple):
    """A score and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """High minus low."""
        return self.high - self.low


def group_halves(groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two disjoint halves of (N,) that share no group; a single group is split by items."""
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    if count < 2:
        member, count = np.arange(len(groups)), len(groups)
    order = rng.permutation(count)
    sizes = np.bincount(member, minlength=count)[order]
    cut = int(np.argmin(np.abs(np.cumsum(sizes)[:-1] - len(member) / 2))) + 1 if count > 1 else 1
    first = np.isin(member, order[:cut])
    return np.flatnonzero(first), np.flatnonzero(~first)


def half_samples(groups: Sequence[np.ndarray], rounds: int, seed: int = 0) -> Iterator[list[np.ndarray]]:
    """``rounds`` times: for each set, given by its groups (N,), the indices of a random half of it."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        yield [group_halves(own, rng)[0] for own in groups]


def interval(value: float, replicates: Sequence[float], low: float = -np.inf, high: float = np.inf) -> Interval:
    """``value`` with its interval from ``replicates`` on half-samples, kept within ``low`` and ``high``.

    A half drawn without replacement varies about its own mean as much as the whole sample does about the truth (the
    delete-half jackknife: Shao and Wu 1989, Annals of Statistics 17:1176). The bias of a smaller sample moves all
    replicates alike and so drops out.
    """
    known = np.asarray([r for r in replicates if np.isfinite(r)], np.float64)
    if len(known) < 2 or not np.isfinite(value):
        return Interval(float(value), float("nan"), float("nan"))
    half = _NORMAL_95 * float(known.std(ddof=1))
    return Interval(float(value), float(max(low, value - half)), float(min(high, value + half)))
