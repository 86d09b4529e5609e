"""The bars of the built-in model mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.bars import Patches, as_jpeg, coarse, distances, draw, nearness, sheet

RNG = np.random.default_rng(0)


def vectors(count: int, shift: float = 0.0) -> np.ndarray:
    return (RNG.normal(size=(count, 8)) + shift).astype(np.float32)


def test_copies_are_nearer_and_fresh_ones_are_not():
    pool, held, groups = vectors(400), vectors(200), np.arange(200)
    sources = {name: Patches(np.zeros((200, 1)), groups) for name in ("copied", "fresh")}
    seen = {"copied": {"generated": pool[:200] + 0.01}, "fresh": {"generated": vectors(200)}}
    copied, fresh = nearness("space", seen, sources, pool, held, groups)
    assert copied["nearer"][0] > 0.99
    assert fresh["nearer"][1] < 0.5 < fresh["nearer"][2]


def test_the_ratio_is_one_for_real_patches_and_grows_with_what_is_wrong():
    real, known, groups = vectors(600), vectors(600), np.arange(600)
    own = {"real": real, "generated": real + 0.5}
    first, second = distances("space", "train", own, groups, known, groups)
    assert first["ratio"][:2] == [1.0, 1.0] and first["to_own_source"] == 0
    assert second["ratio"][1] > 1.5 and second["to_own_source"] == pytest.approx(8 * 0.25, rel=1e-3)


def test_patches_are_the_same_for_the_same_seed_and_know_their_field(data_dir):
    drawn = [draw(data_dir, {"tiles/he/val/*/*.jpg": 1.0}, 6, 192, np.random.default_rng(3)) for _ in range(2)]
    assert np.array_equal(drawn[0].rgb, drawn[1].rgb) and drawn[0].rgb.shape == (6, 192, 192, 3)
    assert all(name.split("/")[0].startswith("g") for name in drawn[0].group)


def test_small_parts(tmp_path):
    images = RNG.integers(0, 255, (3, 16, 16, 3), np.uint8)
    assert coarse(images).shape == (3, 48)
    assert coarse(images)[0, 0] == pytest.approx(images[0, :4, :4, 0].mean() / 255, abs=1e-6)
    assert as_jpeg(images).shape == images.shape and not np.array_equal(as_jpeg(images), images)
    sheet([images, images], tmp_path / "pairs.png")
    assert (tmp_path / "pairs.png").exists()
