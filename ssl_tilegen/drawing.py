"""Draw: a condition for every cell becomes a grid of embeddings, by the engine that also paints.

The lattice of cells takes the place of the lattice of latents: the same noise ladder, update rules, guidance, addressed
noise and sweep. So a grid is the same for any cut into pieces, and grows by adding cells at its right and lower side.
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
from ssl_tilegen.diffusion.ladder import Ladder, Step
from ssl_tilegen.diffusion.prediction import to_clean
from ssl_tilegen.diffusion.sampler import State, fill_with_noise, run
from ssl_tilegen.diffusion.sweep import LocalSweep
from ssl_tilegen.diffusion.updates import update_named
from ssl_tilegen.geometry import Window
from ssl_tilegen.priorspec import PriorSampling
from ssl_tilegen.runtime import fast_dtype

_CALL_CELLS = 16_384
_BLEED_CELLS = 4
_GRID_SEEDS = 1 << 62
"""Seeds from here on are for grids: the noise of a grid and that of its picture have nothing in common."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """What was drawn: ``embedding`` (R, K, D) float32 and ``valid`` (R, K) bool."""

    embedding: np.ndarray
    valid: np.ndarray


@torch.no_grad()
def draw(
    prior: Any,
    told: np.ndarray,
    sampling: PriorSampling,
    seed: int,
    progress: Callable[[float, float], None] = lambda done, total: None,
    call_cells: int = _CALL_CELLS,
) -> Drawing:
    """A grid for the conditions ``told`` (C, R, K), NaN where nothing is known, on the prior's device.

    A few cells more are drawn on all sides and thrown away, so that edges look like the inside. Memory: two canvases
    of D + 1 numbers per cell, and one call of ``call_cells``.
    """
    device = next(prior.parameters()).device
    core = Window(0, 0, told.shape[1], told.shape[2])
    window = core.grown(_BLEED_CELLS)
    field = torch.from_numpy(np.pad(told, [(0, 0), *[(_BLEED_CELLS, _BLEED_CELLS)] * 2], "edge")).to(device)
    canvas = Canvas(window, len(prior.mean), core=core, device=device)
    fill_with_noise(canvas, _GRID_SEEDS + seed)
    sweep = LocalSweep(
        guided(_clean_of(prior), sampling.guidance, sampling.guidance_interval),
        lambda part: field[:, *part.within(window).slices],
        window, halo=prior.halo, align=1, budget=call_cells,
    )  # fmt: skip
    ladder = Ladder.from_config(SCHEDULER, sampling.steps)
    done = run(State(canvas), ladder, sweep, update_named(sampling.update), seed=_GRID_SEEDS + seed, progress=progress)
    cells = prior.restored(done[core].movedim(0, -1)).float().cpu().numpy()
    return Drawing(cells[..., :-1], cells[..., -1] > 0)


def _clean_of(prior: Any) -> CleanOf:
    device = next(prior.parameters()).device
    convert, kind = to_clean("flow"), fast_dtype(device)

    def clean_of(x: Tensor, cond: Tensor | None, step: Step) -> Tensor:
        t = torch.full((len(x),), step.t, device=device)
        with torch.autocast(device.type, kind) if kind else nullcontext():
            raw = prior(x, t, cond)
        return convert(raw.float(), x, step)

    return clean_of
