"""Images of one size sampled together: a stack of latents, and one network call for all of them at every step."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ssl_tilegen.diffusion.guidance import CleanOf
from ssl_tilegen.diffusion.protocols import StepProgress
from ssl_tilegen.diffusion.sampler import Noise, State, Tick, run
from ssl_tilegen.diffusion.schedule import Schedule, Step
from ssl_tilegen.diffusion.steppers import Stepper
from ssl_tilegen.geometry import Window


class Stack:
    """Latents ``data`` (N, C, rows, cols) over one ``window`` that all of them have, walked as a whole."""

    def __init__(self, data: Tensor, window: Window) -> None:
        self.data, self.window = data, window

    def like(self, times: int = 1) -> Stack:
        """Zeros of the same size, for ``times`` as many images."""
        return Stack(self.data.new_zeros((times * len(self.data), *self.data.shape[1:])), self.window)

    def bands(self) -> Iterator[Window]:
        """The whole window."""
        yield self.window

    def __getitem__(self, window: Window) -> Tensor:
        """The latents (N, C, rows, cols)."""
        return self.data

    def __setitem__(self, window: Window, values: Tensor) -> None:
        """Take ``values`` (N, C, rows, cols) in the place of the latents."""
        self.data = values

    def add(self, window: Window, noise: Tensor, weight: float) -> None:
        """Add ``weight`` times ``noise`` (N, C, rows, cols)."""
        self.data = self.data + weight * noise


def no_noise(window: Window, stream: int) -> Tensor:
    """For rules that add none."""
    raise ValueError("this update rule adds noise: say where it comes from")


def sample_stack(
    x: Tensor,
    schedule: Schedule,
    clean_of: CleanOf,
    condition: Tensor,
    update: Stepper,
    *,
    window: Window | None = None,
    noise: Noise = no_noise,
    progress: StepProgress = lambda done, total: None,
) -> Tensor:
    """Clean latents (N, C, rows, cols) from those at the schedule's first noise level.

    Args:
        x: Noisy latents (N, C, rows, cols).
        schedule: Noise levels of all steps.
        clean_of: The clean estimate of all images at once.
        condition: The condition of each image (N, ...).
        update: The update rule.
        window: Where they lie, which ``noise`` is asked for; left out: at the origin.
        noise: The noise (N, C, rows, cols) of each step, for rules that add some.
        progress: Called with the steps done and the steps in all.
    """
    place = window or Window(0, 0, *x.shape[-2:])

    def denoise(x: Stack, step: Step, out: Stack, tick: Tick) -> None:
        out[place] = clean_of(x[place], condition, step)

    return run(State(Stack(x, place)), schedule, denoise, update, noise=noise, progress=progress).data
