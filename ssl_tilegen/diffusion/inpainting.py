"""Repainting a part of an image: everything around it is known, and stays."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.schedule import Step
from ssl_tilegen.diffusion.tiled_denoise import Tick, TiledDenoiser
from ssl_tilegen.geometry import Window

BLEND_LAT = 6


@dataclass(frozen=True, eq=False)
class MaskedDenoiser:
    """A tiled denoiser whose clean estimate is the ``known`` latents outside of ``free``, and goes over to them at its
    border.

    With the known as clean estimate every update rule keeps a place at alpha * known + sigma * noise, its own noise:
    so the free part sees its surroundings as noisy as itself (Lugmayr et al. 2022 noise them afresh at each step) and
    meets them. Beyond ``known.whole`` nothing is known: a free window that reaches its edge has no border there.
    """

    denoise: TiledDenoiser
    known: Canvas
    free: Window

    def load(self, step: Step) -> tuple[int, int]:
        """Network calls of a step, and latents that they see, as of the denoiser inside."""
        return self.denoise.load(step)

    def windows(self, step: Step) -> int:
        """Windows of a step, as of the denoiser inside."""
        return self.denoise.windows(step)

    def __call__(self, x: Canvas, step: Step, out: Canvas, tick: Tick = lambda part: None) -> None:
        """Write the clean estimate of ``x`` to ``out``, blended with the known latents towards the border."""
        self.denoise(x, step, out, tick)
        whole = self.known.whole
        down = border_ramp(whole.row, whole.row_end, self.free.row, self.free.row_end, BLEND_LAT)
        across = border_ramp(whole.col, whole.col_end, self.free.col, self.free.col_end, BLEND_LAT)
        for band in out.bands():
            rows, cols = (part.to(out.data) for part in (down[band.row - whole.row :][: band.rows], across))
            out[band].copy_(self.known[band].lerp(out[band], rows[:, None] * cols))


def border_ramp(start: int, end: int, first: int, last: int, blend: int) -> Tensor:
    """How free each place of [start, end) is on one axis: 0 outside [first, last), rising to 1 within ``blend`` places
    (a quarter of the part, if that is less); at an end of the axis there is no border."""
    places = torch.arange(start, end, dtype=torch.float32)
    blend = max(1, min(blend, (last - first) // 4))
    rise = ((places - first) / blend).clamp(0, 1) if first > start else torch.ones(end - start)
    fall = ((last - 1 - places) / blend).clamp(0, 1) if last < end else torch.ones(end - start)
    return torch.minimum(rise, fall)
