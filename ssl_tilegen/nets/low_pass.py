"""The low frequencies of maps: a separable binomial filter, in as many rounds as it takes."""

from __future__ import annotations

from torch import Tensor, nn

REACH = 2  # of one round
_BINOMIAL = (6 / 16, 4 / 16, 1 / 16)  # order 4, from the middle


def low_frequencies(maps: Tensor, rounds: int) -> Tensor:
    """``maps`` (N, C, h, w) without their high frequencies, in float32.

    A round passes all of a constant, 93 % of a period of 16 positions, 73 % of one of eight and 25 % of one of four; it
    reaches `REACH` positions to each side. The values at the edges are continued beyond them.
    """
    for _ in range(rounds):
        maps = _filtered(_filtered(maps, 2), 3)
    return maps


def _filtered(maps: Tensor, axis: int) -> Tensor:
    size, beyond = maps.shape[axis], [REACH, REACH]
    wide = nn.functional.pad(maps, [0, 0, *beyond] if axis == 2 else [*beyond, 0, 0], "replicate")
    far, near, middle, after, farther = (wide.narrow(axis, shift, size) for shift in range(2 * REACH + 1))
    return _BINOMIAL[0] * middle + _BINOMIAL[1] * (near + after) + _BINOMIAL[2] * (far + farther)
