"""The schedule, the guided estimate and the tiled denoiser that a model and its settings ask for, and their windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ssl_tilegen.diffusion.coarse_latents import condition_while
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.guidance import CleanOf, guided
from ssl_tilegen.diffusion.parameterization import to_clean
from ssl_tilegen.diffusion.protocols import Model
from ssl_tilegen.diffusion.schedule import Schedule, Step
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.diffusion.steppers import stepper_named
from ssl_tilegen.diffusion.tiled_denoise import LocalTiledDenoiser, TiledDenoiser, WindowTiledDenoiser
from ssl_tilegen.diffusion.windows import WindowsAt, overlapping, shifting
from ssl_tilegen.errors import SettingError
from ssl_tilegen.geometry import Window


def schedule_of(model: Model, settings: SynthesisSettings, strength: float | None = None) -> Schedule:
    """The noise schedule of these settings; with ``strength`` its tail, to repaint latents that exist.

    A few-step model begins at the noise fraction ``strength`` itself, others at the nearest of their levels.
    """
    config, start = dict(model.scheduler_config), 1.0 if strength is None else strength
    config = settings.recipe.scheduler(config) if settings.recipe else config
    if settings.times:
        return Schedule.at_times(config, settings.times, settings.steps, start)
    schedule = Schedule.from_config(config, settings.steps)
    schedule = schedule if strength is None else schedule.tail(strength)
    return schedule.starting_twice() if stepper_named(settings.update).starts_twice else schedule


def tiled_denoiser(model: Model, field: ConditionField, canvas: Window, settings: SynthesisSettings,
               background: Tensor | None = None, area: Window | None = None) -> TiledDenoiser:  # fmt: skip
    """The tiled denoiser over ``canvas``, or its ``area`` alone, that the settings ask for and the model allows."""
    clean_of = guided_estimate(model, field.dim, settings)
    merge = merge_of(model, settings)
    if merge == "whole":
        condition = _field_of(model, field, settings.layout)
        align = model.conditioning.quantum_lat
        return LocalTiledDenoiser(clean_of, condition, canvas, model.halo_lat, align, settings.call_lat, background,
                          field.blank_blocks, area)  # fmt: skip
    windows_at = _windows_at(model, canvas, merge, settings)
    conditions = _conditions_of(model, field, settings.layout)
    return WindowTiledDenoiser(clean_of, conditions, windows_at, settings.batch, background, field.is_blank, area)


def clean_estimator(model: Model) -> CleanOf:
    """The model's clean estimate in float32 on its own device, whatever it was trained to predict."""
    convert = to_clean(model.prediction_type)

    def clean_of(x: Tensor, cond: Tensor | None, step: Step) -> Tensor:
        x = x.to(model.device)
        t = torch.full((len(x),), step.t, device=model.device)
        raw = model.predict(x, t, None if cond is None else cond.to(model.device))
        return convert(raw.float(), x, step)

    return clean_of


def guided_estimate(model: Model, dim: int, settings: SynthesisSettings) -> CleanOf:
    """``clean_estimator`` under guidance, with the layout as long as the settings say; ``dim`` of the vectors."""
    clean_of, layout_dim = clean_estimator(model), model.conditioning.layout_dim
    if settings.layout_above > 0 and layout_dim:
        clean_of = condition_while(clean_of, settings.layout_above, dim, layout_dim)
    return guided(clean_of, settings.guidance, settings.guidance_interval)


def with_bleed(model: Model, region: Window, settings: SynthesisSettings) -> Window:
    """``region`` with its bleed, aligned, and at least one window large where the merge works by windows."""
    window, least = region.grown(settings.bleed_lat), 1 if merge_of(model, settings) == "whole" else model.window_lat
    if settings.extent is not None:
        window = window.intersection(settings.extent.grown(min(settings.edge_lat, settings.bleed_lat))) or window
    rows, cols = max(0, least - window.rows), max(0, least - window.cols)
    window = Window(window.row - rows // 2, window.col - cols // 2, window.rows + rows, window.cols + cols)
    return window.aligned(model.conditioning.quantum_lat)


def merge_of(model: Model, settings: SynthesisSettings) -> str:
    """How windows are merged; ``auto`` is the model's best. SettingError where the model cannot merge so."""
    if settings.merge == "auto":
        return "whole" if model.conditioning.is_field else "shift"
    if settings.merge == "whole" and not model.conditioning.is_field:
        raise SettingError("merge 'whole' needs a local model, this one sees windows: use 'shift' or 'average'")
    return settings.merge


def _windows_at(model: Model, canvas: Window, merge: str, settings: SynthesisSettings) -> WindowsAt:
    side, step = model.window_lat, model.conditioning.quantum_lat
    hop = min(settings.recipe.hop_lat, side) if settings.recipe else round(side * (1 - settings.overlap))
    if merge == "average":
        return overlapping(canvas, side, max(step, hop // step * step), feather=settings.feather)
    return shifting(canvas, side, quantum=step, seed=settings.seed)


def _field_of(model: Model, field: ConditionField, layout: bool) -> Callable[[Window], Tensor]:
    """The condition of one window; the last one is kept, as a canvas of one tile asks for it at every step."""
    return lru_cache(maxsize=1)(lambda window: model.conditioning.sample(field, [window], layout=layout)[0])


def _conditions_of(model: Model, field: ConditionField, layout: bool) -> Callable[[Sequence[Window]], Tensor]:
    return lambda windows: model.conditioning.sample(field, windows, layout=layout)
