"""Sampling a prior: a condition for every cell becomes a grid of embeddings, by the engine that also paints.

The lattice of cells takes the place of the lattice of latents: the same noise schedule, steppers, guidance, addressed
noise and tiled denoising. A prior is local, so its grid is the same for any cut into pieces. It grows by adding cells
at its right and lower side.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.bundle import SCHEDULER
from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.guidance import CleanOf, guided
from ssl_tilegen.diffusion.noise import coherent_noise
from ssl_tilegen.diffusion.parameterization import to_clean
from ssl_tilegen.diffusion.sampler import State, noise_at, run
from ssl_tilegen.diffusion.schedule import Schedule, Step
from ssl_tilegen.diffusion.steppers import stepper_named
from ssl_tilegen.diffusion.tiled_denoise import LocalTiledDenoiser, TiledDenoiser
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.prior.spec import PriorSampling
from ssl_tilegen.system.device import fast_dtype

_CALL_CELLS = 16_384
BLEED_CELLS = 4
_COHERENT_CELLS = 3
"""Means of the noise over twice as many cells and one, about what a prior was trained on at once, are alike all over a
grid: all of it is of one slide."""
GRID_SEEDS = 1 << 62
"""Seeds from here on are for grids: the noise of a grid and that of its image have nothing in common."""


@dataclass(frozen=True, eq=False)
class SampledGrid:
    """Sampled cells: ``embedding`` (R, K, D) float32 and ``valid`` (R, K) bool."""

    embedding: np.ndarray
    valid: np.ndarray


@torch.no_grad()
def sample_prior(
    prior: Any,
    condition: np.ndarray,
    sampling: PriorSampling,
    seed: int,
    progress: Callable[[float, float], None] = lambda done, total: None,
    call_cells: int = _CALL_CELLS,
    *,
    cells: Size | None = None,
) -> SampledGrid:
    """A grid for the conditions ``condition`` (C, R, K), or for ``cells`` that all have one (C, 1, 1), on the prior's
    device; NaN where nothing is known.

    Memory: two canvases of D + 1 numbers per cell, and one call of ``call_cells``.
    """
    window = Window.of(cells or Size(*condition.shape[1:]))
    return restored_grid(prior, sample_cells(prior, condition, window, sampling, seed, progress, call_cells))


def restored_grid(prior: Any, cells: Tensor) -> SampledGrid:
    """Normalised cells (D + 1, R, K) as embeddings and validity."""
    found = prior.restored(cells.movedim(0, -1)).float().cpu().numpy()
    return SampledGrid(found[..., :-1], found[..., -1] > 0)


@torch.no_grad()
def sample_cells(
    prior: Any,
    condition: np.ndarray,
    core: Window,
    sampling: PriorSampling,
    seed: int,
    progress: Callable[[float, float], None] = lambda done, total: None,
    call_cells: int = _CALL_CELLS,
) -> Tensor:
    """Normalised cells (D + 1, R, K) of one window of an endless grid. The condition is that of each of them (C, R, K),
    or of all (C, 1, 1).

    A few cells more are sampled on all sides and thrown away, so that edges look like the inside.
    """
    device = next(prior.parameters()).device
    window, margin = core.grown(BLEED_CELLS), (BLEED_CELLS, BLEED_CELLS)
    if condition.shape[1:] != (1, 1):
        condition = np.pad(condition, [(0, 0), margin, margin], "edge")
    field = torch.from_numpy(condition).to(device)
    canvas = Canvas(window, len(prior.mean), core=core, device=device)
    canvas[window].copy_(first_noise(prior, window, seed))
    denoise = _denoiser(prior, field, window, sampling, call_cells)
    schedule = Schedule.from_config(SCHEDULER, sampling.steps)
    noise = noise_at(canvas, GRID_SEEDS + seed)
    done = run(State(canvas), schedule, denoise, stepper_named(sampling.update), noise=noise, progress=progress)
    return done[core]


def first_noise(prior: Any, window: Window, seed: int) -> Tensor:
    """The initial noise (D + 1, R, K) of a window's cells."""
    return torch.from_numpy(coherent_noise(window, len(prior.mean), GRID_SEEDS + seed, _COHERENT_CELLS))


def _denoiser(prior: Any, field: Tensor, canvas: Window, sampling: PriorSampling, call_cells: int) -> TiledDenoiser:
    """One convolution over the canvas, in pieces of ``call_cells`` at most."""
    clean_of = guided(clean_of_grid(prior), sampling.guidance, sampling.guidance_interval)

    def condition_of(part: Window) -> Tensor:
        return field if field.shape[1:] == (1, 1) else field[:, *part.within(canvas).slices]

    return LocalTiledDenoiser(clean_of, condition_of, canvas, halo=prior.halo, align=1, budget=call_cells)


def clean_of_grid(prior: Any) -> CleanOf:
    """The prior's clean estimate of normalised cells in float32, on its own device."""
    device = next(prior.parameters()).device
    convert, kind = to_clean("flow"), fast_dtype(device)

    def clean_of(x: Tensor, cond: Tensor | None, step: Step) -> Tensor:
        t = torch.full((len(x),), step.t, device=device)
        with torch.autocast(device.type, kind) if kind else nullcontext():
            raw = prior(x, t, cond)
        return convert(raw.float(), x, step)

    return clean_of
