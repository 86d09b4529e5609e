"""Paint and develop: a condition field becomes a latent canvas, a latent canvas becomes pixels.

Shared by every command that makes images. Everything is placed on a virtual canvas by absolute windows in latents, so
any region of it can be made alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.checkpoint import load_state, save_state
from ssl_tilegen.diffusion.decoding import Band, blended_bands, exact_bands
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.guidance import CleanOf, acts, guided
from ssl_tilegen.diffusion.ladder import Ladder, Step
from ssl_tilegen.diffusion.lattices import LatticeOf, overlapping, settling, shifting
from ssl_tilegen.diffusion.prediction import to_clean
from ssl_tilegen.diffusion.protocols import Model, Progress
from ssl_tilegen.diffusion.sampler import State, add_noise, fill_with_noise, run
from ssl_tilegen.diffusion.sweep import LocalSweep, Sweep, WindowSweep
from ssl_tilegen.diffusion.updates import update_named
from ssl_tilegen.errors import SettingError
from ssl_tilegen.geometry import Window


@dataclass(frozen=True, slots=True)
class SynthesisSettings:
    """How to sample. Lengths are in latents; what only bounds memory or speed stands last.

    ``merge``: ``whole`` (one convolution, local models), ``shift``, ``average``, or ``auto`` for the model's best;
    the last ``settle`` steps of ``shift`` are averaged. ``overlap`` and ``feather`` shape the averaging:
    0.75 without feather is the published algorithm. Without ``layout`` a model that knows content from layout is told
    the content alone. A region gets a bleed of ``bleed_lat``, which is thrown away;
    beyond the edges of ``extent`` (the virtual canvas, if it ends anywhere) at most ``edge_lat`` of it.
    """

    steps: int = 24
    update: str = "dpmpp_2m"
    guidance: float = 1.5
    guidance_interval: tuple[float, float] = (0.2, 0.8)
    merge: Literal["auto", "whole", "shift", "average"] = "auto"
    overlap: float = 0.5
    feather: bool = True
    settle: int = 0
    layout: bool = True
    seed: int = 0
    bleed_lat: int = 8
    edge_lat: int = 8
    extent: Window | None = None
    batch: int = 16
    call_lat: int = 300_000
    canvas_mib: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise SettingError(f"overlap must lie in [0, 1), got {self.overlap:g}")
        if self.merge not in ("auto", "whole", "shift", "average"):
            raise SettingError(f"unknown merge {self.merge!r}; known: auto, whole, shift, average")
        for name in ("batch", "call_lat", "canvas_mib"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What painting a region will take: exact counts, before anything runs."""

    canvas: Window
    steps: int
    network_calls: int
    network_latents: int
    canvas_bytes: int
    mapped: bool


def plan(model: Model, field: ConditionField, region: Window, settings: SynthesisSettings,
         glass: Tensor | None = None) -> Plan:  # fmt: skip
    """The cost of ``paint`` with the same arguments."""
    window = with_bleed(model, region, settings)
    ladder = Ladder.from_config(model.scheduler_config, settings.steps)
    sweep = make_sweep(model, field, window, settings, glass)
    loads = [
        (sweep.load(step), 1 + acts(settings.guidance, settings.guidance_interval, step)) for step in ladder.steps()
    ]
    need = _canvas_bytes(model, window, settings)
    return Plan(
        canvas=window,
        steps=len(ladder),
        network_calls=sum(calls * passes for (calls, _), passes in loads),
        network_latents=sum(latents * passes for (_, latents), passes in loads),
        canvas_bytes=need,
        mapped=need > settings.canvas_mib << 20,
    )


