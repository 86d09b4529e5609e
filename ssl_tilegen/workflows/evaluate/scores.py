"""The scores of `evaluate`: each with its counts, its interval, and its value between two halves of the real set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ssl_tilegen.errors import ChoiceError
from ssl_tilegen.metrics.copying import Copying, copying, duplicates, share_nearer
from ssl_tilegen.metrics.frechet import frechet_distance
from ssl_tilegen.metrics.kid import kernel_distance
from ssl_tilegen.metrics.manifold import manifold
from ssl_tilegen.metrics.resampling import group_halves, half_samples, interval
from ssl_tilegen.metrics.vendi import vendi_score
from ssl_tilegen.workflows.evaluate.features import Features

_OF_IMAGES = ("copy", "pairs", "large")
"""Metrics that need more than two sets of vectors."""
Metric = Callable[[Features, Features], tuple[float, ...]]
_FEW_GROUPS, _FEW_PER_DIMENSION, _FEW_HELD_OUT = 10, 2, 20


@dataclass(frozen=True)
class Score:
    """One score. ``low``, ``high``: its 95 % interval. ``baseline``: the same of two halves of the real set, of
    ``n_equal`` vectors each; ``matched``: of so many synthetic and real ones, to be held against the baseline.
    ``better``: 'lower', 'higher', or the value to be near to, as text."""

    name: str
    title: str
    features: str
    dim: int
    n_real: int
    n_synthetic: int
    value: float
    low: float
    high: float
    better: str
    paper: str
    baseline: float | None = None
    matched: float | None = None
    n_equal: int | None = None


@dataclass(frozen=True)
class Kind:
    """A metric of two sets: the names, papers and directions of its scores, and the bounds of each."""

    metric: Metric
    titles: tuple[tuple[str, str], ...]
    better: str
    paper: str
    bounds: tuple[tuple[float, float], ...]


def kinds(neighbours: int) -> dict[str, Kind]:
    """The table of metrics. Adding one is a file under ``metrics`` and an entry here."""
    four = (("precision", "Precision"), ("recall", "Recall"), ("density", "Density"), ("coverage", "Coverage"))
    return {
        "fd": Kind(lambda r, s: (frechet_distance(r.x, s.x),), (("fd", "Frechet distance"),), "lower",
                   "Heusel et al. 2017", ((0, np.inf),)),
        "kid": Kind(lambda r, s: (kernel_distance(r.x, s.x),), (("kid", "Kernel distance"),), "lower",
                    "Binkowski et al. 2018", ((-np.inf, np.inf),)),
        "manifold": Kind(lambda r, s: _manifold(r, s, neighbours), four, "higher",
                         "Kynkaanniemi et al. 2019; Naeem et al. 2020", ((0, 1), (0, 1), (0, np.inf), (0, 1))),
        "vendi": Kind(_vendi_ratio, (("vendi", "Diversity (Vendi), synthetic / real"),), "near 1",
                      "Friedman and Dieng 2022", ((0, np.inf),)),
    }  # fmt: skip


def metrics_named(names: Sequence[str]) -> tuple[str, ...]:
    """The metrics that are asked for, ``all`` spelt out. ChoiceError with the known ones for a name that is none."""
    known = (*kinds(1), *_OF_IMAGES)
    for name in names:
        if name not in (*known, "all"):
            raise ChoiceError(f"--metrics {name}: unknown; choose from {', '.join(known)}")
    return known if "all" in names else tuple(names)


def scores_of(
    name: str, real: Features, synthetic: Features, wanted: Sequence[str], *, neighbours: int, rounds: int, seed: int
) -> Iterator[Score]:
    """The scores of all ``wanted`` metrics for one encoder's features. Metrics that need more vectors are left out."""
    if min(len(real.x), len(synthetic.x)) < _least(neighbours):
        return
    for key, kind in kinds(neighbours).items():
        if key in wanted:
            yield from _scores_of(kind, name, real, synthetic, rounds, seed)


def _least(neighbours: int) -> int:
    """Windows that both sets need: halves of them have neighbours still."""
    return 2 * (neighbours + 2)


def _scores_of(kind: Kind, name: str, real: Features, synthetic: Features, rounds: int, seed: int) -> Iterator[Score]:
    values = kind.metric(real, synthetic)
    drawn = half_samples([real.groups, synthetic.groups], rounds, seed)
    replicates = np.array([kind.metric(real.take(a), synthetic.take(b)) for a, b in drawn])
    n_equal, baseline, matched = _at_equal_counts(kind.metric, real, synthetic, rounds, seed)
    for i, (key, title) in enumerate(kind.titles):
        found = interval(values[i], replicates[:, i].tolist(), *kind.bounds[i])
        yield Score(
            key,
            title,
            name,
            real.x.shape[1],
            len(real.x),
            len(synthetic.x),
            *found,
            better=kind.better,
            paper=kind.paper,
            baseline=float(baseline[i]),
            matched=float(matched[i]),
            n_equal=n_equal,
        )


