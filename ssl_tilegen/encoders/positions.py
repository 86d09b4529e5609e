"""Tables of positions, stretched from the side they were trained at to the one that is wanted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_DINO_OFFSET = 0.1


def stretched(table: Tensor, side: int, how: str) -> Tensor:
    """A table (1, prefix + n^2, D) -> (1, prefix + side^2, D).

    ``how``: ``dino`` is bicubic by the factor (side + 0.1) / n, which is not the ratio of the sides, as DINO and HIPT
    do; ``bicubic`` is by the ratio, without antialiasing, as transformers does.
    """
    count = table.shape[1]
    own = math.isqrt(count)
    prefix = count - own * own
    if own == side:
        return table
    grid = table[:, prefix:].reshape(1, own, own, -1).permute(0, 3, 1, 2).float()
    if how == "dino":
        factor = (side + _DINO_OFFSET) / own
        grid = torch.nn.functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    else:
        grid = torch.nn.functional.interpolate(grid, size=(side, side), mode="bicubic")
    moved = grid.permute(0, 2, 3, 1).reshape(1, side * side, -1)
    return torch.cat([table[:, :prefix], moved.to(table.dtype)], 1)
