"""A transformer as denoiser of one window: patches of latents, modulated by time and the window's embedding."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl_tilegen.nets.configurable import ConfigurableNetwork, register_to_config
from ssl_tilegen.nets.layers import AdaptiveBlock, modulated, sinusoid, zeroed

_TIME_FEATURES = 256
_TIMES = 1000.0


class DenoiserOutput(NamedTuple):
    """The output of diffusers' networks: the prediction (N, C, h, w)."""

    sample: Tensor


class WindowDiT(ConfigurableNetwork):
    """Diffusion transformer with adaptive layer norms that start as the identity (Peebles & Xie 2023).

    It is called as diffusers' conditional U-Nets are: latents (N, C, h, w), times (N,) in 0..1000 and one token
    (N, 1, D), zero where the condition is dropped. Positions are fixed sinusoids, so windows of any size are accepted.
    """

    _supports_gradient_checkpointing = True
    edge_layers = ("patches", "out", "time_in", "condition_in")

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        condition_dim: int = 192,
        sample_size: int = 32,
        patch_size: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
    ) -> None:
        super().__init__()
        if width % (4 * heads):
            raise ValueError(f"width {width} must be a multiple of 4 x heads ({heads})")
        self._patch, self._channels = patch_size, latent_channels
        self.patches = nn.Linear(latent_channels * patch_size**2, width)
        self.time_in = nn.Linear(_TIME_FEATURES, width)
        self.time_mix = nn.Linear(width, width)
        self.condition_in = nn.Linear(condition_dim, width)
        self.act = nn.SiLU()
        self.blocks: Any = nn.ModuleList(AdaptiveBlock(width, heads, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = zeroed(nn.Linear(width, 2 * width))
        self.out = zeroed(nn.Linear(width, latent_channels * patch_size**2))

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> DenoiserOutput:
        """Noisy latents (N, C, h, w), times (N,) and tokens (N, T, D) -> the prediction (N, C, h, w)."""
        p = self._patch
        rows, cols = sample.shape[2] // p, sample.shape[3] // p
        patches = nn.functional.pixel_unshuffle(sample, p).flatten(2).transpose(1, 2)
        x = self.patches(patches) + _positions(rows, cols, self.patches.out_features).to(sample)
        time = self.time_mix(self.act(self.time_in(sinusoid(timestep / _TIMES, _TIME_FEATURES))))
        condition = self.act(time + self.condition_in(encoder_hidden_states.mean(1)))
        for block in self.blocks:
            x = block(x, condition)
        scale, shift = self.modulate(condition)[:, None].chunk(2, 2)
        x = self.out(modulated(self.norm(x), scale, shift))
        return DenoiserOutput(nn.functional.pixel_shuffle(x.transpose(1, 2).unflatten(2, (rows, cols)), p))


def _positions(rows: int, cols: int, width: int) -> Tensor:
    """Fixed sinusoids (rows * cols, width): half of the features tell the row, half the column."""
    features = [sinusoid(torch.arange(n) / 1000, width // 2, longest=1.0, shortest=0.004) for n in (rows, cols)]
    both = [features[0][:, None].expand(-1, cols, -1), features[1][None].expand(rows, -1, -1)]
    return torch.cat(both, 2).flatten(0, 1)
