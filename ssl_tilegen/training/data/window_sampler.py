"""Random training windows of cached scenes."""

from __future__ import annotations

import numpy as np

from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Window
from ssl_tilegen.training.data.latent_cache import LatentScene

_TRIES = 10_000


class WindowSampler:
    """Draws random valid windows from scenes; ones without content are kept with the chance ``dull_keep``."""

    def __init__(self, scenes: list[LatentScene], side: int, dull_keep: float) -> None:
        self.scenes, self.side, self.dull_keep = scenes, side, dull_keep
        chances = np.array([scene.chance if min(scene.dull.shape) >= side else 0.0 for scene in scenes])
        if not chances.any():
            raise InputError(f"no training image is {side} latents wide and high: lower window_lat")
        self.until = np.cumsum(chances / chances.sum())

    def __call__(self, rng: np.random.Generator) -> tuple[int, Window]:
        """The index of a scene, and a window in it. InputError where there seem to be none with content."""
        for _ in range(_TRIES):
            index = min(int(np.searchsorted(self.until, rng.random(), side="right")), len(self.scenes) - 1)
            scene, side = self.scenes[index], self.side
            rows, cols = scene.dull.shape
            window = Window(int(rng.integers(rows - side + 1)), int(rng.integers(cols - side + 1)), side, side)
            dull = scene.dull[window.slices].mean() > 0.97
            if scene.valid[window.slices].all() and (not dull or rng.random() < self.dull_keep):
                return index, window
        raise InputError(f"none of {_TRIES} windows drawn of {self.side} latents is valid and shows anything: lower "
                         "window_lat, raise data.flat_keep or look at the images")  # fmt: skip
