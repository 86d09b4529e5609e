"""A prior of grids: which embeddings lie beside which, given a label, a text or any vector for every cell.

It works on the lattice of cells as the painter works on the lattice of latents: a convolutional network of finite reach
whose condition is a field. So a layout of any size is one convolution, without windows to merge. Every cell may have a
condition of its own (a map of labels). A window smaller than the reach equals a canvas that ends there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from ssl_tilegen.errors import FormatError
from ssl_tilegen.nets.configurable import register_to_config
from ssl_tilegen.nets.layers import ChannelNorm, Recomputable, modulated, zeroed
from ssl_tilegen.nets.prior_base import CellNetwork


class GridPrior(CellNetwork):
    """Blocks are those of ConvNeXt (Liu et al. 2022) with a modulation per cell; one reaches one cell to each side."""

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
    ) -> None:
        super().__init__()
        channels = self._add_statistics(dim, condition_dim, labels)
        self._blocks = blocks
        self._add_modulation(condition_dim, hidden, time_features)
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.body: Any = nn.ModuleList(_CellBlock(width, expansion, hidden) for _ in range(blocks))
        self.norm_out = ChannelNorm(width)
        self.out = zeroed(nn.Conv2d(width, channels, 1))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """As of every network. ``breaks``, an input that was tried and left out, may be there as false."""
        if config.get("breaks"):
            raise FormatError("GridPrior: 'breaks' is no longer read; train the prior again without it")
        return super().from_config({name: value for name, value in config.items() if name != "breaks"})

    @property
    def halo(self) -> int:  # type: ignore[override]
        """Cells of context to each side that make a piece exact."""
        return self._blocks + 1

    def remainder(
        self, x: Tensor, t: Tensor, condition: Tensor, inside: Tensor | None, joints: Tensor | None
    ) -> Tensor:
        """See `CellNetwork.remainder`. It is not told of joints."""
        h = self.stem(x if inside is None else x * inside)
        modulation = self._modulation(t, condition)
        for block in self.body:
            h = block(h if inside is None else h * inside, modulation)
        return self.out(self.act(self.norm_out(h)))


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
