"""Paint and develop: a condition field becomes a latent canvas, a latent canvas becomes pixels.

Shared by every command that makes images. Everything is placed on a virtual canvas by absolute windows in latents, so
any region of it can be made alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.decoding import Pixels, blended_bands, exact_bands
from ssl_tilegen.diffusion.denoiser import merge_of, schedule_of, tiled_denoiser, with_bleed
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.guidance import acts
from ssl_tilegen.diffusion.inpainting import MaskedDenoiser
from ssl_tilegen.diffusion.protocols import Model, StepProgress
from ssl_tilegen.diffusion.recipe import Recipe
from ssl_tilegen.diffusion.row_parallel import ALONE, Band, Ranks, balanced_edges
from ssl_tilegen.diffusion.sampler import State, add_noise, fill_with_noise, noise_at, run
from ssl_tilegen.diffusion.sampler_state import drop_older_states, load_state, save_state
from ssl_tilegen.diffusion.schedule import Schedule
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.diffusion.steppers import stepper_named
from ssl_tilegen.errors import TilegenError
from ssl_tilegen.geometry import Window

_BAND_STEP_LAT = 4
_BLANK_COST = 0.02  # of a row that is all background, relative to one of tissue


@dataclass(frozen=True, slots=True)
class Plan:
    """The cost of painting a region: exact counts, before anything runs.

    ``windows``: tiles or windows of one step, at most. Calls and latents are those of all processes, ``canvas`` and its
    bytes those of the one that holds most.
    """

    canvas: Window
    steps: int
    windows: int
    network_calls: int
    network_latents: int
    canvas_bytes: int
    mapped: bool


def plan(model: Model, field: ConditionField, region: Window, settings: SynthesisSettings,
         background: Tensor | None = None, processes: int = 1, masked: bool = False) -> Plan:  # fmt: skip
    """The cost of ``paint`` with the same arguments, by one process or many; ``masked``: with ``only``."""
    schedule = schedule_of(model, settings)
    parts = [band_of(model, field, region, settings, background, Ranks(rank, processes)) for rank in range(processes)]
    denoisers = [tiled_denoiser(model, field, part.whole, settings, background, part.own) for part in parts]
    passes = [1 + acts(settings.guidance, settings.guidance_interval, step) for step in schedule.steps()]
    loads = [[denoise.load(step) for denoise in denoisers] for step in schedule.steps()]
    held = max((part.held for part in parts), key=lambda window: window.rows)
    need = _canvas_bytes(model, held, settings, masked)
    return Plan(
        canvas=held,
        steps=len(schedule),
        windows=max(sum(denoise.windows(step) for denoise in denoisers) for step in schedule.steps()),
        network_calls=sum(n * sum(calls for calls, _ in each) for n, each in zip(passes, loads, strict=True)),
        network_latents=sum(n * sum(latents for _, latents in each) for n, each in zip(passes, loads, strict=True)),
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
    progress: StepProgress = lambda done, total: None,
    source: Callable[[Window], Tensor] | None = None,
    strength: float = 1.0,
    only: Window | None = None,
    background: Tensor | None = None,
    scratch: Path | None = None,
    state_file: Path | None = None,
    key: str = "",
    ranks: Ranks = ALONE,
) -> Canvas:
    """Clean latents of ``region`` (absolute, in latents), with a bleed around it; ``canvas.core`` is the region.

    Of several processes (``ranks``) each returns its own band of rows, with the rows around it that ``develop`` has to
    see.

    ``source`` gives existing clean latents (C, rows, cols) of any window of the region and its bleed (``with_bleed``).
    Only ``strength`` of them is repainted, and with ``only`` nothing outside of that window. ``background`` (C,) is
    what blank ground looks like; with it, blank ground costs no network call. Canvases beyond ``canvas_mib`` are mapped
    to files in the folder ``scratch``, if one is given. With ``state_file`` a stopped run goes on where it was; ``key``
    says what else makes a run its own (the bundle's hash).

    Memory: one network call and two canvases of 4 bytes per channel and latent, unless they are mapped. Rules that look
    back take one canvas more, ``only`` another.
    """
    band = band_of(model, field, region, settings, background, ranks)
    update, schedule = (
        stepper_named(settings.update),
        schedule_of(model, settings, None if source is None else strength),
    )
    denoise = tiled_denoiser(
        model, field.to(model.device), band.whole, replace(settings, steps=len(schedule)), background, band.own
    )
    state = State(_blank_canvas(model, band, region, settings, scratch, masked=only is not None))
    if source is not None and only is not None:
        known = _filled(state.x.like(), source)
        denoise, source = (
            MaskedDenoiser(denoise, known, _open_ended(only, settings.extent, band.whole)),
            known.__getitem__,
        )
    key = _fingerprint(model, field, region, settings, strength, key, only)
    if state_file is None or not load_state(state_file, state, key):
        _start(state.x, schedule, settings.seed, source)
    if ranks.tell(state.step_index) != state.step_index:
        raise TilegenError(f"{state_file}: not all processes see the same saved state; give them one shared folder")
    save = _saving(state_file, key, band) if state_file else (lambda state: None)
    return run(state, schedule, denoise, update, noise=noise_at(state.x, settings.seed), progress=progress,
               exchange=band.exchange, checkpoint=save)  # fmt: skip


def develop(
    model: Model,
    canvas: Canvas,
    progress: StepProgress = lambda done, total: None,
    *,
    first_px: int = 0,
    band_lat: int = 128,
    call_lat: int = 131_072,
    batch: int = 8,
    recipe: Recipe | None = None,
) -> Iterator[Pixels]:
    """The core of ``canvas`` as uint8 bands (h, W, 3), top to bottom, of whatever heights; from row ``first_px`` on.

    Exact for decoders of finite reach: the same pixels as one decoding of the whole, whatever ``band_lat`` and
    ``call_lat``. Only the rounding of the chip may depend on those two. Others are blended from feathered windows; with
    a ``recipe`` as that says. Memory: a band of ``band_lat`` rows, and one call.
    """

    def decode(latents: Tensor) -> Tensor:
        with torch.no_grad():  # a generator's body runs in its caller's context
            return model.decode(latents.to(model.device))

    shared = {"factor": model.factor, "first": first_px}
    if recipe and recipe.decode_hop_lat:
        hop, sigma = min(recipe.decode_hop_lat, model.window_lat), recipe.decode_sigma
        bands = blended_bands(decode, canvas, window=model.window_lat, batch=batch, hop=hop, sigma=sigma, **shared)
        done = first_px
    elif model.decoder_halo_lat is None:
        bands, done = blended_bands(decode, canvas, window=model.window_lat, batch=batch, **shared), first_px
    else:
        bands = exact_bands(decode, canvas, halo=model.decoder_halo_lat, rows=band_lat, budget=call_lat, **shared)
        done = first_px // (band_lat * model.factor) * band_lat * model.factor
    total = canvas.core.rows * model.factor
    progress(done, total)
    for band in bands:
        yield band[max(0, first_px - done) :]
        done += len(band)
        progress(done, total)


def band_of(model: Model, field: ConditionField, region: Window, settings: SynthesisSettings, background: Tensor | None,
            ranks: Ranks) -> Band:  # fmt: skip
    """The rows that each of a team of processes paints of ``region`` and its bleed: of about the same work."""
    whole = with_bleed(model, region, settings)
    if ranks.count == 1:
        return Band.alone(whole)
    step = math.lcm(model.conditioning.quantum_lat, _BAND_STEP_LAT)
    blank = field.blank_blocks(whole, step)
    load = np.ones(len(blank)) if background is None else (~blank).mean(1) + _BLANK_COST
    quantum = model.conditioning.quantum_lat
    sees = model.halo_lat + quantum if merge_of(model, settings) == "whole" else model.window_lat - 1
    reach = max(sees, model.window_lat - 1 if model.decoder_halo_lat is None else model.decoder_halo_lat)
    return Band(whole, balanced_edges(whole, region, step, load, ranks.count), reach, ranks)


def _canvas_bytes(model: Model, window: Window, settings: SynthesisSettings, masked: bool = False) -> int:
    return (2 + stepper_named(settings.update).history + masked) * 4 * model.latent_channels * window.size.area


def _open_ended(only: Window, extent: Window | None, whole: Window) -> Window:
    """``only``, and beyond where it reaches the edge of the virtual canvas: there is no border there."""
    if extent is None:
        return only
    row = whole.row if only.row <= extent.row else only.row
    col = whole.col if only.col <= extent.col else only.col
    row_end = whole.row_end if only.row_end >= extent.row_end else only.row_end
    col_end = whole.col_end if only.col_end >= extent.col_end else only.col_end
    return Window(row, col, row_end - row, col_end - col)


def _blank_canvas(model: Model, band: Band, region: Window, settings: SynthesisSettings, scratch: Path | None,
                  masked: bool) -> Canvas:  # fmt: skip
    """On the model's device while all canvases fit the budget, else in a mapped file if there is a folder for it."""
    fits = scratch is None or _canvas_bytes(model, band.held, settings, masked) <= settings.canvas_mib << 20
    return Canvas(
        band.held,
        model.latent_channels,
        core=region.intersection(band.own),
        whole=band.whole,
        device=model.device if fits else "cpu",
        scratch=None if fits else scratch,
    )


def _saving(file: Path, key: str, band: Band) -> Callable[[State], None]:
    """Save each step's state; the one before goes when all processes have saved theirs."""

    def save(state: State) -> None:
        save_state(file, state, key, band.own)
        band.ranks.wait()
        if band.ranks.rank == 0:
            drop_older_states(file, state.step_index)

    return save


def _start(x: Canvas, schedule: Schedule, seed: int, source: Callable[[Window], Tensor] | None) -> None:
    if source is None:
        return fill_with_noise(x, seed)
    return add_noise(_filled(x, source), schedule, seed)


def _filled(x: Canvas, source: Callable[[Window], Tensor]) -> Canvas:
    for band in x.bands():
        x[band].copy_(source(band))
    return x


def _fingerprint(model: Model, field: ConditionField, region: Window, settings: SynthesisSettings, strength: float,
                 key: str, only: Window | None) -> str:  # fmt: skip
    """The settings that a saved state must share to be continued; batch and memory may differ."""
    same = asdict(replace(settings, batch=1, call_lat=1, canvas_mib=1))
    facts = [key, strength, same, asdict(region), only and asdict(only), field.origin, field.spacing,
             dict(model.scheduler_config)]  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update(np.ascontiguousarray(field.embedding.cpu().numpy()).tobytes())
    return digest.hexdigest()
