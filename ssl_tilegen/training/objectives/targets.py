"""The target of a denoiser, the distribution of its training times, and their weights.

On every level x = alpha clean + sigma noise; flow, v and epsilon differ in the levels and in what is asked of the
network. The engine's names of the predictions are the keys of `diffusion.parameterization.PARAMETERIZATIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.bundle import SCHEDULER
from ssl_tilegen.config.train.denoiser import DenoiserSettings, WindowSettings
from ssl_tilegen.nets.noise_schedule import NoiseLevels

_PARAMETERIZATIONS = {"flow": "flow", "v": "v_prediction", "epsilon": "epsilon"}
_PUBLISHED = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}
"""The schedule of latent diffusion (Rombach et al. 2022), which the paper uses."""


@dataclass(frozen=True, eq=False)
class Target:
    """``prediction`` and ``scheduler`` as the bundle records them; how times are drawn and weighted."""

    prediction: str
    scheduler: dict[str, Any]
    levels: NoiseLevels
    times: str = "uniform"
    mean: float = 0.0
    spread: float = 1.0
    gamma: float | None = None

    @classmethod
    def of(cls, s: WindowSettings) -> Target:
        """The target that the settings ask for."""
        if s.target == "flow":
            scheduler = SCHEDULER
        else:
            scheduler = {**_PUBLISHED, **s.scheduler, "prediction_type": _PARAMETERIZATIONS[s.target]}
        target = cls(_PARAMETERIZATIONS[s.target], scheduler, NoiseLevels(scheduler))
        if not isinstance(s, DenoiserSettings):
            return target  # other stages draw times of their own
        times = s.time_distribution or ("logit_normal" if s.target == "flow" else "uniform")
        gamma = s.min_snr_gamma if s.weighting == "min_snr" else None
        return replace(target, times=times, mean=s.time_mean, spread=s.time_spread, gamma=gamma)

    def sample_times(self, rng: np.random.Generator) -> np.ndarray:
        """A time as the network counts: in (0, 1) for flow, else a whole step of the schedule."""
        if self.times == "uniform":
            t = rng.random()
        else:
            t = 1 / (1 + np.exp(-(self.mean + self.spread * rng.standard_normal())))
        steps = self.scheduler["num_train_timesteps"]
        return np.array(t if self.prediction == "flow" else min(int(t * steps), steps - 1), np.float32)

    def time_at(self, fraction: float) -> np.ndarray:
        """The time at which noise / (signal + noise) is ``fraction``; of a schedule of steps the nearest of them."""
        if self.levels.alphas is None:
            return np.array(fraction, np.float32)
        every = torch.arange(len(self.levels.alphas))
        return np.array(int((self.noise_fraction(every) - fraction).abs().argmin()), np.float32)

    def noise_fraction(self, t: Tensor) -> Tensor:
        """Noise as a part of the whole at times (N,): 1 pure noise, 0 clean."""
        alpha, sigma = self.levels.to(t.device)(t)
        return sigma / (alpha + sigma)

    def clean_estimate(self, raw: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The clean latents (N, C, h, w) that a prediction ``raw`` for ``x`` at times (N,) means."""
        alpha, sigma = (level[:, None, None, None] for level in self.levels.to(t.device)(t))
        if self.prediction == "flow":
            return x - sigma * raw
        return (x - sigma * raw) / alpha if self.prediction == "epsilon" else alpha * x - sigma * raw

    def noisy(self, clean: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input and target of the network, (N, C, h, w) each, and the weight of each item (N,)."""
        alpha, sigma = (level[:, None, None, None] for level in self.levels.to(t.device)(t))
        x = alpha * clean + sigma * noise
        wanted = {
            "flow": lambda: noise - clean,
            "epsilon": lambda: noise,
            "v_prediction": lambda: alpha * noise - sigma * clean,
        }[self.prediction]()
        return x, wanted, self._weight(alpha.flatten(), sigma.flatten())

    def _weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """min(SNR, gamma) for the error of the clean estimate (Hang et al. 2023), carried over to the prediction: that
        error is sigma times the error of a flow or v, and sigma / alpha times that of the noise."""
        if self.gamma is None:
            return alpha.new_ones(len(alpha))
        snr = (alpha / sigma.clamp(min=1e-4)).square()
        clipped = snr.clamp(max=self.gamma)
        return clipped / snr.clamp(min=1e-8) if self.prediction == "epsilon" else clipped * sigma.square()
