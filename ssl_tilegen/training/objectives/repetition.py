"""Patterns that repeat from latent to latent: what a decoder of 8 x makes of an error that all latents share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_tilegen.training.objectives.moments import block_moments

_REPEATS = 4  # the fewest along a side at which a period is looked at
_PERIODS = 3  # that are looked at: each twice the one before
_FLOOR = 3e-4  # of the variance, in images of [-1, 1]: a deviation of about 2 of 255 grey levels
_MOST = 3.0  # deviations
_STEP = 4e-3  # added to differences of neighbouring pixels: half of a grey level


def repetition_difference(made: Tensor, real: Tensor, period: int) -> Tensor:
    """How unlike made images (N, 3, H, W) are to real ones in what repeats every ``period`` px or multiples of it: per
    item (N,) the sum of `pattern_difference` and, at twice the period where there is room, `profile_difference`."""
    longer = 2 * period if min(made.shape[2:]) > 2 * period + 1 else period
    return pattern_difference(made, real, period) + profile_difference(made, real, longer)


def pattern_difference(made: Tensor, real: Tensor, period: int) -> Tensor:
    """How strong a pattern is in made images (N, 3, H, W) and not in real ones, per item: (N,). It repeats every
    ``period`` px, or twice or four times as many.

    (A U-Net has such longer periods, too: a pattern that changes its sign from latent to latent.) The difference of the
    images is divided by their deviation (the larger one) within ``period`` px: on even ground the eye sees a weave that
    texture would hide. It is averaged over the repeats, place by place. The mean square, times the repeats by 16,
    counts: about 2 / 16 where the two have unlike textures and no pattern, 0 where they are the same.
    """
    rows, cols = (length // period * period for length in made.shape[2:])
    made, real = (image[:, :, :rows, :cols].float() for image in (made, real))
    deviation = torch.maximum(*(_deviation(image.detach(), period) for image in (made, real)))
    difference = (made - real) / nn.functional.interpolate(deviation, scale_factor=period)
    difference = difference.clamp(-_MOST, _MOST)  # something that is not where it should be is no pattern
    longer = [period * 2**double for double in range(_PERIODS)]
    periods = [p for p in longer if min(rows, cols) >= p * _REPEATS] or longer[:1]
    return torch.stack([_repeated(difference, p) for p in periods]).mean(0)


def _deviation(image: Tensor, period: int) -> Tensor:
    """Of the blocks of ``period`` px, over all colours (N, 1, h, w)."""
    return (block_moments(image, period)[1].mean(1, keepdim=True) + _FLOOR).sqrt()


def _repeated(difference: Tensor, period: int) -> Tensor:
    """The mean square of what repeats, times the number of repeats by 16 (N,)."""
    rows, cols = (length // period for length in difference.shape[2:])
    whole = difference[:, :, : rows * period, : cols * period]
    pattern = whole.unflatten(3, (cols, period)).unflatten(2, (rows, period)).mean((2, 4))
    return (pattern - pattern.mean((2, 3), keepdim=True)).square().mean((1, 2, 3)) * (rows * cols / 16)


def profile_difference(made: Tensor, real: Tensor, period: int) -> Tensor:
    """How unlike images (N, 3, H, W) are in where, within a period, neighbouring pixels differ, per item: (N,).

    The mean absolute differences of neighbours, and those of their differences, at each of the ``period`` places along
    rows and along columns, divided by their mean over the places. Then the mean square of the difference of the
    logarithms. Blocks whose seams or middles show have a profile of their own, even where no pattern repeats: 0.1 is
    one that differs by 30 %.
    """
    costs = [(_profile(made.float(), axis, order, period) - _profile(real.float(), axis, order, period)).square()
             for axis in (2, 3) for order in (1, 2)]  # fmt: skip
    return torch.stack(costs).mean((0, 2))


def _profile(image: Tensor, axis: int, order: int, period: int) -> Tensor:
    """The logarithm of how strong differences of an order are at each place of a period (N, period), mean about 0."""
    differences = image.diff(order, axis).abs().mean((1, 5 - axis)) + _STEP
    whole = differences[:, : differences.shape[1] // period * period].unflatten(1, (-1, period)).mean(1)
    return (whole / whole.mean(1, keepdim=True)).log()
