"""The sampling loop: one clean estimate and one update for each step of the schedule. Everything that samples runs it:
canvases of a large image, grids of cells, stacks of small images, and the samples of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.noise import addressed_noise
from ssl_tilegen.diffusion.protocols import StepProgress
from ssl_tilegen.diffusion.schedule import Schedule, Step
from ssl_tilegen.diffusion.steppers import Stepper
from ssl_tilegen.geometry import Window

Noise = Callable[[Window, int], Tensor]
"""The standard normal noise of a window. Stream 0 is the first noise, stream k + 1 is that of step k."""

Tick = Callable[[float], None]


class Latents(Protocol):
    """Latents that the loop takes down the schedule: a `Canvas`, or a `Stack` of images."""

    def like(self, times: int = 1) -> Self:
        """Zeros of the same place, size and kind, with ``times`` as many entries on the first axis."""
        ...

    def bands(self) -> Iterator[Window]:
        """The windows by which it is updated."""
        ...

    def __getitem__(self, window: Window) -> Tensor:
        """The values of a window."""
        ...

    def __setitem__(self, window: Window, values: Tensor) -> None:
        """Replace the values of a window."""
        ...

    def add(self, window: Window, noise: Tensor, weight: float) -> None:
        """Add ``weight`` times ``noise`` to a window."""
        ...


L = TypeVar("L", bound=Latents)


@dataclass(eq=False)
class State(Generic[L]):
    """The state of a run: ``step_index``, the latents ``x`` there, and what the update rule looks back at."""

    x: L
    step_index: int = 0
    previous: L | None = None


def run(
    state: State[L],
    schedule: Schedule,
    denoise: Callable[[L, Step, L, Tick], None],
    update: Stepper,
    *,
    noise: Noise,
    progress: StepProgress = lambda done, total: None,
    exchange: Callable[[L], None] = lambda x: None,
    checkpoint: Callable[[State[L]], None] = lambda state: None,
) -> L:
    """Walk ``state`` down to clean, in place, and return its latents; ``checkpoint`` sees every finished step.

    Args:
        state: Where to begin; a state that was saved goes on at its own step.
        schedule: Noise levels of all steps.
        denoise: Writes the clean estimate of its first argument to its third.
        update: The update rule.
        noise: Where rules that add noise take it from.
        progress: Called with the steps done, a fraction within a step, and the steps in all.
        exchange: Fills the parts of a step's result that other processes answer for.
        checkpoint: Called after every step.
    """
    clean = state.x.like()
    if update.remember and state.previous is None:
        state.previous = state.x.like(update.history)
    for step in schedule.steps(state.step_index):
        denoise(state.x, step, clean, lambda part, step_index=step.index: progress(step_index + part, len(schedule)))  # type: ignore[misc]
        _advance(state, clean, update, step, noise)
        if update.history and not update.remember:
            state.previous, clean = clean, state.previous or clean.like()
        exchange(state.x)
        state.step_index = step.index + 1
        checkpoint(state)
        progress(state.step_index, len(schedule))
    return state.x


def noise_at(x: Canvas, seed: int) -> Noise:
    """The noise of ``seed`` at every address of a canvas."""
    return lambda window, stream: torch.from_numpy(addressed_noise(window, x.channels, seed, stream))


def fill_with_noise(x: Canvas, seed: int) -> None:
    """Unit noise at every address: where a full schedule starts."""
    for band in x.bands():
        x[band] = noise_at(x, seed)(band, 0)


def add_noise(x: Canvas, schedule: Schedule, seed: int) -> None:
    """Add the noise of the schedule's first step to clean latents: where the tail of a schedule starts."""
    alpha, sigma = float(schedule.alpha[0]), float(schedule.sigma[0])
    for band in x.bands():
        x[band].mul_(alpha)
        x.add(band, noise_at(x, seed)(band, 0), sigma)


def _advance(state: State[L], clean: L, update: Stepper, step: Step, noise: Noise) -> None:
    """One update of ``state.x``, band by band, in place."""
    deviation = update.fresh_noise(step)
    for band in state.x.bands():
        x, previous = state.x[band], None if state.previous is None else state.previous[band]
        changed = update.rule(x, clean[band], previous, step)
        if update.remember and state.previous is not None and previous is not None:
            state.previous[band] = update.remember(x, clean[band], previous, step)
        state.x[band] = changed
        if deviation > 0:
            state.x.add(band, noise(band, step.index + 1), deviation)