@torch.no_grad()
def paint(
    model: Model,
    field: ConditionField,
    region: Window,
    settings: SynthesisSettings,
    *,
    progress: Progress = lambda done, total: None,
    source: Callable[[Window], Tensor] | None = None,
    strength: float = 1.0,
    glass: Tensor | None = None,
    scratch: Path | None = None,
    state_file: Path | None = None,
    key: str = "",
) -> Canvas:
    """Clean latents of ``region`` (absolute, in latents), with a bleed around it; ``canvas.core`` is the region.

    ``source`` gives existing clean latents (C, rows, cols) of any window of the region and its bleed (``with_bleed``),
    of which only ``strength`` is repainted. ``glass`` (C,) is what blank ground looks like; with it, blank ground costs
    no network call. Canvases beyond ``canvas_mib`` are mapped to files in the folder ``scratch``, if one is given. With
    ``state_file`` a stopped run goes on where it was; ``key`` says what else makes a run its own (the bundle's hash).

    Memory: two canvases (three for rules that look back) of 4 bytes per channel and latent, and one network call.
    """
    window = with_bleed(model, region, settings)
    update, ladder = update_named(settings.update), Ladder.from_config(model.scheduler_config, settings.steps)
    ladder = ladder.tail(strength) if source is not None else ladder
    sweep = make_sweep(model, field.to(model.device), window, replace(settings, steps=len(ladder)), glass)
    state = State(_blank_canvas(model, window, region, settings, scratch))
    key = _fingerprint(model, field, region, settings, strength, key)
    if state_file is None or not load_state(state_file, state, key):
        _start(state.x, ladder, settings.seed, source)
    save = (lambda state: None) if state_file is None else (lambda state: save_state(state_file, state, key))
    return run(state, ladder, sweep, update, seed=settings.seed, progress=progress, checkpoint=save)


def develop(
    model: Model,
    canvas: Canvas,
    progress: Progress = lambda done, total: None,
    *,
    first_px: int = 0,
    band_lat: int = 128,
    call_lat: int = 65_536,
    batch: int = 8,
) -> Iterator[Band]:
    """The core of ``canvas`` as uint8 bands (h, W, 3), top to bottom, of whatever heights; from row ``first_px`` on.

    Exact for decoders of finite reach: the same pixels as one decoding of the whole, whatever ``band_lat`` and
    ``call_lat`` (up to the rounding of the chip, which for the same two is the same). Others are blended from
    feathered windows. Memory: a band of ``band_lat`` rows, and one call.
    """

    def decode(latents: Tensor) -> Tensor:
        with torch.no_grad():  # a generator's body runs in its caller's context
            return model.decode(latents.to(model.device))

    shared = {"factor": model.factor, "first": first_px}
    if model.decoder_halo_lat is None:
        bands, done = blended_bands(decode, canvas, window=model.window_lat, batch=batch, **shared), first_px
    else:
        bands = exact_bands(decode, canvas, halo=model.decoder_halo_lat, rows=band_lat, budget=call_lat, **shared)
        done = first_px // (band_lat * model.factor) * band_lat * model.factor
    for band in bands:
        yield band[max(0, first_px - done) :]
        done += len(band)
        progress(done, canvas.core.rows * model.factor)


def make_sweep(model: Model, field: ConditionField, canvas: Window, settings: SynthesisSettings,
               glass: Tensor | None = None) -> Sweep:  # fmt: skip
    """The sweep over ``canvas`` that the settings ask for and the model allows."""
    clean_of = guided(clean_estimator(model), settings.guidance, settings.guidance_interval)
    merge = _merge(model, settings)
    if merge == "whole":
        condition = _field_of(model, field, settings.layout)
        return LocalSweep(clean_of, condition, canvas, model.halo_lat, quantum(model), settings.call_lat, glass,
                          field.blank_blocks)  # fmt: skip
    lattice_of = _lattice_of(model, canvas, merge, settings)
    conditions = _conditions_of(model, field, settings.layout)
    return WindowSweep(clean_of, conditions, lattice_of, settings.batch, glass, field.is_blank)


def clean_estimator(model: Model) -> CleanOf:
    """The model's clean estimate in float32 on its own device, whatever it was trained to predict."""
    convert = to_clean(model.prediction_type)

    def clean_of(x: Tensor, cond: Tensor | None, step: Step) -> Tensor:
        x = x.to(model.device)
        t = torch.full((len(x),), step.t, device=model.device)
        raw = model.predict(x, t, None if cond is None else cond.to(model.device))
        return convert(raw.float(), x, step)

    return clean_of


