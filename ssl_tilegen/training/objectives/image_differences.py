"""How painted images differ from real ones of the same condition: in colours, in features, and which parts are seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_tilegen.training.objectives.moments import block_moments

_BLOCK_PX = 8
_EVEN = 0.05  # the deviation, in images of [-1, 1], at which a block counts half: about 6 of 255 grey levels


def colour_difference(made: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference of images (N, 3, H, W) averaged over blocks of 8 px, per item: (N,). Even blocks count
    most: there the eye sees a tint that texture hides."""
    spread = block_moments(real, _BLOCK_PX)[1].mean(1, keepdim=True).sqrt()
    even = _EVEN / (_EVEN + spread)
    return (even * nn.functional.avg_pool2d(made - real, _BLOCK_PX)).abs().mean((1, 2, 3))


def feature_difference(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of feature maps, in units of the mean deviation of the real channels; the mean over the
    levels."""
    pairs = zip(made, real, strict=True)
    return torch.stack([(a - b).float().abs().mean() / b.float().std((0, 2, 3)).mean().clamp(min=1e-3)
                        for a, b in pairs]).mean()  # fmt: skip


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over all items, those outside ``mask`` as zero: however a batch is split, its parts average to it."""
    return (values * mask).mean()


def parts_at(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """The part (3, side, side) of each image (N, 3, H, W) that starts at its corner (N, 2): (row, col) in px."""
    return torch.stack([image[:, row : row + side, col : col + side]
                        for image, (row, col) in zip(images, corners.tolist(), strict=True)])  # fmt: skip
