"""Convolutional pieces whose output at a place depends on a finite neighbourhood only.

No normalisation over space and no global attention: so a network made of these may be run on any canvas, in pieces with
an exact halo. It gives the same as on the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ChannelNorm(nn.Module):
    """Root-mean-square normalisation over the channels of each position (Zhang & Sennrich 2019), with a gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * self.inverse_rms(x) * self.gain[:, None, None]

    def inverse_rms(self, x: Tensor) -> Tensor:
        """The factor of each position of (N, C, H, W) before the gain: (N, 1, H, W)."""
        if torch.is_grad_enabled():
            power = x.square().mean(1, keepdim=True, dtype=torch.float32)
        else:  # one pass, summed in float32, without the squares or a copy in float32 in memory
            power = torch.linalg.vector_norm(x, dim=1, keepdim=True).float().square_().div_(x.shape[1])
        return power.add(1e-6).rsqrt().to(x.dtype)


def zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """``layer`` with all parameters set to zero: a branch that starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def silu_(x: Tensor) -> Tensor:
    """SiLU in place, for inference."""
    return nn.functional.silu(x, inplace=True)


class Recomputable(nn.Module):
    """A block whose activations can be computed again in the backward pass instead of being kept.

    diffusers' ``enable_gradient_checkpointing`` of the network around it sets the flag. Subclasses give ``compute``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """``compute``, with activations recomputed in the backward pass where that is switched on."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(self.compute, *inputs, use_reentrant=False)
        return self.compute(*inputs)

    def compute(self, *inputs: Tensor) -> Tensor:
        """The layer itself; subclasses define it."""
        raise NotImplementedError


class PlainBlock(Recomputable):
    """x + conv(silu(conv(silu(x)))): a residual block without normalisation, for autoencoders."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.act = nn.SiLU()

    def compute(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(N, C, H, W) -> (N, C, H, W); reaches 2 positions to each side."""
        if torch.is_grad_enabled():
            return x + self.conv_out(self.act(self.conv_in(self.act(x))))
        return self.conv_out(silu_(self.conv_in(self.act(x)))).add_(x)  # the same, in place


class PooledMaps(nn.Module):
    """The means over space of feature maps: images (N, 3, H, W) -> (N, features), the sum of their channels.

    ``body`` makes a list of maps (N, C_k, h_k, w_k) of images; ``channels`` are the C_k.
    """

    def __init__(self, body: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        self.body: Any = body
        self.channels, self.features = list(channels), sum(channels)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> means of all feature maps (N, C)."""
        return torch.cat([maps.mean((2, 3)) for maps in self.body(images)], 1)


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalised ``x`` scaled and shifted by a condition; both are 0 for none."""
    return x * (1 + scale) + shift


class Modulated(nn.Module):
    """A network with one modulation for all its blocks, of a time and of a condition at every place.

    Subclasses call ``_add_modulation``, and give the blocks the result of ``_modulation``.
    """

    def _add_modulation(self, condition_dim: int, hidden: int, time_features: int) -> None:
        """Layers for a condition that is a field (N, C, h, w)."""
        self._time_features = time_features
        self.time_in = nn.Linear(time_features, hidden)
        self.condition_in = nn.Conv2d(condition_dim, hidden, 1)
        self.condition_mix = nn.Conv2d(hidden, hidden, 1)
        self.act = nn.SiLU()

    def _modulation(self, t: Tensor, condition: Tensor) -> Tensor:
        """The input of the blocks' scale and shift: (N, hidden, h, w)."""
        time = self.time_in(sinusoid(t, self._time_features))[:, :, None, None]
        return self.act(self.condition_mix(self.act(self.condition_in(condition) + time)) + time)


class AdaptiveBlock(Recomputable):
    """Attention and a two-layer network, each behind a layer norm that a condition scales, shifts and gates; it starts
    as the identity (adaLN-Zero, Peebles & Xie 2023).

    Args:
        width: Length of a token.
        heads: Heads of attention.
        hidden: Length of the condition.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_one = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_two = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulate = zeroed(nn.Linear(hidden, 6 * width))

    def _attention(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.mix(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def compute(self, x: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        """Tokens (N, L, W) and conditions (N, hidden) -> (N, L, W)."""
        scale_a, shift_a, gate_a, scale_b, shift_b, gate_b = self.modulate(condition)[:, None].chunk(6, 2)
        x = x + gate_a * self._attention(modulated(self.norm_one(x), scale_a, shift_a))
        return x + gate_b * self.mlp(modulated(self.norm_two(x), scale_b, shift_b))


def sinusoid(t: Tensor, channels: int, *, longest: float = 1.0, shortest: float = 0.001) -> Tensor:
    """Sinusoidal features of a scalar in [0, 1] (Vaswani et al. 2017): (N,) -> (N, channels)."""
    half = channels // 2
    exponents = torch.arange(half, device=t.device, dtype=torch.float32) / max(half - 1, 1)
    frequency = 2 * math.pi / (longest * (shortest / longest) ** exponents)
    phase = t.float()[:, None] * frequency
    return torch.cat([phase.sin(), phase.cos()], 1)
