"""Settings of painting: schedule, update rule, guidance, merging of windows, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ssl_tilegen.diffusion.recipe import Recipe
from ssl_tilegen.diffusion.schedule import check_times
from ssl_tilegen.errors import SettingError
from ssl_tilegen.geometry import Window


@dataclass(frozen=True, slots=True)
class SynthesisSettings:
    """How to sample. Lengths are in latents; options of memory and speed alone stand last.

    ``times``: the noise fractions of a few-step model, spread over ``steps``; none for an even schedule.
    ``merge``: ``whole`` (one convolution, local models), ``shift``, ``average``, or ``auto`` for the model's best.
    ``overlap`` and ``feather`` shape the averaging: 0.75 without feather is the published algorithm. Without ``layout``
    a model that knows content from layout gets the content alone; with it, the layout too while the noise fraction is
    at least ``layout_above``. A region gets a bleed of ``bleed_lat``, which is thrown away; beyond the edges of
    ``extent`` (the virtual canvas, if it ends anywhere) at most ``edge_lat`` of it.
    """

    steps: int = 24
    times: tuple[float, ...] = ()
    update: str = "dpmpp_2m"
    guidance: float = 1.5
    guidance_interval: tuple[float, float] = (0.2, 0.8)
    merge: Literal["auto", "whole", "shift", "average"] = "auto"
    overlap: float = 0.5
    feather: bool = True
    layout: bool = True
    layout_above: float = 0.0
    seed: int = 0
    bleed_lat: int = 8
    edge_lat: int = 8
    extent: Window | None = None
    batch: int = 16
    call_lat: int = 300_000
    canvas_mib: int = 512
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        if self.times:
            check_times(self.times)
        if not 0 <= self.overlap < 1:
            raise SettingError(f"overlap must lie in [0, 1), got {self.overlap:g}")
        if self.merge not in ("auto", "whole", "shift", "average"):
            raise SettingError(f"unknown merge {self.merge!r}; known: auto, whole, shift, average")
        for name in ("batch", "call_lat", "canvas_mib"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1, got {getattr(self, name)}")
