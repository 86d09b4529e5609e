"""Many small images of one size painted together: one stack of canvases, one network call for all of them.

An image comes out as ``synthesis.paint`` would make it alone (up to the rounding of the chip): its noise is addressed
by its own seed and its place in itself. So it depends neither on its neighbours in the stack nor on their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.diffusion.decoding import to_uint8
from ssl_tilegen.diffusion.denoiser import guided_estimate, schedule_of, with_bleed
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.noise import addressed_noise
from ssl_tilegen.diffusion.protocols import Model
from ssl_tilegen.diffusion.sampler import Noise
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.diffusion.stack import sample_stack
from ssl_tilegen.diffusion.steppers import stepper_named
from ssl_tilegen.diffusion.synthesis import paint
from ssl_tilegen.geometry import Size, Window


def frame(model: Model, size_px: Size, settings: SynthesisSettings) -> tuple[Window, Window]:
    """The latents that cover an image whose corner is at (0, 0), and those painted: with the bleed around it."""
    region = Window.of(size_px.ceil_div(model.factor))
    return region, with_bleed(model, region, replace(settings, extent=None))


@torch.no_grad()
def paint_stack(
    model: Model,
    fields: Sequence[ConditionField],
    size_px: Size,
    seeds: Sequence[int],
    settings: SynthesisSettings,
    *,
    sources: Tensor | None = None,
    strength: float = 1.0,
    tick: Callable[[float], None] = lambda part: None,
) -> Tensor:
    """Clean latents (N, C, rows, cols) of the painted window of ``frame``, one image per field and seed.

    ``sources`` (N, C, rows, cols) are existing clean latents of that window, of which ``strength`` is repainted.
    Working memory: one network call of the whole stack. Models that see windows paint image after image.
    """
    settings = replace(settings, extent=None)
    region, window = frame(model, size_px, settings)
    if not model.conditioning.is_field:
        return _one_by_one(model, fields, region, seeds, settings, sources, strength, tick)
    update, schedule = (
        stepper_named(settings.update),
        schedule_of(model, settings, None if sources is None else strength),
    )
    clean_of = guided_estimate(model, fields[0].dim, settings)
    condition = torch.cat(
        [model.conditioning.sample(f.to(model.device), [window], layout=settings.layout) for f in fields]
    )
    noise = _noise_of(model, seeds)
    x = noise(window, 0)
    if sources is not None:
        x = float(schedule.alpha[0]) * sources.to(x) + float(schedule.sigma[0]) * x
    follow = lambda done, total: tick(done / total)  # noqa: E731
    return sample_stack(x, schedule, clean_of, condition, update, window=window, noise=noise, progress=follow)


@torch.no_grad()
def develop_stack(model: Model, latents: Tensor, size_px: Size, settings: SynthesisSettings) -> np.ndarray:
    """Latents (N, C, rows, cols) of ``paint_stack`` -> the images, uint8 (N, H, W, 3)."""
    region, window = frame(model, size_px, settings)
    rows, cols = region.within(window).scaled(model.factor).slices
    pixels = model.decode(latents.to(model.device))[:, :, rows, cols]
    return np.stack([to_uint8(image)[: size_px.rows, : size_px.cols] for image in pixels])


def _noise_of(model: Model, seeds: Sequence[int]) -> Noise:
    """The noise (N, C, rows, cols) of images, each by its own seed."""

    def noise(window: Window, stream: int) -> Tensor:
        of_each = [addressed_noise(window, model.latent_channels, seed, stream) for seed in seeds]
        return torch.from_numpy(np.stack(of_each)).to(model.device)

    return noise


def _one_by_one(
    model: Model,
    fields: Sequence[ConditionField],
    region: Window,
    seeds: Sequence[int],
    settings: SynthesisSettings,
    sources: Tensor | None,
    strength: float,
    tick: Callable[[float], None],
) -> Tensor:
    painted = []
    window = with_bleed(model, region, settings)
    for index, (field, seed) in enumerate(zip(fields, seeds, strict=True)):
        how = replace(settings, seed=seed)
        source = None if sources is None else (lambda part, own=sources[index]: own[:, *part.within(window).slices])
        canvas = paint(model, field, region, how, source=source, strength=strength)
        painted.append(canvas[window])
        tick((index + 1) / len(fields))
    return torch.stack(painted)
