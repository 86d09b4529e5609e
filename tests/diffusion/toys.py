"""Small models with known behaviour: an exact Gaussian, a convolution of finite reach, a network of windows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from ssl_tilegen.diffusion.coarse_latents import LocalCondition
from ssl_tilegen.diffusion.conditioning import Conditioning, FieldConditioning, TokenConditioning
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.schedule import Step

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, deviation^2), element by element: the best clean estimate and the exact end of the flow."""

    mean: float = 0.7
    deviation: float = 0.4

    def clean(self, x: Tensor, cond: Tensor | None, step: Step) -> Tensor:
        gain = step.alpha * self.deviation**2 / (step.alpha**2 * self.deviation**2 + step.sigma**2)
        return self.mean + gain * (x - step.alpha * self.mean)

    def flowed(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """Where the probability-flow equation takes x of rung (alpha, sigma): the same quantile of the data."""
        return self.mean + self.deviation * (x - alpha * self.mean) / (alpha**2 * self.deviation**2 + sigma**2) ** 0.5


def _kernel(channels: int, side: int, seed: int) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(channels, channels, side, side, generator=made) / (channels**0.5 * side)


@dataclass(frozen=True)
class LocalToy:
    """Two levels of convolutions with zero padding; halves the lattice inside, so it must be aligned. Flow."""

    latent_channels: int = 3
    window_lat: int = 16
    halo_lat: int = 8
    field_stride_lat: int = 4
    factor: int = 8
    decoder_halo_lat: int | None = 2
    scheduler_config: dict = field(default_factory=lambda: dict(FLOW))
    prediction_type: str = "flow"
    device: torch.device = CPU

    @property
    def conditioning(self) -> Conditioning:
        return FieldConditioning(LocalCondition(self.field_stride_lat), quantum_lat=self.field_stride_lat)

    def predict(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        c = self.latent_channels
        h = torch.tanh(conv2d(x, _kernel(c, 3, 0), padding=1))
        if cond is not None:
            h = h + interpolate(cond[:, :c], scale_factor=self.field_stride_lat)[..., : x.shape[2], : x.shape[3]]
        low = torch.tanh(conv2d(avg_pool2d(h, 2), _kernel(c, 3, 1), padding=1))
        h = h + interpolate(low, scale_factor=2)
        return conv2d(h, _kernel(c, 3, 2), padding=1) + t[:, None, None, None] * x

    def decode(self, latents: Tensor) -> Tensor:
        h = torch.tanh(conv2d(latents, _kernel(self.latent_channels, 3, 3), padding=1))
        h = conv2d(h, _kernel(self.latent_channels, 3, 4), padding=1)
        return interpolate(h[:, :3], scale_factor=self.factor, mode="nearest")


@dataclass(frozen=True)
class WindowToy(LocalToy):
    """Sees its whole window at once (subtracts its mean), and one condition vector."""

    decoder_halo_lat: int | None = None

    @property
    def conditioning(self) -> Conditioning:
        return TokenConditioning()

    def predict(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        assert x.shape[2:] == (self.window_lat, self.window_lat)
        shift = 0 if cond is None else cond[:, 0, : self.latent_channels, None, None]
        return x - 0.5 * x.mean((2, 3), keepdim=True) - shift


def random_field(rows: int = 5, cols: int = 6, dim: int = 4, *, seed: int = 0, **more) -> ConditionField:
    """Cells of 64 px on an 8 px latent, so a grid of 5 x 6 covers 40 x 48 latents."""
    cells = np.random.default_rng(seed).normal(size=(rows, cols, dim)).astype(np.float32)
    return ConditionField.of_grid(cells, tile_px=64, stride_px=64, factor=8, **more)
