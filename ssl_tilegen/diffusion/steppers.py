"""Update rules: one step down the noise schedule, element by element.

A rule sees only the elements it changes, so it serves a tensor, a strip or a canvas on disk alike, and knows nothing of
schedulers' state: ``(x, clean, previous_clean, step) -> x``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ssl_tilegen.diffusion.schedule import Step, log_snr
from ssl_tilegen.errors import ChoiceError

StepRule = Callable[[Tensor, Tensor, Tensor | None, Step], Tensor]


@dataclass(frozen=True, slots=True)
class Stepper:
    """A rule, whether it looks back at the last clean estimate, and the deviation of the fresh noise it wants after."""

    rule: StepRule
    looks_back: bool = False
    fresh_noise: Callable[[Step], float] = lambda step: 0.0


def ddim(x: Tensor, clean: Tensor, previous: Tensor | None, step: Step) -> Tensor:
    """Deterministic step that keeps the noise and lowers its weight (Song et al. 2021, eq. 12, eta = 0).

    Also the exponential integrator of first order (DPM-Solver++ 1), and on a flow schedule the Euler step.
    """
    keep = step.next_sigma / step.sigma
    return keep * x + (step.next_alpha - keep * step.alpha) * clean


def dpmpp_2m(x: Tensor, clean: Tensor, previous: Tensor | None, step: Step) -> Tensor:
    """DPM-Solver++ 2M (Lu et al. 2022, algorithm 2): the first-order step towards an extrapolated clean estimate."""
    lead = _extrapolation(step)
    if previous is None or lead == 0:
        return ddim(x, clean, None, step)
    return ddim(x, clean + lead * (clean - previous), None, step)


def _extrapolation(step: Step) -> float:
    """1 / (2 r) with r = last step / this step in log SNR; 0 (first order) at both ends, where one is infinite."""
    here, there = log_snr(step.alpha, step.sigma), log_snr(step.next_alpha, step.next_sigma)
    last = here - step.last_log_snr
    return (there - here) / (2 * last) if 0 < last < math.inf and there < math.inf else 0.0


def ancestral(x: Tensor, clean: Tensor, previous: Tensor | None, step: Step) -> Tensor:
    """The mean of the posterior q(next | x, clean) (Ho et al. 2020, eq. 7); the sampler adds the noise."""
    keep = math.sqrt(max(step.next_sigma**2 - posterior_deviation(step) ** 2, 0.0)) / step.sigma
    return keep * x + (step.next_alpha - keep * step.alpha) * clean


def posterior_deviation(step: Step) -> float:
    """Standard deviation of q(next | x, clean), from any noise level to any quieter one."""
    kept_noise = step.next_sigma * step.alpha / step.next_alpha
    return math.sqrt(max(step.sigma**2 - kept_noise**2, 0.0)) * step.next_sigma / step.sigma


def renoise(x: Tensor, clean: Tensor, previous: Tensor | None, step: Step) -> Tensor:
    """The clean estimate at the weight of the next noise level (Song et al. 2023, algorithm 1); the sampler adds fresh
    noise.

    For few-step models, whose clean estimate is an image already: nothing of ``x`` is kept.
    """
    return step.next_alpha * clean


def ddim_beta(x: Tensor, clean: Tensor, previous: Tensor | None, step: Step) -> Tensor:
    """DDIM with the fresh noise of one training step, however long the step is (Graikos et al. 2024, their code)."""
    keep = math.sqrt(max(step.next_sigma**2 - beta_deviation(step) ** 2, 0.0)) / step.sigma
    return keep * x + (step.next_alpha - keep * step.alpha) * clean


def beta_deviation(step: Step) -> float:
    """Deviation of the noise that ``ddim_beta`` adds: beta_t (1 - next alpha bar) / (1 - alpha bar), squared root."""
    return math.sqrt(step.beta) * step.next_sigma / step.sigma


STEPPERS: dict[str, Stepper] = {
    "ddim": Stepper(ddim),
    "dpmpp_2m": Stepper(dpmpp_2m, looks_back=True),
    "ancestral": Stepper(ancestral, fresh_noise=posterior_deviation),
    "ddim_beta": Stepper(ddim_beta, fresh_noise=beta_deviation),
    "renoise": Stepper(renoise, fresh_noise=lambda step: step.next_sigma),
}


def stepper_named(name: str) -> Stepper:
    """The registered update rule, or an error that lists them."""
    if name not in STEPPERS:
        raise ChoiceError(f"unknown update rule {name!r}; known: {', '.join(STEPPERS)}")
    return STEPPERS[name]
