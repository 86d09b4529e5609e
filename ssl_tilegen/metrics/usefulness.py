"""Do synthetic images make a better classifier? Trained on real, on synthetic and on both, tested on real ones.

Arrays only: ``x`` may be features (N, D) or pixels (N, H, W, 3), whatever the learner takes. One seed draws groups of
the real training set, and with them the synthetic images that were made from these groups and no others, so that
synthetic images never smuggle in a group that the real set does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ssl_tilegen.metrics.probes import confusion, pick_groups, scores
from ssl_tilegen.metrics.resampling import Interval

ARMS = ("real", "synthetic", "both")


class Part(NamedTuple):
    """One of the sets: ``x`` (N, ...), labels ``y`` (N,) from 0, ``groups`` (N,) of text."""

    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray

    def take(self, index: np.ndarray) -> Part:
        return Part(self.x[index], self.y[index], self.groups[index])

    def join(self, other: Part) -> Part:
        return Part(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


Learner = Callable[[Part, np.ndarray, int, int], np.ndarray]
"""``learner(train, test_x, classes, seed)`` -> class probabilities (M, C)."""


@dataclass(frozen=True)
class Outcome:
    """What a learner said: ``probabilities`` per arm (S, M, C), of S seeds about the M images of ``test``;
    ``sizes`` per arm: training images, averaged over the seeds."""

    probabilities: Mapping[str, np.ndarray]
    sizes: Mapping[str, float]
    labels: np.ndarray
    groups: np.ndarray

    def figure(self, arm: str, name: str = "accuracy", rounds: int = 1000) -> Interval:
        """Accuracy (or 'balanced', 'auc') of an arm: mean over seeds with a 95 % interval."""
        return self._interval([arm], name, rounds)

    def gain(self, arm: str, over: str, name: str = "accuracy", rounds: int = 1000) -> Interval:
        """How much better ``arm`` is than ``over``, paired by seed and by test group."""
        return self._interval([arm, over], name, rounds)

    def confusion(self, arm: str) -> np.ndarray:
        """Counts (C, C) summed over seeds: row = the label, column = what it was taken for."""
        said = self.probabilities[arm]
        return sum((confusion(p.argmax(1), self.labels, said.shape[2]) for p in said), np.zeros((said.shape[2],) * 2))

    def _interval(self, arms: list[str], name: str, rounds: int) -> Interval:
        """Seeds and test groups are drawn together: the interval holds for new training draws and new test fields."""
        value = float(np.mean(self._per_seed(arms, name, None)))
        if name != "accuracy":
            rounds = min(rounds, 200)
        rng, (names, member) = np.random.default_rng(0), np.unique(self.groups, return_inverse=True)
        rows = [np.flatnonzero(member == g) for g in range(len(names))]
        seeds, drawn = len(self.probabilities[arms[0]]), []
        for _ in range(rounds):
            index = np.concatenate([rows[g] for g in rng.integers(0, len(rows), len(rows))])
            picked = rng.integers(0, seeds, seeds)
            drawn.append(np.mean([values for values in self._per_seed(arms, name, index, picked)]))
        low, high = np.nanpercentile(drawn, (2.5, 97.5))
        return Interval(value, float(low), float(high))

    def _per_seed(
        self, arms: list[str], name: str, index: np.ndarray | None, seeds: np.ndarray | None = None
    ) -> np.ndarray:
        """The figure of the first arm (less that of the second) for each of ``seeds``, on test images ``index``."""
        chosen = range(len(self.probabilities[arms[0]])) if seeds is None else seeds
        found = [[self._score(arm, int(seed), name, index) for seed in chosen] for arm in arms]
        return np.array(found[0]) - (np.array(found[1]) if len(found) > 1 else 0)

    def _score(self, arm: str, seed: int, name: str, index: np.ndarray | None) -> float:
        said, labels = self.probabilities[arm][seed], self.labels
        if index is not None:
            said, labels = said[index], labels[index]
        if name == "accuracy":
            return float((said.argmax(1) == labels).mean())
        return float(getattr(scores(said, labels), name))


def compare(
    learner: Learner,
    real: Part,
    synthetic: Part,
    test: Part,
    classes: int,
    *,
    seeds: int = 5,
    per_class: int | float = 0.8,
    arms: Sequence[str] = ARMS,
    tick: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train ``learner`` for every seed on each arm and test it. ``per_class``: groups of each class that a seed draws,
    a share of them below 1. ``tick`` is called after each training."""
    said: dict[str, list[np.ndarray]] = {arm: [] for arm in arms}
    sizes: dict[str, list[int]] = {arm: [] for arm in arms}
    for seed in range(seeds):
        own = real.take(np.flatnonzero(pick_groups(real.groups, real.y, per_class, seed)))
        made = synthetic.take(np.flatnonzero(made_from(synthetic, real, own)))
        sets = {"real": own, "synthetic": made, "both": own.join(made)}
        for arm in arms:
            said[arm].append(learner(sets[arm], test.x, classes, seed))
            sizes[arm].append(len(sets[arm].y))
            tick()
    means = {arm: float(np.mean(counts)) for arm, counts in sizes.items()}
    return Outcome({arm: np.stack(p) for arm, p in said.items()}, means, test.y, test.groups)


def made_from(synthetic: Part, real: Part, drawn: Part) -> np.ndarray:
    """(N,) bool: synthetic images whose class and group is among the ``drawn`` ones; all of them where the synthetic
    set's groups are none of the real set's."""
    if not np.isin(synthetic.groups, real.groups).any():
        return np.ones(len(synthetic.y), bool)
    pairs = set(zip(drawn.y.tolist(), drawn.groups.tolist(), strict=True))
    return np.array([pair in pairs for pair in zip(synthetic.y.tolist(), synthetic.groups.tolist(), strict=True)])
