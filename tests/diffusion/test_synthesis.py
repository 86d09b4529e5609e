"""Paint and develop: one image, however it is cut, batched, tiled, mapped, stopped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.diffusion.synthesis import develop, paint, plan
from ssl_tilegen.errors import SettingError
from ssl_tilegen.geometry import Window
from tests.diffusion.toys import LocalToy, WindowToy, random_field

REGION = Window(0, 0, 38, 45)
LOCAL = SynthesisSettings(steps=4, guidance=1.5)
FEW = SynthesisSettings(steps=3, times=(1.0, 0.6, 0.3), update="renoise", guidance=1.0)
MODELS = {"local": LocalToy(), "window": WindowToy()}


def pixels(model, canvas, **how) -> np.ndarray:
    return np.concatenate(list(develop(model, canvas, **how)))


def core(canvas) -> torch.Tensor:
    return canvas[canvas.core]


@pytest.mark.parametrize("update", ["ddim", "dpmpp_2m", "ancestral", "renoise"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("merge", ["auto", "shift", "average"])
def test_batch_budget_and_mapping_do_not_change_the_picture(kind, merge, update, tmp_path):
    model, field = MODELS[kind], random_field()
    settings = replace(LOCAL, merge=merge, update=update)
    image = core(paint(model, field, REGION, settings))
    again = paint(model, field, REGION, replace(settings, batch=3, call_lat=2000, canvas_mib=1), scratch=tmp_path)
    torch.testing.assert_close(core(again), image, rtol=1e-4, atol=1e-4)
    other = core(paint(model, field, REGION, replace(settings, seed=1)))
    assert (other - image).abs().mean() > 0.1


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("region", [Window(0, 0, 1, 1), Window(-3, 90, 5, 3), Window(7, 9, 17, 23)])
def test_any_region_is_painted_and_developed_whole(kind, region):
    model = MODELS[kind]
    canvas = paint(model, random_field(), region, LOCAL)
    image = pixels(model, canvas)
    assert image.shape == (region.rows * 8, region.cols * 8, 3) and image.dtype == np.uint8
    assert torch.isfinite(canvas.data).all() and image.std() > 1


def test_two_regions_agree_where_their_margins_reach():
    """A local model of reach 8 and 4 steps: beyond 4 x 8 latents from a region's edge nothing differs."""
    model, field, settings = LocalToy(), random_field(), replace(LOCAL, bleed_lat=32)
    left, right = Window(0, 0, 24, 24), Window(0, 24, 24, 24)
    whole = core(paint(model, field, Window(0, 0, 24, 48), settings))
    parts = [core(paint(model, field, region, settings)) for region in (left, right)]
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=1e-4, atol=1e-4)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("how", [LOCAL, FEW], ids=["many steps", "few steps"])
def test_a_stopped_painting_goes_on_to_the_same_bits(kind, how, tmp_path):
    model, field, file = MODELS[kind], random_field(), tmp_path / "state"

    def stop(done, total):
        if done >= total - 1:
            raise StoppedError

    straight = paint(model, field, REGION, how)
    with pytest.raises(StoppedError):
        paint(model, field, REGION, how, state_file=file, progress=stop)
    steps = []
    resumed = paint(model, field, REGION, how, state_file=file, progress=lambda done, total: steps.append(done))
    assert torch.equal(resumed.data, straight.data) and min(steps) > how.steps - 2
    fresh = paint(model, field, REGION, replace(how, seed=9), state_file=file)
    assert not torch.equal(fresh.data, straight.data)


@pytest.mark.parametrize("how", [replace(LOCAL, steps=10, seed=3), replace(FEW, seed=3)])
def test_repainting_keeps_more_of_the_source_the_weaker_it_is(how):
    model, field = LocalToy(), random_field()
    source = paint(model, field, REGION, LOCAL)
    distances = [
        (core(paint(model, field, REGION, how, source=lambda w: source[w], strength=strength)) - core(source))
        .abs().mean()
        for strength in (0.1, 0.5, 1.0)
    ]  # fmt: skip
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("how", [{"band_lat": 1}, {"band_lat": 7, "call_lat": 300}, {"call_lat": 1}])
def test_exact_bands_equal_one_decoding(how):
    model = LocalToy()
    canvas = paint(model, random_field(), REGION, LOCAL)
    whole = model.decode(canvas.data[None])[0]
    top, left = ((canvas.core.row - canvas.window.row) * 8, (canvas.core.col - canvas.window.col) * 8)
    kept = whole[:, top : top + REGION.rows * 8, left : left + REGION.cols * 8]
    expected = ((kept + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy()
    assert np.abs(pixels(model, canvas, **how) - expected).max() <= 1


def test_blended_bands_of_a_decoder_without_edges_equal_one_decoding():
    """Where windows agree, blending changes nothing; batches change nothing anywhere."""

    class Plain(WindowToy):
        def decode(self, latents):
            return torch.tanh(latents[:, :3]).repeat_interleave(8, 2).repeat_interleave(8, 3)

    model = Plain()
    canvas = paint(model, random_field(), REGION, LOCAL)
    expected = ((model.decode(core(canvas)[None])[0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(pixels(model, canvas) - expected).max() <= 1
    one, five = (pixels(WindowToy(), canvas, batch=batch).astype(int) for batch in (1, 5))
    assert np.abs(one - five).max() <= 1


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("merge", ["auto", "average"])
def test_the_plan_is_what_happens(kind, merge):
    class Counted(type(MODELS[kind])):
        calls, latents = 0, 0

        def predict(self, x, t, cond):
            Counted.calls, Counted.latents = Counted.calls + 1, Counted.latents + x[:, 0].numel()
            return super().predict(x, t, cond)

    settings = replace(LOCAL, merge=merge, batch=4, call_lat=1500)
    planned = plan(Counted(), random_field(), REGION, settings)
    paint(Counted(), random_field(), REGION, settings)
    assert (planned.network_calls, planned.network_latents) == (Counted.calls, Counted.latents)


def test_progress_of_developing_reaches_the_end():
    seen: list[tuple[float, float]] = []
    list(develop(LocalToy(), paint(LocalToy(), random_field(), REGION, LOCAL), lambda *p: seen.append(p), band_lat=16))
    assert [done for done, _ in seen] == [0, 128, 256, 304] and seen[-1] == (304, 304)


@pytest.mark.parametrize("bad", [{"overlap": 1.0}, {"merge": "glue"}, {"batch": 0}, {"times": (0.5,)}])
def test_bad_settings_are_named(bad):
    with pytest.raises(SettingError, match=next(iter(bad))):
        SynthesisSettings(**bad)


def test_a_window_model_cannot_be_one_convolution():
    with pytest.raises(SettingError, match="local"):
        paint(WindowToy(), random_field(), REGION, replace(LOCAL, merge="whole"))
