"""Local moments of latents: their mean and deviation in blocks, compared without asking where things lie."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_BLOCK_LAT = 8
_FLOOR = 0.01


def moment_difference(made: Tensor, real: Tensor) -> Tensor:
    """How far latents (N, C, h, w) differ in the mean and the deviation of blocks, per item: (N,).

    The mean over channels and blocks of two terms: the difference of the means, in deviations of the real block, and
    that of the logarithms of the deviations. Squared errors draw deviations below those of real latents, and an
    adversarial loss may leave a constant pattern; both show here.
    """
    block = min(_BLOCK_LAT, *made.shape[2:])
    (own_mean, own_variance), (mean, variance) = (block_moments(latents.float(), block) for latents in (made, real))
    of_means = (own_mean - mean).abs() / (variance + _FLOOR).sqrt()
    of_deviations = ((own_variance + _FLOOR).log() - (variance + _FLOOR).log()).abs() / 2
    return (of_means + of_deviations).mean((1, 2, 3))


def block_moments(latents: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (N, C, h, w) of the blocks of latents or images (N, C, H, W)."""
    mean = nn.functional.avg_pool2d(latents, block)
    square = nn.functional.avg_pool2d(latents.square(), block)
    return mean, torch.clamp(square - mean.square(), min=0.0)
