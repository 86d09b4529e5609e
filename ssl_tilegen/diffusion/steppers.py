"""Update rules: one step down the noise schedule, element by element.

A rule sees only the elements it changes, so it serves a tensor, a strip or a canvas on disk alike. It knows nothing of
schedulers' state: ``(x, clean, previous_clean, step) -> x``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_tilegen.diffusion.schedule import Step, log_snr
from ssl_tilegen.errors import ChoiceError

StepRule = Callable[[Tensor, Tensor, Tensor | None, Step], Tensor]


@dataclass(frozen=True, slots=True)
class Stepper:
    """A rule, what it looks back at, and the deviation of the fresh noise it wants after.

    ``history``: how many earlier arrays of the latents' shape the rule gets as ``previous``. One is the last clean
    estimate; more are what ``remember`` makes, of the same arguments as the rule, and lie behind each other in the
    channels. ``starts_twice``: the second level is visited a second time, which corrects the first step.
    """

    rule: StepRule
    history: int = 0
    fresh_noise: Callable[[Step], float] = lambda step: 0.0
    remember: Callable[[Tensor, Tensor, Tensor, Step], Tensor] | None = None
    starts_twice: bool = False


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


_ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the noise estimates of this step and those before it, by how many of these there are."""


def plms(x: Tensor, clean: Tensor, previous: Tensor | None, step: Step) -> Tensor:
    """Pseudo linear multistep (Liu et al. 2022): DDIM with an extrapolated noise estimate.

    The first step is of Heun's kind, in two: a DDIM step, and at the level that it leads to its correction by half the
    difference of the noise estimates of both levels. ``previous`` are the last three noise estimates, latest first.
    """
    if previous is None or step.index == 0:
        return ddim(x, clean, None, step)
    noise, earlier = _noise_estimate(x, clean, step), previous.split(len(x))
    if _stays(step):
        weight_of_noise = step.sigma - step.alpha * math.exp(-step.last_log_snr)
        return x + weight_of_noise / 2 * (noise - earlier[0])
    weights = _ADAMS_BASHFORTH[min(step.index - 1, 3)]
    bent = sum((w * e for w, e in zip(weights[1:], earlier, strict=False)), weights[0] * noise)
    return step.next_alpha / step.alpha * (x - step.sigma * bent) + step.next_sigma * bent


def remember_noise(x: Tensor, clean: Tensor, previous: Tensor, step: Step) -> Tensor:
    """The noise estimate before the two latest; that of the correction of ``plms`` is not kept."""
    if _stays(step):
        return previous
    return torch.cat([_noise_estimate(x, clean, step), previous[: -len(x)]])


def _stays(step: Step) -> bool:
    """Whether a step leads to the level that it begins at."""
    return step.next_sigma == step.sigma


def _noise_estimate(x: Tensor, clean: Tensor, step: Step) -> Tensor:
    return (x - step.alpha * clean) / step.sigma


STEPPERS: dict[str, Stepper] = {
    "ddim": Stepper(ddim),
    "dpmpp_2m": Stepper(dpmpp_2m, history=1),
    "plms": Stepper(plms, history=3, remember=remember_noise, starts_twice=True),
    "ancestral": Stepper(ancestral, fresh_noise=posterior_deviation),
    "ddim_beta": Stepper(ddim_beta, fresh_noise=beta_deviation),
    "renoise": Stepper(renoise, fresh_noise=lambda step: step.next_sigma),
}


def stepper_named(name: str) -> Stepper:
    """The registered update rule, or an error that lists them."""
    if name not in STEPPERS:
        raise ChoiceError(f"unknown update rule {name!r}; known: {', '.join(STEPPERS)}")
    return STEPPERS[name]
