"""Do synthetic images make a better classifier? Trained on real, on synthetic and on both, tested on real ones.

Arrays only: ``x`` may be features (N, D) or pixels (N, H, W, 3), whatever the learner takes. One seed draws groups of
the real training set, and with them the synthetic images that were made from these groups and no others. So synthetic
images never bring in a group that the real set does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ssl_tilegen.metrics.probes import areas, confusion, pick_groups
from ssl_tilegen.metrics.resampling import Interval

_SLOW_ROUNDS = 100
_MOST_SEEDS = 1 << 64  # of torch
ARMS = ("real", "synthetic", "both")


class LabelledSet(NamedTuple):
    """One of the sets: ``x`` (N, ...), labels ``y`` (N,) from 0, ``groups`` (N,) of text."""

    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray

    def take(self, index: np.ndarray) -> LabelledSet:
        """The items at ``index``, integers or bool."""
        return LabelledSet(self.x[index], self.y[index], self.groups[index])

    def join(self, other: LabelledSet) -> LabelledSet:
        """The items of both, these first."""
        return LabelledSet(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


Learner = Callable[[LabelledSet, np.ndarray, int, int], np.ndarray]
"""``learner(train, test_x, classes, seed)`` -> class probabilities (M, C)."""


@dataclass(frozen=True)
class Outcome:
    """The predictions of a learner: ``probabilities`` per arm (S, M, C), of S seeds about the M images of ``test``;
    ``sizes`` per arm: training images, averaged over the seeds. ``seed`` is that of the intervals' draws."""

    probabilities: Mapping[str, np.ndarray]
    sizes: Mapping[str, float]
    labels: np.ndarray
    groups: np.ndarray
    seed: int = 0

    def score(self, arm: str, name: str = "accuracy", rounds: int = 1000) -> Interval:
        """Accuracy (or 'balanced', 'auc') of an arm: mean over seeds with a 95 % interval."""
        return self._interval([arm], name, rounds)

    def gain(self, arm: str, over: str, name: str = "accuracy", rounds: int = 1000) -> Interval:
        """How much better ``arm`` is than ``over``, paired by seed and by test group."""
        return self._interval([arm, over], name, rounds)

    def confusion(self, arm: str) -> np.ndarray:
        """Counts (C, C) summed over seeds: row = the label, column = the prediction."""
        said = self.probabilities[arm]
        return sum((confusion(p.argmax(1), self.labels, said.shape[2]) for p in said), np.zeros((said.shape[2],) * 2))

    def _interval(self, arms: list[str], name: str, rounds: int) -> Interval:
        """Seeds and test groups are drawn together: the interval holds for new training draws and new test fields."""
        rng, (names, member) = np.random.default_rng(self.seed), np.unique(self.groups, return_inverse=True)
        rounds = min(rounds, _SLOW_ROUNDS) if name == "auc" else rounds
        seeds = len(self.probabilities[arms[0]])
        groups = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), rounds)
        picked = rng.multinomial(seeds, np.full(seeds, 1 / seeds), rounds)
        weights = np.concatenate([np.ones((1, len(names)), int), groups])
        found = [self._weighted(arm, name, member, weights) for arm in arms]
        each = found[0] - found[1] if len(found) > 1 else found[0]
        low, high = np.nanpercentile((each[1:] * picked).sum(1) / seeds, (2.5, 97.5))
        return Interval(float(each[0].mean()), float(low), float(high))

    def _weighted(self, arm: str, name: str, member: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The score (R, S) of every seed, with the test groups counted ``weights`` (R, G) times."""
        said = self.probabilities[arm]
        if name == "auc":
            counts = weights[:, member]
            return np.stack([areas(p, self.labels, counts) for p in said], axis=1)
        labels, right = np.unique(self.labels, return_inverse=True)[1], said.argmax(2) == self.labels
        shape = (int(labels.max()) + 1, weights.shape[1])
        sizes = np.zeros(shape)
        np.add.at(sizes, (labels, member), 1)
        hits = np.zeros((len(said), *shape))
        for seed, own in enumerate(right):
            np.add.at(hits[seed], (labels, member), own)
        hit, size = np.einsum("scg,rg->rsc", hits, weights), np.einsum("cg,rg->rc", sizes, weights)[:, None]
        if name == "accuracy":
            return hit.sum(2) / size.sum(2)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nanmean(hit / size, axis=2)


def compare(
    learner: Learner,
    real: LabelledSet,
    synthetic: LabelledSet,
    test: LabelledSet,
    classes: int,
    *,
    seeds: int = 5,
    seed: int = 0,
    per_class: int | float = 0.8,
    arms: Sequence[str] = ARMS,
    tick: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train ``learner`` for each of ``seeds`` seeds on each arm and test it. Another ``seed`` stands for as many other
    ones. ``per_class``: groups of each class that a seed draws, a share of them below 1. ``tick`` is called after each
    training."""
    said: dict[str, list[np.ndarray]] = {arm: [] for arm in arms}
    sizes: dict[str, list[int]] = {arm: [] for arm in arms}
    for number in range(seed * seeds, (seed + 1) * seeds):
        draw = number % _MOST_SEEDS
        own = real.take(np.flatnonzero(pick_groups(real.groups, real.y, per_class, draw)))
        made = synthetic.take(np.flatnonzero(made_from(synthetic, real, own)))
        sets = {"real": own, "synthetic": made, "both": own.join(made)}
        for arm in arms:
            said[arm].append(learner(sets[arm], test.x, classes, draw))
            sizes[arm].append(len(sets[arm].y))
            tick()
    means = {arm: float(np.mean(counts)) for arm, counts in sizes.items()}
    return Outcome({arm: np.stack(p) for arm, p in said.items()}, means, test.y, test.groups, seed)


def made_from(synthetic: LabelledSet, real: LabelledSet, drawn: LabelledSet) -> np.ndarray:
    """(N,) bool: synthetic images whose class and group is among the ``drawn`` ones; all of them where the synthetic
    set's groups are none of the real set's."""
    if not np.isin(synthetic.groups, real.groups).any():
        return np.ones(len(synthetic.y), bool)
    pairs = set(zip(drawn.y.tolist(), drawn.groups.tolist(), strict=True))
    return np.array([pair in pairs for pair in zip(synthetic.y.tolist(), synthetic.groups.tolist(), strict=True)])
