"""The condition field: exact at cells, spherical between, tame everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ssl_tilegen.diffusion.field import ConditionField, fill_invalid
from ssl_tilegen.diffusion.slerp import slerp
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Window
from tests.diffusion.toys import random_field

vectors = arrays(np.float32, 5, elements=st.floats(-10, 10, width=32))


def slow_slerp(a: np.ndarray, b: np.ndarray, w: float) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    la, lb = np.linalg.norm(a), np.linalg.norm(b)
    angle = np.arccos(np.clip(a @ b / (la * lb), -1, 1))
    arc = (np.sin((1 - w) * angle) * a / la + np.sin(w * angle) * b / lb) / np.sin(angle)
    return arc * ((1 - w) * la + w * lb)


def slow_sample(field: ConditionField, row: float, col: float) -> np.ndarray:
    cells = field.embedding.numpy()
    r = min(max((row - field.origin[0]) / field.spacing[0], 0), len(cells) - 1)
    c = min(max((col - field.origin[1]) / field.spacing[1], 0), len(cells[0]) - 1)
    i, j = min(int(r), len(cells) - 2), min(int(c), len(cells[0]) - 2)
    along = [slow_slerp(cells[k, j], cells[k, j + 1], c - j) for k in (i, i + 1)]
    return slow_slerp(along[0], along[1], r - i)


@settings(max_examples=200, deadline=None)
@given(a=vectors, b=vectors, w=st.floats(0, 1, width=32))
def test_slerp_never_breaks(a, b, w):
    out = slerp(torch.tensor(a), torch.tensor(b), torch.tensor(w)).numpy()
    longest = max(np.linalg.norm(a), np.linalg.norm(b))
    assert np.isfinite(out).all() and np.linalg.norm(out) <= longest * 1.001 + 1e-6


@pytest.mark.parametrize(("a", "b", "w", "expected"), [
    ([1, 0], [0, 1], 0.5, [0.5**0.5, 0.5**0.5]),
    ([1, 0], [0, 3], 0.5, [2 * 0.5**0.5, 2 * 0.5**0.5]),  # length linear
    ([2, 0], [4, 0], 0.25, [2.5, 0]),  # parallel
    ([0, 0], [4, 0], 0.25, [1, 0]),  # from nothing
    ([4, 0], [0, 0], 0.25, [3, 0]),
    ([0, 0], [0, 0], 0.5, [0, 0]),
    ([1, 0], [-1, 0], 0.0, [1, 0]),  # opposite
    ([1, 0], [-1, 0], 1.0, [-1, 0]),
])  # fmt: skip
def test_slerp_table(a, b, w, expected):
    out = slerp(torch.tensor(a).float(), torch.tensor(b).float(), torch.tensor(w))
    torch.testing.assert_close(out, torch.tensor(expected).float(), atol=1e-6, rtol=1e-6)


def test_field_is_the_cell_at_its_centre():
    field = random_field()
    at = field.sample([4, 12, 36], [4, 44])  # cells of 8 latents
    torch.testing.assert_close(at[:, 1, 1], field.embedding[1, 5])
    torch.testing.assert_close(at[:, 2, 0], field.embedding[4, 0])


def test_sample_and_vectors_equal_a_slow_reference():
    field, places = random_field(), np.random.default_rng(1).uniform(-20, 70, (60, 2))
    expected = np.stack([slow_sample(field, *place) for place in places])
    np.testing.assert_allclose(field.vectors(places).numpy(), expected, atol=2e-4)
    grid = field.sample(places[:8, 0], places[:9, 1]).numpy()
    for i in range(8):
        for j in range(9):
            np.testing.assert_allclose(grid[:, i, j], slow_sample(field, places[i, 0], places[j, 1]), atol=2e-4)


@given(row=st.integers(-9, 9), col=st.integers(-9, 9), cut=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_a_window_split_samples_the_same_bits(row, col, cut):
    field = random_field()
    whole = field.sample_window(Window(row * 4, col * 4, 24, 20), 4)
    top = field.sample_window(Window(row * 4, col * 4, cut * 4, 20), 4)
    assert torch.equal(whole[:, :cut], top)


def test_crop_moves_and_stretch_spreads():
    cells = np.random.default_rng(0).normal(size=(3, 3, 4))
    placed = dict(tile_px=64, stride_px=32, factor=8)
    crop = ConditionField.of_grid(cells, **placed, corner_px=(16, 40))
    assert crop.origin == (2, -1) and crop.spacing == (4, 4)
    wide = ConditionField.of_grid(cells, **placed, stretch=(2, 4))
    assert wide.origin == (8, 16) and wide.spacing == (8, 16)


def test_one_cell_is_the_same_everywhere():
    field = random_field(1, 1)
    assert (field.sample([-5, 3, 90], [0, 50]) == field.embedding[0, 0][:, None, None]).all()


def test_invalid_cells_take_their_nearest_valid_neighbour():
    cells = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    valid = np.ones((3, 4), bool)
    valid[0, :2] = False
    filled = fill_invalid(np.where(valid[..., None], cells, np.nan).astype(np.float32), valid)
    assert filled[0, 0, 0] == 4 and filled[0, 1, 0] in (2, 5) and np.isfinite(filled).all()
    with pytest.raises(InputError, match="no valid cell"):
        fill_invalid(cells, np.zeros((3, 4), bool))


def test_blank_only_where_every_cell_with_a_say_is_blank():
    blank = np.zeros((5, 6), bool)
    blank[:, :3] = True  # centres at columns 4, 12, 20 (latents); the next, 28, is tissue
    field = random_field(blank=blank)
    assert field.is_blank(Window(0, -8, 40, 28)) and not field.is_blank(Window(0, 0, 40, 21))
    assert field.blank_blocks(Window(0, 0, 40, 48), 8).all(0).tolist() == [True, True, False, False, False, False]
    assert field.blank_blocks(Window(0, 0, 40, 48), 4).all(0).tolist() == [True] * 5 + [False] * 7