def _at_equal_counts(
    metric: Metric, real: Features, synthetic: Features, rounds: int, seed: int
) -> tuple[int, np.ndarray, np.ndarray]:
    """Vectors a side, and the means over ``rounds`` of real against real and of real against synthetic.

    Distances shrink as sets grow, so the two are only comparable at equal counts.
    """
    rng, pairs = np.random.default_rng([seed, 1]), []
    for _ in range(rounds):
        one, other = group_halves(real.groups, rng)
        count = min(len(one), len(other), len(synthetic.x))
        pairs.append([rng.permutation(one)[:count], rng.permutation(other)[:count],
                      rng.permutation(len(synthetic.x))[:count]])  # fmt: skip
    own = np.mean([metric(real.take(a), real.take(b)) for a, b, _ in pairs], axis=0)
    made = np.mean([metric(real.take(a), synthetic.take(s)) for a, _, s in pairs], axis=0)
    return int(np.mean([len(a) for a, _, _ in pairs])), own, made


def _manifold(real: Features, synthetic: Features, k: int) -> tuple[float, ...]:
    """Balls reach over groups where there are enough of them; a few groups are taken as single windows."""
    enough = min(len(np.unique(real.groups)), len(np.unique(synthetic.groups))) > k
    own = {"real_groups": real.groups, "synthetic_groups": synthetic.groups} if enough else {}
    return tuple(manifold(real.x, synthetic.x, k, **own))


def _vendi_ratio(real: Features, synthetic: Features) -> tuple[float]:
    """Diversity about the real mean of equally many vectors."""
    count, centre = min(len(real.x), len(synthetic.x)), real.x.mean(0, dtype=np.float64)
    a, b = (part.x[np.linspace(0, len(part.x) - 1, count).round().astype(int)] for part in (real, synthetic))
    return (vendi_score(b, centre) / vendi_score(a, centre),)


def copy_scores(
    name: str, held_out: Features, synthetic: Features, train: Features, *, rounds: int, seed: int
) -> tuple[list[Score], Copying | None, str | None]:
    """How much nearer to the training images the synthetic ones lie than real images that were held out, and a warning.

    Real windows that are training windows say nothing and are left out; nothing is found where too few are left.
    """
    same = duplicates(held_out.x, train.x)
    warning = None
    if same.any():
        left = f"{int(same.sum())} of {len(same)} real windows are training windows too, {name}"
        if len(same) - same.sum() < _FEW_HELD_OUT:
            return [], None, f"{left}: no copy check; --real must be images that were held out of --train"
        warning, held_out = f"{left}: left out of the copy check", held_out.take(np.flatnonzero(~same))
    found = copying(synthetic.x, held_out.x, train.x)
    near, held = found.synthetic, found.held_out
    drawn = list(half_samples([synthetic.groups, held_out.groups], rounds, seed))
    nearer = interval(found.nearer, [share_nearer(near[a], held[b]) for a, b in drawn], 0, 1)
    suspects = interval(found.suspects, [float((near[a] < np.quantile(held[b], 0.01)).mean()) for a, b in drawn], 0, 1)
    rows = (
        ("copy_nearer", "Copying: nearer to training than held-out", nearer, 0.5),
        ("copy_suspects", "Copying: suspects (nearer than 99 % of held-out)", suspects, 0.01),
    )
    return [
        Score(key, title, name, train.x.shape[1], len(held), len(near), *own, better=f"near {expected:g}",
               paper="Meehan et al. 2020", baseline=expected)
        for key, title, own, expected in rows
    ], found, warning  # fmt: skip


def warnings_of(name: str, real: Features, synthetic: Features, neighbours: int) -> list[str]:
    """Warnings about the scores of these features, one line each, or the reason why there are none."""
    found, dim = [], real.x.shape[1]
    if min(len(real.x), len(synthetic.x)) < _least(neighbours):
        return [
            f"{len(real.x)} real and {len(synthetic.x)} synthetic windows are too few to compare the sets; give "
            f"{_least(neighbours)} or more of each: more images, a smaller --window, or a smaller -k"
        ]
    for which, features in (("real", real), ("synthetic", synthetic)):
        count, groups = len(features.x), len(np.unique(features.groups))
        if count < _FEW_PER_DIMENSION * dim:
            found.append(
                f"{which} set, {name}: {count} windows for {dim} dimensions; below {_FEW_PER_DIMENSION * dim} the "
                "Frechet distance is mostly bias: trust the kernel distance and the matched column"
            )
        if groups < _FEW_GROUPS:
            found.append(f"{which} set: {groups} independent groups; intervals want {_FEW_GROUPS} or more")
    return found
