"""A prior of grids that attends: every cell of a window sees every other, wherever it lies.

Tokens are cells, so the border of a cell can be made to meet its neighbour's. It sees one window of a fixed side; over
a larger grid the windows are merged at every step, as the painter merges those of latents.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ssl_tilegen.nets.configurable import register_to_config
from ssl_tilegen.nets.layers import AdaptiveBlock, modulated, zeroed
from ssl_tilegen.nets.prior_base import CellNetwork


class GridTransformer(CellNetwork):
    """Diffusion transformer with adaptive layer norms that start as the identity (Peebles & Xie 2023), each cell
    modulated by its own condition.

    Where a cell lies enters only relative to others, as a learned bias of attention per offset (Liu et al. 2021);
    another bias says whether two cells are of one part. Windows smaller than ``window`` are understood too. With
    ``around`` each perceptron also looks at the cells beside its own (depthwise 3 x 3, as Mix-FFN of Xie et al. 2021):
    attention alone is slow to learn that neighbours meet.
    """

    _supports_gradient_checkpointing = True
    edge_layers = ("cells", "out", "time_in", "condition_in")

    @register_to_config
    def __init__(
        self,
        dim: int = 128,
        condition_dim: int = 8,
        labels: int = 0,
        window: int = 8,
        width: int = 192,
        depth: int = 6,
        heads: int = 6,
        expansion: int = 3,
        hidden: int = 96,
        time_features: int = 64,
        around: bool = True,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} must be a multiple of heads ({heads})")
        channels = self._add_statistics(dim, condition_dim, labels)
        self.window = window
        self._add_modulation(condition_dim, hidden, time_features, tokens=True)
        self.cells = nn.Linear(channels, width)
        self.body: Any = nn.ModuleList(
            _TransformerBlock(width, heads, expansion, hidden, window, around) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = zeroed(nn.Linear(hidden, 2 * width))
        self.out = zeroed(nn.Linear(width, channels))

    def remainder(self, x: Tensor, t: Tensor, condition: Tensor, parts: Tensor | None) -> Tensor:
        """See `PriorNetwork.remainder`."""
        rows, cols = x.shape[2:]
        if max(rows, cols) > (self.window or 0):
            raise ValueError(f"a window of {rows} x {cols} cells, this network takes {self.window} x {self.window}")
        modulation = self._modulation(t, condition.flatten(2).transpose(1, 2))
        offsets = _offsets(rows, cols, self.window or 0).to(x.device)
        others, hidden = _pairs(parts)
        inside = torch.ones_like(x[:, :1]) if parts is None else (parts > 0).to(x.dtype)
        h = self.cells(x.flatten(2).transpose(1, 2))
        for block in self.body:
            h = block(h, modulation, offsets, others, hidden, inside)
        scale, shift = self.modulate(modulation).chunk(2, 2)
        h = self.out(modulated(self.norm(h), scale, shift))
        return h.transpose(1, 2).unflatten(2, (rows, cols))


class _TransformerBlock(AdaptiveBlock):
    """An adaptive block whose attention is biased by where cells lie, and whose network may see the cells around."""

    def __init__(self, width: int, heads: int, expansion: int, hidden: int, window: int, around: bool) -> None:
        super().__init__(width, heads, hidden, expansion)
        self.of_offset = nn.Parameter(torch.zeros(heads * (2 * window - 1) ** 2))
        self.of_others = nn.Parameter(torch.zeros(heads))
        self.around: Any = nn.Conv2d(width, width, 3, padding=1, groups=width) if around else None

    def _add_network(self, width: int, wide: int) -> None:
        self.wide = nn.Linear(width, wide)
        self.narrow = nn.Linear(wide, width)
        self.act = nn.GELU(approximate="tanh")

    def _network(self, x: Tensor) -> Tensor:
        return self.narrow(self.act(self.wide(x)))

    def _bias(self, offsets: Tensor, others: Tensor | None, hidden: Tensor | None) -> Tensor:
        """The bias that is added to attention: (1 or N, heads, L, L)."""
        bias = self.of_offset.view(self.heads, -1)[:, offsets][None]
        if others is None or hidden is None:
            return bias
        return (bias + others[:, None] * self.of_others[:, None, None]).masked_fill(hidden[:, None], -1e4)

    def _beside(
        self, x: Tensor, offsets: Tensor, others: Tensor | None, hidden: Tensor | None, inside: Tensor
    ) -> Tensor:
        """Tokens with their cell's surroundings, of cells that are ``inside`` (N, 1, R, K)."""
        if self.around is None:
            return x
        cells = x.transpose(1, 2).unflatten(2, inside.shape[2:])
        return self.around(cells * inside).flatten(2).transpose(1, 2)

    def _attention(
        self, x: Tensor, offsets: Tensor, others: Tensor | None, hidden: Tensor | None, inside: Tensor
    ) -> Tensor:
        q, k, v = self._heads(x)
        weight = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5 + self._bias(offsets, others, hidden)
        return self.mix((weight.float().softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2))


@lru_cache(maxsize=8)
def _offsets(rows: int, cols: int, window: int) -> Tensor:
    """(L, L): the number of the offset from each cell of rows x cols to each other."""
    row, col = (index.flatten() for index in torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij"))
    down, right = row[None] - row[:, None] + window - 1, col[None] - col[:, None] + window - 1
    return down * (2 * window - 1) + right


def _pairs(parts: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Of each pair of cells: 1 where they are of two parts (N, L, L), and whether the second is not to be seen
    (N, 1, L). None for both where all are of one."""
    if parts is None:
        return None, None
    flat = parts.flatten(1)
    return (flat[:, :, None] != flat[:, None]).to(parts.dtype), (flat == 0)[:, None]
