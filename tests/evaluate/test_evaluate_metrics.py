"""Metrics of `evaluate` on sets whose answer is known, or against a slow obvious reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import sqrtm

from ssl_tilegen.metrics.copying import copying, share_nearer
from ssl_tilegen.metrics.distances import nearest, radii
from ssl_tilegen.metrics.fidelity import ssim
from ssl_tilegen.metrics.frechet import Moments, frechet_distance
from ssl_tilegen.metrics.kid import kernel_distance
from ssl_tilegen.metrics.manifold import manifold
from ssl_tilegen.metrics.probes import confusion, knn_probe, linear_probe, pick_groups, scores
from ssl_tilegen.metrics.resampling import group_halves, half_samples, interval
from ssl_tilegen.metrics.usefulness import LabelledSet, compare, made_from
from ssl_tilegen.metrics.vendi import vendi_score


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Frechet distance


def test_frechet_is_what_the_formula_says(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(300, 6)) + 1
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    slow = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(slow, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(slow, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_of_fewer_vectors_than_dimensions(rng: np.random.Generator) -> None:
    a = rng.normal(size=(10, 50))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(50 * 4)


def test_moments_in_batches_with_a_large_offset(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1000, 5)) + 1e7
    moments = Moments()
    for start in range(0, 1000, 37):
        moments.add(x[start : start + 37])
    assert moments.count == 1000
    np.testing.assert_allclose(moments.gaussian().covariance, np.cov((x - 1e7).T), rtol=1e-6)
    with pytest.raises(ValueError, match="two vectors"):
        Moments().add(x[:1]).gaussian()


# Kernel distance


def test_kernel_distance_against_all_pairs(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 0.5

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within = [np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    slow = sum(within) - 2 * np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(slow)


def test_kernel_distance_is_unbiased_for_small_sets(rng: np.random.Generator) -> None:
    values = [kernel_distance(rng.normal(size=(20, 8)), rng.normal(size=(10, 8))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    with pytest.raises(ValueError, match="two vectors"):
        kernel_distance(np.zeros((1, 8)), np.zeros((5, 8)))


# Manifolds, diversity, copies


def test_manifold_against_loops(rng: np.random.Generator) -> None:
    real, made, k = rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) * 1.3 + 0.4, 3

    def far(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.linalg.norm(x - y))

    r = [sorted(far(x, y) for y in real)[k] for x in real]
    m = [sorted(far(x, y) for y in made)[k] for x in made]
    found = manifold(real, made, k)
    assert found.precision == np.mean([any(far(x, y) <= b for y, b in zip(real, r, strict=True)) for x in made])
    assert found.recall == np.mean([any(far(x, y) <= b for y, b in zip(made, m, strict=True)) for x in real])
    assert found.density == pytest.approx(
        np.mean([sum(far(x, y) <= b for y, b in zip(real, r, strict=True)) for x in made]) / k
    )
    assert found.coverage == np.mean([any(far(x, y) <= b for x in made) for y, b in zip(real, r, strict=True)])


def test_balls_reach_other_groups() -> None:
    x = np.array([[0.0], [0.1], [5.0], [5.1], [9.0]])
    groups = np.array(["a", "a", "b", "b", "c"])
    np.testing.assert_allclose(radii(x, 1), [0.1, 0.1, 0.1, 0.1, 3.9], atol=1e-5)
    np.testing.assert_allclose(radii(x, 1, groups), [5.0, 4.9, 4.0, 3.9, 3.9], atol=1e-5)


def test_distances_keep_their_digits_far_from_the_origin(rng: np.random.Generator) -> None:
    x = (rng.normal(size=(50, 4)) + 1e4).astype(np.float32)
    distance, index = nearest(x, x)
    assert (index == np.arange(50)).all() and distance.max() < 1e-2


def test_vendi_counts_different_things(rng: np.random.Generator) -> None:
    assert vendi_score(np.ones((9, 4))) == pytest.approx(1)
    assert vendi_score(np.eye(6)) == pytest.approx(6)
    x = rng.normal(size=(30, 12))
    assert vendi_score(np.repeat(x, 3, axis=0)) == pytest.approx(vendi_score(x))


def test_copies_are_found_and_honest_samples_are_not(rng: np.random.Generator) -> None:
    train, held, fresh = (rng.normal(size=(n, 5)) for n in (500, 300, 300))
    honest = copying(fresh, held, train)
    assert 0.44 < honest.nearer < 0.56 and honest.suspects < 0.04
    copied = np.concatenate([fresh[:150], train[:150] + 1e-3])
    found = copying(copied, held, train)
    assert found.nearer > 0.7 and found.suspects == pytest.approx(0.5, abs=0.03)
    assert (found.neighbour[150:] == np.arange(150)).all()
    assert share_nearer(np.array([1.0, 2.0]), np.array([2.0])) == 0.75


def test_ssim_of_equal_and_of_noisy_images(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    assert ssim(image, image) == pytest.approx(1)
    assert ssim(image, rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)) < 0.2


# Intervals


def test_halves_share_no_group(rng: np.random.Generator) -> None:
    groups = np.repeat([f"g{i}" for i in range(9)], 7)
    for _ in range(20):
        a, b = group_halves(groups, rng)
        assert not set(groups[a]) & set(groups[b]) and len(a) + len(b) == 63 and abs(len(a) - len(b)) <= 7
    a, b = group_halves(np.array(["one"] * 10), rng)
    assert len(a) == len(b) == 5 and not set(a) & set(b)


def test_interval_of_a_mean_is_as_wide_as_theory_says(rng: np.random.Generator) -> None:
    """Items of a group are copies: the error of the mean is that of the groups, not of the items."""
    groups = np.repeat(np.arange(200), 5)
    x = np.repeat(rng.normal(size=200), 5)
    replicates = [float(x[index].mean()) for (index,) in half_samples([groups], 400)]
    found = interval(float(x.mean()), replicates)
    assert found.high - found.value == pytest.approx(1.96 / 200**0.5, rel=0.15)
    assert np.isnan(interval(1.0, [1.0]).low)
    assert interval(0.1, [0.0, 1.0], 0, 1)[1:] == (0, 1)


# Probes


def blobs(rng: np.random.Generator, n: int, apart: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    y = rng.integers(0, 3, n)
    return rng.normal(size=(n, 4)) + apart * np.eye(4)[y], y


def test_probes_tell_blobs_apart(rng: np.random.Generator) -> None:
    (x, y), (test, wanted) = blobs(rng, 300, 4.0), blobs(rng, 300, 4.0)
    for said in (linear_probe(x, y, test, 3), knn_probe(x, y, test, 3)):
        np.testing.assert_allclose(said.sum(1), 1)
        assert scores(said, wanted).accuracy > 0.95 and scores(said, wanted).auc > 0.98


def test_linear_probe_is_the_minimum(rng: np.random.Generator) -> None:
    """Weights of two equal halves are no weights, and a weight of two is the item twice."""
    x, y = blobs(rng, 60)
    twice = linear_probe(np.concatenate([x, x]), np.concatenate([y, y]), x, 3)
    np.testing.assert_allclose(linear_probe(x, y, x, 3), twice, atol=1e-4)


def test_groups_are_drawn_whole_and_nested() -> None:
    labels, groups = np.repeat([0, 1], 30), np.array([f"g{i // 3}" for i in range(30)] * 2)
    three, five = (pick_groups(groups, labels, n, 7) for n in (3, 5))
    assert three.sum() == 2 * 9 and five.sum() == 2 * 15 and (five | ~three).all()
    assert pick_groups(groups, labels, 0.5, 0).sum() == 30


def test_confusion_counts() -> None:
    assert confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist() == [[1, 1], [0, 1]]


# Usefulness


def make_task(rng: np.random.Generator) -> tuple[LabelledSet, LabelledSet, LabelledSet]:
    """Two classes, few real fields; synthetic images that are as good as real ones of the same fields."""

    def part(fields: int, copies: int, spread: float) -> LabelledSet:
        y = np.repeat([0, 1], fields * copies)
        groups = np.array([f"{c}/g{i // copies}" for c in (0, 1) for i in range(fields * copies)])
        return LabelledSet(rng.normal(size=(len(y), 8)) * spread + 0.8 * y[:, None], y, groups)

    return part(4, 1, 1.0), part(4, 40, 1.0), part(60, 2, 1.0)


def linear(train: LabelledSet, test: np.ndarray, classes: int, seed: int) -> np.ndarray:
    return linear_probe(train.x, train.y, test, classes)


def test_good_synthetic_images_give_a_gain_and_noise_does_not(rng: np.random.Generator) -> None:
    real, made, test = make_task(rng)
    outcome = compare(linear, real, made, test, 2, seeds=5, per_class=3)
    gain = outcome.gain("both", "real", rounds=200)
    assert gain.low > 0 and outcome.score("both").value > 0.8
    assert outcome.score("real").low < outcome.score("real").value < outcome.score("real").high
    assert outcome.sizes == {"real": 6, "synthetic": 240, "both": 246}
    assert outcome.confusion("both").sum() == 5 * len(test.y)
    noise = made._replace(x=rng.normal(size=made.x.shape))
    assert compare(linear, real, noise, test, 2, per_class=3).gain("both", "real", rounds=200).low < 0


def test_another_seed_takes_other_draws_and_other_intervals(rng: np.random.Generator) -> None:
    real, made, test = make_task(rng)
    asked: list[int] = []

    def learner(train: LabelledSet, x: np.ndarray, classes: int, seed: int) -> np.ndarray:
        asked.append(seed)
        return linear(train, x, classes, seed)

    plain, first, other, far = (compare(learner, real, made, test, 2, seeds=2, per_class=3, **how)
                                for how in ({}, {"seed": 0}, {"seed": 1}, {"seed": 1 << 64}))  # fmt: skip
    assert asked[:12] == 2 * [0, 0, 0, 1, 1, 1] and asked[12:18] == [2, 2, 2, 3, 3, 3]
    assert plain.score("both") == first.score("both") != other.score("both") and max(asked) < 1 << 64
    assert replace(first, seed=1).score("both").low != first.score("both").low
    assert far.score("both").value == first.score("both").value


def test_synthetic_images_of_fields_not_drawn_are_left_out(rng: np.random.Generator) -> None:
    real, made, test = make_task(rng)
    seen: list[LabelledSet] = []

    def learner(train: LabelledSet, x: np.ndarray, classes: int, seed: int) -> np.ndarray:
        seen.append(train)
        return linear(train, x, classes, seed)

    compare(learner, real, made, test, 2, seeds=3, per_class=2)
    for own, both in zip(seen[::3], seen[2::3], strict=True):
        assert set(both.groups) == set(own.groups) and len(set(own.groups)) == 4
    strange = made._replace(groups=np.array(["elsewhere"] * len(made.y)))
    assert made_from(strange, real, real).all()
