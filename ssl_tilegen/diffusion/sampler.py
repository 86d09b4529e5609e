"""The main loop: one tiled denoising and one update for each step of the schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.noise import addressed_noise
from ssl_tilegen.diffusion.protocols import StepProgress
from ssl_tilegen.diffusion.schedule import Schedule, Step
from ssl_tilegen.diffusion.steppers import Stepper
from ssl_tilegen.diffusion.tiled_denoise import TiledDenoiser


@dataclass(eq=False)
class State:
    """The state of a run: ``step_index``, the latents ``x`` there, and what the update rule looks back at."""

    x: Canvas
    step_index: int = 0
    previous: Canvas | None = None


def run(
    state: State,
    schedule: Schedule,
    denoise: TiledDenoiser,
    update: Stepper,
    *,
    seed: int,
    progress: StepProgress = lambda done, total: None,
    exchange: Callable[[Canvas], None] = lambda x: None,
    checkpoint: Callable[[State], None] = lambda state: None,
) -> Canvas:
    """Walk ``state`` down to clean, in place, and return its canvas; ``checkpoint`` sees every finished step.

    ``exchange`` fills the parts of a step's result that other processes answer for.
    """
    clean = state.x.like()
    if update.remember and state.previous is None:
        state.previous = state.x.like(update.history)
    for step in schedule.steps(state.step_index):
        denoise(state.x, step, clean, lambda part, step_index=step.index: progress(step_index + part, len(schedule)))  # type: ignore[misc]
        _advance(state, clean, update, step, seed)
        if update.history and not update.remember:
            state.previous, clean = clean, state.previous or clean.like()
        exchange(state.x)
        state.step_index = step.index + 1
        checkpoint(state)
        progress(state.step_index, len(schedule))
    return state.x


def fill_with_noise(x: Canvas, seed: int) -> None:
    """Unit noise at every address: where a full schedule starts."""
    for band in x.bands():
        x[band].copy_(torch.from_numpy(addressed_noise(band, x.channels, seed)))


def add_noise(x: Canvas, schedule: Schedule, seed: int) -> None:
    """Add the noise of the schedule's first step to clean latents: where the tail of a schedule starts."""
    alpha, sigma = float(schedule.alpha[0]), float(schedule.sigma[0])
    for band in x.bands():
        noise = torch.from_numpy(addressed_noise(band, x.channels, seed)).to(x.data.device)
        x[band].mul_(alpha).add_(noise, alpha=sigma)


def _advance(state: State, clean: Canvas, update: Stepper, step: Step, seed: int) -> None:
    """One update of ``state.x``, band by band, in place. Stream 0 is the first noise, stream k + 1 that of step k."""
    deviation = update.fresh_noise(step)
    for band in state.x.bands():
        x, previous = state.x[band], None if state.previous is None else state.previous[band]
        changed = update.rule(x, clean[band], previous, step)
        if update.remember and previous is not None:
            previous.copy_(update.remember(x, clean[band], previous, step))
        x.copy_(changed)
        if deviation > 0:
            noise = addressed_noise(band, state.x.channels, seed, stream=step.index + 1)
            x.add_(torch.from_numpy(noise).to(x.device), alpha=deviation)
