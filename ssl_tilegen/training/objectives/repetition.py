"""Patterns that repeat from latent to latent: what a decoder of 8 x makes of an error that all latents share."""

from __future__ import annotations

import torch
from torch import Tensor

_LATENTS = 4  # side of the areas within which a pattern counts as repeated
_FLOOR = 3e-4  # of the variance, in images of [-1, 1]: a deviation of about 2 of 255 grey levels
_STEP = 4e-3  # added to differences of neighbouring pixels: half of a grey level


def repetition_difference(made: Tensor, real: Tensor, period: int) -> Tensor:
    """How strong a pattern of ``period`` px is in made images (N, 3, H, W) and not in real ones, per item: (N,).

    In each area of 4 x 4 periods the difference of the images is averaged over the periods, place by place. The
    variance of what is left is divided by that of the real image within periods: on even ground the eye sees a weave
    that texture would hide. The mean over areas and colours. About 2 / 16 where the two have unlike textures and no
    such pattern, 0 where they are the same.
    """
    side = min(_LATENTS, made.shape[2] // period, made.shape[3] // period)
    difference, wanted = (_periods(image.float(), period, side) for image in (made - real, real))
    repeated = difference.mean((3, 6))
    pattern = (repeated - repeated.mean((3, 5), keepdim=True)).square().mean((3, 5))
    texture = (wanted - wanted.mean((4, 7), keepdim=True)).square().mean((3, 4, 6, 7))
    return (pattern / (texture + _FLOOR)).mean((1, 2, 3))


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


def _periods(image: Tensor, period: int, side: int) -> Tensor:
    """(N, 3, H, W) -> (N, 3, areas, side, period, areas, side, period), without what is left over."""
    rows, cols = (length // (period * side) for length in image.shape[2:])
    whole = image[:, :, : rows * side * period, : cols * side * period]
    return whole.unflatten(3, (cols, side, period)).unflatten(2, (rows, side, period))
