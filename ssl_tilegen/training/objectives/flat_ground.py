"""The weight of places by how much there is to see at them."""

from __future__ import annotations

import torch
from torch import Tensor

_STILL_FLAT = 0.05  # of the mean variance: below it all places count alike


def flat_ground_counts(clean: Tensor, power: Tensor) -> Tensor:
    """Weights (N, h, w) of mean 1: the variance of the 3 x 3 ``clean`` latents (N, C, h, w) around a place to the
    -``power`` (N,). The power ought to be less at noisy times: which places are flat is still to be guessed then."""
    around = torch.nn.functional.avg_pool2d(clean, 3, 1, 1, count_include_pad=False)
    square = torch.nn.functional.avg_pool2d(clean.square(), 3, 1, 1, count_include_pad=False)
    detail = (square - around.square()).mean(1).clamp(min=0)
    detail = detail / detail.mean().clamp(min=1e-12) + _STILL_FLAT
    usual = torch.stack([(detail**-p).mean() for p in power])
    return detail ** -power[:, None, None] / usual[:, None, None]
