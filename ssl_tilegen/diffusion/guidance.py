"""Classifier-free guidance as a function of a denoiser."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ssl_tilegen.diffusion.schedule import Step

CleanOf = Callable[[Tensor, Tensor | None, Step], Tensor]
"""``(x (N, C, h, w), cond, step) -> clean (N, C, h, w)``: a denoiser whose output is always the clean estimate."""


def guided(clean_of: CleanOf, weight: float, interval: tuple[float, float] = (0.0, 1.0)) -> CleanOf:
    """``uncond + weight * (cond - uncond)`` on clean estimates (Ho & Salimans 2022).

    Only where the step's noise fraction lies in ``interval`` (Kynkaanniemi et al. 2024); elsewhere, and for weight 1,
    the conditional estimate alone and no second call.
    """

    def guide(x: Tensor, cond: Tensor | None, step: Step) -> Tensor:
        with_condition = clean_of(x, cond, step)
        if cond is None or not acts(weight, interval, step):
            return with_condition
        return clean_of(x, None, step).lerp(with_condition, weight)

    return guide


def acts(weight: float, interval: tuple[float, float], step: Step) -> bool:
    """Whether guidance needs its second call at this step."""
    low, high = interval
    return weight != 1 and low <= step.noise_fraction <= high
