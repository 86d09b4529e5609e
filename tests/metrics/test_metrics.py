"""Laws of the metrics, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_tilegen.metrics.fidelity import psnr
from ssl_tilegen.metrics.retrieval import retrieval
from ssl_tilegen.metrics.seams import seam_score


def test_equal_cells_find_themselves():
    cells = np.random.default_rng(0).standard_normal((300, 16))
    found = retrieval(3 * cells, cells)
    assert (found.cosine, found.top1, found.top5, found.cells) == (pytest.approx(1, abs=1e-5), 1.0, 1.0, 300)


def test_unrelated_cells_are_found_by_chance_only():
    rng = np.random.default_rng(0)
    found = retrieval(rng.standard_normal((2000, 16)), rng.standard_normal((2000, 16)))
    assert abs(found.cosine) < 0.05 and found.top1 < 0.01


def test_a_swapped_pair_is_the_only_miss():
    cells = np.eye(10)
    swapped = cells[[1, 0, *range(2, 10)]]
    found = retrieval(swapped, cells)
    assert found.top1 == 0.8 and found.cosine == pytest.approx(0.8)


def test_retrieval_refuses_unequal_shapes():
    with pytest.raises(ValueError, match="equal arrays"):
        retrieval(np.zeros((2, 3)), np.zeros((3, 3)))


def test_the_seam_score_is_one_on_noise_and_large_on_tiles():
    rng = np.random.default_rng(0)
    assert seam_score(rng.random((512, 512, 3)), 64) == pytest.approx(1, abs=0.03)
    tiles = np.kron(rng.random((8, 8)), np.ones((64, 64)))
    assert seam_score(tiles, 64) == float("inf")
    assert seam_score(tiles + rng.random((512, 512)) / 10, 64) > 3
    assert seam_score(np.zeros((128, 128)), 64) == 1.0


def test_psnr_of_known_errors():
    image = np.zeros((4, 4))
    assert psnr(image, image) == float("inf")
    assert psnr(image, image + 25.5) == pytest.approx(20)
