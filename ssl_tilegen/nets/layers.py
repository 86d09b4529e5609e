"""Convolutional pieces whose output at a place depends on a finite neighbourhood only.

No normalisation over space and no global attention: so a network made of these may be run on any canvas, in pieces
with an exact halo, and gives what it would have given on the whole (DESIGN: locality).
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
        """What each position of (N, C, H, W) is multiplied by before the gain: (N, 1, H, W)."""
        # in float32: in bfloat16 it is slower, and other for other sizes
        if torch.is_grad_enabled():
            power = x.square().mean(1, keepdim=True, dtype=torch.float32)
        else:  # one pass, without the squares in memory
            norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
            power = norm.square_().div_(x.shape[1])
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
        self.features = sum(channels)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> means of all feature maps (N, C)."""
        return torch.cat([maps.mean((2, 3)) for maps in self.body(images)], 1)


def sinusoid(t: Tensor, channels: int, *, longest: float = 1.0, shortest: float = 0.001) -> Tensor:
    """Sinusoidal features of a scalar in [0, 1] (Vaswani et al. 2017): (N,) -> (N, channels)."""
    half = channels // 2
    exponents = torch.arange(half, device=t.device, dtype=torch.float32) / max(half - 1, 1)
    frequency = 2 * math.pi / (longest * (shortest / longest) ** exponents)
    phase = t.float()[:, None] * frequency
    return torch.cat([phase.sin(), phase.cos()], 1)
