"""Sweeps: tiles equal the whole, merges equal a slow reference, and every place is denoised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.denoiser import clean_estimator, tiled_denoiser
from ssl_tilegen.diffusion.sampler import fill_with_noise
from ssl_tilegen.diffusion.schedule import Schedule
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.diffusion.tiled_denoise import LocalTiledDenoiser, WindowTiledDenoiser
from ssl_tilegen.diffusion.tiles import exact_tiles, live_tiles
from ssl_tilegen.diffusion.windows import hann, overlapping, shifting
from ssl_tilegen.geometry import Window
from tests.diffusion.toys import FLOW, LocalToy, WindowToy, random_field

SIDE = 8
STEP = Schedule.from_config(FLOW, 10).step(3)
canvases = st.builds(Window, st.integers(-30, 30), st.integers(-30, 30), st.integers(8, 40), st.integers(8, 40))


def noisy(window: Window, channels: int = 3) -> Canvas:
    x = Canvas(window, channels)
    fill_with_noise(x, seed=0)
    return x


def bent(x: torch.Tensor, cond: torch.Tensor | None, step) -> torch.Tensor:
    """A denoiser that treats every place of a window differently."""
    ramp = torch.arange(x.shape[-1]).float()
    shift = 0 if cond is None else cond[:, :3, None, None]
    return x * (1 + 0.1 * ramp + 0.01 * ramp[:, None]) + x.mean((2, 3), keepdim=True) + shift


def slow_merge(x: Canvas, field, corners: list[tuple[int, int]], weight: np.ndarray) -> np.ndarray:
    """One window at a time, a canvas of weights, one division at the end."""
    top, left = x.window.row, x.window.col
    sums, weights = np.zeros(x.data.shape), np.zeros(x.data.shape[1:])
    vectors = field.vectors([(row + SIDE / 2, col + SIDE / 2) for row, col in corners])
    for (row, col), cond in zip(corners, vectors, strict=True):
        place = (slice(row - top, row - top + SIDE), slice(col - left, col - left + SIDE))
        sums[:, *place] += weight * bent(x.data[None, :, *place], cond[None], STEP)[0].double().numpy()
        weights[place] += weight
    assert (weights > 0).all(), "a place was left undenoised"
    return sums / weights


def slow_corners(start: int, length: int, stride: int, offset: int) -> list[int]:
    """Every lattice window that meets the axis, pushed inside."""
    all_of = (offset + k * stride for k in range(-30, 31))
    meets = (at for at in all_of if start < at + stride and at < start + length)
    return sorted({min(max(at, start), start + length - SIDE) for at in meets})


@settings(max_examples=40, deadline=None)
@given(canvas=canvases, stride=st.integers(1, 8), feather=st.booleans(), batch=st.integers(1, 7))
def test_average_equals_the_slow_reference(canvas, stride, feather, batch):
    field, x = random_field(), noisy(canvas)
    windows_at, out = overlapping(canvas, SIDE, stride, feather=feather), x.like()
    WindowTiledDenoiser(bent, centre_vectors(field), windows_at, batch)(x, STEP, out)
    corners = [(weighted.window.row, weighted.window.col) for weighted in windows_at(STEP)]
    rows, cols = ({corner[k] for corner in corners} for k in (0, 1))
    assert set(slow_corners(canvas.row, canvas.rows, stride, 0)) <= rows
    assert set(slow_corners(canvas.col, canvas.cols, stride, 0)) <= cols
    profile = hann(SIDE).numpy() if feather else np.ones(SIDE)
    expected = slow_merge(x, field, corners, np.outer(profile, profile))
    np.testing.assert_allclose(out.data.numpy(), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(canvas=canvases, seed=st.integers(0, 99), batch=st.integers(1, 7))
def test_shift_equals_the_slow_reference_at_the_cost_of_one_pass(canvas, seed, batch):
    field, x = random_field(), noisy(canvas)
    windows_at, out = shifting(canvas, SIDE, seed=seed), x.like()
    WindowTiledDenoiser(bent, centre_vectors(field), windows_at, batch)(x, STEP, out)
    corners = [(weighted.window.row, weighted.window.col) for weighted in windows_at(STEP)]
    expected = slow_merge(x, field, corners, np.ones((SIDE, SIDE)))
    np.testing.assert_allclose(out.data.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert len(corners) <= (-(-canvas.rows // SIDE) + 1) * (-(-canvas.cols // SIDE) + 1)


def centre_vectors(field):
    return lambda windows: field.vectors([(w.row + SIDE / 2, w.col + SIDE / 2) for w in windows])


def test_shifted_lattices_move_in_both_axes_and_agree_between_regions():
    here, there = Window(0, 0, 64, 64), Window(16, 24, 64, 64)
    inside_both, seen = Window(24, 32, 32, 24), set()
    for step in Schedule.from_config(FLOW, 10).steps():
        left, right = (
            {weighted.window for weighted in shifting(canvas, SIDE, seed=3)(step)} for canvas in (here, there)
        )
        shared = {window for window in left if inside_both.contains(window)}
        assert shared and shared <= right
        seen |= {(window.row % SIDE, window.col % SIDE) for window in shared}
    assert len({row for row, _ in seen}) > 3 and len({col for _, col in seen}) > 3


def test_published_algorithm_counts_its_169_windows():
    assert len(overlapping(Window(0, 0, 256, 256), 64, 16, feather=False)(STEP)) == 169


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 30), cols=st.integers(2, 30), row=st.integers(-4, 4), col=st.integers(-4, 4),
    budget=st.integers(1, 3000),
)  # fmt: skip
def test_local_tiles_equal_the_whole(rows, cols, row, col, budget):
    canvas = Window(4 * row, 4 * col, 4 * rows, 4 * cols)
    field, x = random_field(), noisy(canvas)
    whole, tiled = x.like(), x.like()
    for out, call_lat in ((whole, canvas.size.area), (tiled, budget)):
        tiled_denoiser(LocalToy(), field, canvas, SynthesisSettings(call_lat=call_lat, guidance=1.5))(x, STEP, out)
    torch.testing.assert_close(tiled.data, whole.data, rtol=1e-5, atol=1e-5)


def test_a_halo_that_is_too_small_is_noticed():
    """The test above can fail."""
    canvas = Window(0, 0, 64, 64)
    x, field = noisy(canvas), random_field()
    whole, tiled = x.like(), x.like()
    for out, budget in ((whole, 64 * 64), (tiled, 1200)):
        model = LocalToy(halo_lat=2)
        tiled_denoiser(model, field, canvas, SynthesisSettings(call_lat=budget))(x, STEP, out)
    assert (tiled.data - whole.data).abs().max() > 1e-3


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 90), cols=st.integers(1, 90), halo=st.integers(0, 9), align=st.sampled_from([1, 2, 4]),
    budget=st.integers(1, 5000),
)  # fmt: skip
def test_tiles_cover_once_with_their_halo_within_the_budget(rows, cols, halo, align, budget):
    outer = Window(-align * 3, align * 5, rows * align, cols * align)
    seen = np.zeros((outer.rows, outer.cols), int)
    for tile in exact_tiles(outer, outer, halo=halo, align=align, budget=budget):
        seen[tile.core.within(outer).slices] += 1
        assert tile.padded.contains(tile.core.grown(halo).intersection(outer)) and outer.contains(tile.padded)
        assert tile.padded.row % align == 0 == tile.padded.col % align
        least = (4 * halo + align) ** 2
        assert (
            tile.padded.size.area <= max(budget, least) * 1.01 + 2 * align * (tile.padded.rows + tile.padded.cols) + 9
        )
    assert (seen == 1).all()


class Counting:
    """Passes calls on and counts the windows in them."""

    def __init__(self, clean_of):
        self.clean_of, self.windows, self.calls = clean_of, 0, 0

    def __call__(self, x, cond, step):
        self.windows, self.calls = self.windows + len(x), self.calls + 1
        return self.clean_of(x, cond, step)


BACKGROUND = torch.tensor([3.0, -2.0, 1.0])


def half_blank():
    blank = np.ones((8, 8), bool)
    blank[:2] = False  # tissue in the top quarter of 64 x 64 latents
    return random_field(8, 8, blank=blank)


@pytest.mark.parametrize("windows_at", [
    overlapping(Window(0, 0, 64, 64), SIDE, 4, feather=True), shifting(Window(0, 0, 64, 64), SIDE, seed=1),
])  # fmt: skip
def test_blank_windows_cost_nothing_and_become_glass(windows_at):
    field, x = half_blank(), noisy(Window(0, 0, 64, 64))
    clean_of, out = Counting(bent), x.like()
    denoise = WindowTiledDenoiser(clean_of, centre_vectors(field), windows_at, 4, BACKGROUND, field.is_blank)
    denoise(x, STEP, out)
    assert denoise.load(STEP) == (clean_of.calls, clean_of.windows * SIDE * SIDE)
    assert clean_of.windows < len(windows_at(STEP)) / 2
    torch.testing.assert_close(out.data[:, 40:], BACKGROUND[:, None, None].expand(3, 24, 64))
    full = x.like()
    WindowTiledDenoiser(bent, centre_vectors(field), windows_at, 4)(x, STEP, full)
    torch.testing.assert_close(out.data[:, :16], full.data[:, :16])  # tissue is always denoised


@pytest.mark.parametrize("budget", [64 * 64, 30 * 30])
def test_blank_tiles_cost_nothing_and_blank_ground_becomes_glass_whatever_the_tiles(budget):
    field, canvas, model = half_blank(), Window(0, 0, 64, 64), LocalToy(halo_lat=8)
    clean_of, x = Counting(clean_estimator(model)), noisy(canvas)
    condition, out = lambda w: field.sample_window(w, 4), x.like()
    denoise = LocalTiledDenoiser(clean_of, condition, canvas, 8, 4, budget, BACKGROUND, field.blank_blocks)
    denoise(x, STEP, out)
    whole = x.like()
    LocalTiledDenoiser(clean_estimator(model), condition, canvas, 8, 4, 64 * 64)(x, STEP, whole)
    rows, cols = range(-8, 72, 4), range(-8, 72, 4)
    blank = np.array([[field.is_blank(Window(row, col, 4, 4)) for col in cols] for row in rows])
    mean = np.array([[blank[i : i + 5, j : j + 5].mean() for j in range(16)] for i in range(16)])
    share = torch.from_numpy(np.kron((2 * mean - 1).clip(0, 1), np.ones((4, 4))).astype(np.float32))
    assert ((share > 0) & (share < 1)).any() and (share == 1).any() and (share == 0).any()
    torch.testing.assert_close(out.data, whole.data.lerp(BACKGROUND[:, None, None], share), rtol=1e-4, atol=1e-4)
    assert denoise.load(STEP)[0] == clean_of.calls and denoise.tiles[1]
    assert (out.data[:, 40:] == BACKGROUND[:, None, None]).all()


def test_without_blank_ground_there_is_one_tile():
    area = Window(0, 0, 64, 64)
    all_live = lambda w: np.ones((w.size.ceil_div(4).rows, w.size.ceil_div(4).cols), bool)  # noqa: E731
    live, ground = live_tiles(area, area, halo=4, align=4, budget=10_000, live_blocks=all_live)
    assert len(live) == 1 and not ground


sides, budgets = st.integers(5, 90), st.sampled_from([400, 2000, 10**5])


@given(st.integers(0, 10_000), sides, sides, st.integers(1, 4), budgets)
@example(502, 9, 45, 3, 2000)  # at an edge the halo of the whole is shorter than that of its parts
@settings(deadline=None)
def test_live_tiles_hold_all_live_ground_once_and_compute_no_more_than_all(seed, rows, cols, weighted_windows, budget):
    rng, area, outer = np.random.default_rng(seed), Window(-8, 4, rows, cols), Window(-8, 4, rows + 7, cols)
    blocks = area.size.ceil_div(4)
    mask = np.zeros((blocks.rows, blocks.cols), bool)
    for _ in range(weighted_windows):
        row, col = rng.integers(0, blocks.rows), rng.integers(0, blocks.cols)
        mask[row : row + rng.integers(1, 8), col : col + rng.integers(1, 8)] = True

    def live_blocks(window: Window) -> np.ndarray:
        first = (window.row - area.row) // 4, (window.col - area.col) // 4
        count = window.size.ceil_div(4)
        return mask[first[0] : first[0] + count.rows, first[1] : first[1] + count.cols]

    tiles, ground = live_tiles(area, outer, halo=6, align=4, budget=budget, live_blocks=live_blocks)
    times = np.zeros((rows, cols), int)
    for tile in tiles:
        assert area.contains(tile.core) and outer.contains(tile.padded)
        assert tile.padded == tile.core.grown(6).aligned(4).intersection(outer)
        times[tile.core.within(area).slices] += 1
    live = np.kron(mask, np.ones((4, 4), int))[:rows, :cols]
    assert times.max() == 1 and (times >= live).all()
    blank = times == 0
    for window in ground:
        blank[window.within(area).slices] = False
    assert not blank.any()  # what no tile answers for is said to be ground
    everything = exact_tiles(area, outer, halo=6, align=4, budget=budget)
    assert sum(t.padded.size.area for t in tiles) <= sum(t.padded.size.area for t in everything)


def test_two_far_islands_are_two_tiles():
    area, mask = Window(0, 0, 400, 400), np.zeros((100, 100), bool)
    mask[5:10, 5:10] = mask[80:95, 70:90] = True
    tiles, ground = live_tiles(area, area, halo=8, align=4, budget=10**6, live_blocks=lambda w: mask)
    assert [tile.core for tile in tiles] == [Window(20, 20, 20, 20), Window(320, 280, 60, 80)] and ground == [area]


def test_window_model_sees_only_its_windows():
    model, canvas = WindowToy(), Window(0, 0, 40, 33)
    x, field = noisy(canvas), random_field()
    for merge in ("shift", "average"):
        out = x.like()
        tiled_denoiser(model, field, canvas, SynthesisSettings(merge=merge))(x, STEP, out)
        assert (out.data != 0).all()