def quantum(model: Model) -> int:
    """Corners of what a local model is given lie at multiples of this many latents; anywhere for a window model."""
    return math.lcm(model.align_lat, model.field_stride_lat) if model.locality == "local" else 1


def with_bleed(model: Model, region: Window, settings: SynthesisSettings) -> Window:
    """``region`` with its bleed, aligned, and at least one window large where the merge works by windows."""
    window, least = region.grown(settings.bleed_lat), 1 if _merge(model, settings) == "whole" else model.window_lat
    if settings.extent is not None:
        window = window.intersection(settings.extent.grown(min(settings.edge_lat, settings.bleed_lat))) or window
    rows, cols = max(0, least - window.rows), max(0, least - window.cols)
    window = Window(window.row - rows // 2, window.col - cols // 2, window.rows + rows, window.cols + cols)
    return window.aligned(quantum(model))


def _merge(model: Model, settings: SynthesisSettings) -> str:
    if settings.merge == "auto":
        return "whole" if model.locality == "local" else "shift"
    if settings.merge == "whole" and model.locality != "local":
        raise SettingError("merge 'whole' needs a local model, this one sees windows: use 'shift' or 'average'")
    return settings.merge


def _lattice_of(model: Model, canvas: Window, merge: str, settings: SynthesisSettings) -> LatticeOf:
    side, step = model.window_lat, quantum(model)
    stride = max(step, round(side * (1 - settings.overlap)) // step * step)
    average = overlapping(canvas, side, stride, feather=settings.feather)
    if merge == "average":
        return average
    shift = shifting(canvas, side, quantum=step, seed=settings.seed)
    return settling(shift, average, settings.steps - settings.settle) if settings.settle else shift


def _field_of(model: Model, field: ConditionField, layout: bool) -> Callable[[Window], Tensor]:
    return lru_cache(maxsize=1)(lambda window: model.local_condition(field, window, layout=layout))


def _conditions_of(model: Model, field: ConditionField, layout: bool) -> Callable[[Sequence[Window]], Tensor]:
    """Conditions of windows: the field over each for a local model, at each one's centre otherwise."""
    if model.locality == "local":
        return lambda windows: torch.stack([model.local_condition(field, w, layout=layout) for w in windows])
    return lambda windows: field.vectors([(w.row + w.rows / 2, w.col + w.cols / 2) for w in windows])


def _canvas_bytes(model: Model, window: Window, settings: SynthesisSettings) -> int:
    return (3 if update_named(settings.update).looks_back else 2) * 4 * model.latent_channels * window.size.area


def _blank_canvas(model: Model, window: Window, region: Window, settings: SynthesisSettings,
                  scratch: Path | None) -> Canvas:  # fmt: skip
    """On the model's device while all canvases fit the budget, else in a mapped file if there is a folder for it."""
    if _canvas_bytes(model, window, settings) <= settings.canvas_mib << 20:
        return Canvas(window, model.latent_channels, core=region, device=model.device)
    return Canvas(window, model.latent_channels, core=region, scratch=scratch)


def _start(x: Canvas, ladder: Ladder, seed: int, source: Callable[[Window], Tensor] | None) -> None:
    if source is None:
        return fill_with_noise(x, seed)
    for band in x.bands():
        x[band].copy_(source(band))
    return add_noise(x, ladder, seed)


def _fingerprint(model: Model, field: ConditionField, region: Window, settings: SynthesisSettings, strength: float,
                 key: str) -> str:  # fmt: skip
    """What a saved state must agree on to be continued; batch and memory may change, the picture does not."""
    same = asdict(replace(settings, batch=1, call_lat=1, canvas_mib=1))
    facts = [key, strength, same, asdict(region), field.origin, field.spacing, dict(model.scheduler_config)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update(np.ascontiguousarray(field.embedding.cpu().numpy()).tobytes())
    return digest.hexdigest()
