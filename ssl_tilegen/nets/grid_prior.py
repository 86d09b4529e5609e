"""A prior of grids: which embeddings lie beside which, given a label, a text or any vector for every cell.

It works on the lattice of cells as the painter works on the lattice of latents: a convolutional network of finite reach
whose condition is a field. So a layout of any size is one convolution, without windows to merge, and every cell may
have a condition of its own (a map of labels). A window smaller than the reach equals a canvas that ends there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_tilegen.nets.configurable import register_to_config
from ssl_tilegen.nets.layers import ChannelNorm, Recomputable, modulated, zeroed
from ssl_tilegen.nets.prior_base import CellNetwork


class GridPrior(CellNetwork):
    """Blocks are those of ConvNeXt (Liu et al. 2022) with a modulation per cell; one reaches one cell to each side.

    With ``breaks`` the network sees where a cell and the next to its right or below are of two parts.
    """

    _supports_gradient_checkpointing = True
    edge_layers = ("stem", "out", "time_in", "condition_in")

    @register_to_config
    def __init__(
        self,
        dim: int = 128,
        condition_dim: int = 8,
        labels: int = 0,
        width: int = 192,
        blocks: int = 6,
        expansion: int = 2,
        hidden: int = 128,
        time_features: int = 64,
        breaks: bool = False,
    ) -> None:
        super().__init__()
        channels = self._add_statistics(dim, condition_dim, labels)
        self._blocks, self._breaks = blocks, breaks
        self._add_modulation(condition_dim, hidden, time_features)
        self.stem = nn.Conv2d(channels + 2 * breaks, width, 3, padding=1)
        self.body: Any = nn.ModuleList(_CellBlock(width, expansion, hidden) for _ in range(blocks))
        self.norm_out = ChannelNorm(width)
        self.out = zeroed(nn.Conv2d(width, channels, 1))

    @property
    def halo(self) -> int:  # type: ignore[override]
        """Cells of context to each side that make a piece exact."""
        return self._blocks + 1

    def remainder(self, x: Tensor, t: Tensor, condition: Tensor, parts: Tensor | None) -> Tensor:
        """See `PriorNetwork.remainder`."""
        inside = None if parts is None else (parts > 0).to(x.dtype)
        if self._breaks:
            x = torch.cat([x, _breaks(x[:, :1] if parts is None else parts, none=parts is None)], 1)
        h = self.stem(x if inside is None else x * inside)
        modulation = self._modulation(t, condition)
        for block in self.body:
            h = block(h if inside is None else h * inside, modulation)
        return self.out(self.act(self.norm_out(h)))


def _breaks(parts: Tensor, *, none: bool) -> Tensor:
    """(N, 2, R, K): 1 where the next cell to the right, and the next below, is of another part."""
    found = torch.zeros_like(parts).repeat(1, 2, 1, 1)
    if not none:
        found[:, 0, :, :-1] = (parts[:, 0, :, 1:] != parts[:, 0, :, :-1]).to(found.dtype)
        found[:, 1, :-1] = (parts[:, 0, 1:] != parts[:, 0, :-1]).to(found.dtype)
    return found


class _CellBlock(Recomputable):
    """A depthwise 3 x 3 over the neighbours, then a perceptron within each cell, scaled and shifted by a map."""

    def __init__(self, width: int, expansion: int, hidden: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.modulate = zeroed(nn.Conv2d(hidden, 2 * width, 1))
        self.around = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.wide = nn.Conv2d(width, expansion * width, 1)
        self.narrow = zeroed(nn.Conv2d(expansion * width, width, 1))
        self.act = nn.SiLU()

    def compute(self, x: Tensor, modulation: Tensor) -> Tensor:  # type: ignore[override]
        """(N, W, R, K) and (N, hidden, R, K) -> (N, W, R, K)."""
        scale, shift = self.modulate(modulation).chunk(2, 1)
        h = modulated(self.norm(self.around(x)), scale, shift)
        return x + self.narrow(self.act(self.wide(h)))
