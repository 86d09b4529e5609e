"""Conditioners of window denoisers: from the embeddings of the cells under a window to the tokens a network attends to.

A conditioner takes cells (N, K, D), NaN throughout where the condition is dropped (classifier-free guidance), and gives
tokens (N, T, E). Its null, the tokens of a window without a condition, is a tensor of the bundle.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


def scaled(vectors: Tensor, scaling: str) -> Tensor:
    """Vectors (..., D) as a conditioner takes them: as they are (``none``), at ``unit_length``, or ``standardised``
    over their own channels (mean 0, deviation 1)."""
    if scaling == "unit_length":
        return nn.functional.normalize(vectors, dim=-1)
    if scaling == "standardised":
        centred = vectors - vectors.mean(-1, keepdim=True)
        return centred / (vectors.std(-1, keepdim=True) + 1e-8)
    return vectors


class TokenConditioner(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """One token per cell, and constant tokens after them; no weights that learn.

    Args:
        dim: Length D of a cell's embedding.
        cells: Cells K under a window, row by row.
        scaling: See ``scaled``.
        constant_tokens: Tokens that are always the same. Each adds one channel, in which it alone is 1, so a linear
            layer behind the conditioner can give it any value: E = D + constant_tokens.
        has_table: Whether a ``table`` (K, D) of positions is added to the cells and to the null.
    """

    @register_to_config
    def __init__(
        self, dim: int, cells: int = 1, scaling: str = "none", constant_tokens: int = 0, has_table: bool = False
    ) -> None:
        super().__init__()
        self.null: Tensor
        self.register_buffer("null", torch.zeros(cells, dim))
        self.table: Tensor | None
        self.register_buffer("table", torch.zeros(cells, dim) if has_table else None)

    def forward(self, cells: Tensor) -> Tensor:
        """(N, K, D) -> (N, K + constant_tokens, D + constant_tokens)."""
        config: Any = self.config
        known = scaled(torch.where(cells.isnan(), 0.0, cells), config.scaling)
        tokens = torch.where(cells.isnan(), self.null.to(known), known)
        if self.table is not None:
            tokens = tokens + self.table
        return _with_constants(tokens, config.constant_tokens)

    def unconditional(self, count: int) -> Tensor:
        """The tokens of ``count`` windows without a condition."""
        config: Any = self.config
        tokens = self.null if self.table is None else self.null + self.table
        return _with_constants(tokens.expand(count, -1, -1), config.constant_tokens)


class GridConditioner(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A small transformer over at most ``side`` x ``side`` cells and the magnification that they were read at.

    Fewer cells stand in the middle of the sequence among learned padding, more are averaged. The null is zero, after
    the network (Yellapragada et al. 2025, ZoomLDM).

    Args:
        dim: Length D of a cell's embedding.
        cells: Cells under a window, row by row; a square number.
        level: Which magnification the bundle paints at, 0 the finest.
        levels: How many magnifications the network knows.
        width, out_dim, depth, heads, hidden: The transformer, its tokens' length E, and its two-layer networks' width.
        side: Cells on each axis of the longest sequence.
    """

    @register_to_config
    def __init__(
        self,
        dim: int,
        cells: int = 1,
        level: int = 0,
        levels: int = 8,
        width: int = 512,
        out_dim: int = 512,
        depth: int = 12,
        heads: int = 8,
        hidden: int = 2048,
        side: int = 8,
        scaling: str = "standardised",
    ) -> None:
        super().__init__()
        self.mag_embedding = nn.Embedding(levels, width)
        self.dim_reduce = nn.Linear(dim, width)
        self.pad_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, side**2 + 1, width))
        self.layers: Any = nn.ModuleList(_Layer(width, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.final_proj = nn.Linear(width, out_dim)
        self.layer_norm = nn.LayerNorm(out_dim)

    def forward(self, cells: Tensor) -> Tensor:
        """(N, K, D) -> (N, side^2 + 1, E)."""
        config: Any = self.config
        dropped = cells.isnan().flatten(1).any(1)
        known = scaled(self._averaged(torch.where(cells.isnan(), 0.0, cells)), config.scaling)
        level = torch.full((len(cells),), config.level, device=cells.device)
        x = torch.cat([self.mag_embedding(level)[:, None], self._centred(self.dim_reduce(known))], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        tokens = self.layer_norm(self.final_proj(self.norm(x)))
        return torch.where(dropped[:, None, None], 0.0, tokens)

    def unconditional(self, count: int) -> Tensor:
        """The tokens of ``count`` windows without a condition."""
        config: Any = self.config
        return self.positions.new_zeros(count, config.side**2 + 1, config.out_dim)

    def _averaged(self, cells: Tensor) -> Tensor:
        """At most side x side cells, each the mean of those that it stands for."""
        side = round(cells.shape[1] ** 0.5)
        config: Any = self.config
        most = config.side
        if side <= most:
            return cells
        plane = cells.transpose(1, 2).unflatten(2, (side, side))
        return nn.functional.adaptive_avg_pool2d(plane, most).flatten(2).transpose(1, 2)

    def _centred(self, cells: Tensor) -> Tensor:
        """(N, K, W) in the middle of side^2 places; a single one stands just behind the middle."""
        config: Any = self.config
        places = config.side**2
        count = cells.shape[1]
        first = places // 2 if count == 1 else places // 2 - count // 2
        padding = self.pad_token.to(cells).expand(len(cells), places, -1)
        return torch.cat([padding[:, :first], cells, padding[:, first + count :]], 1)


class _Layer(nn.Module):
    """Self-attention and a two-layer network, each behind a layer norm."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


def _with_constants(tokens: Tensor, count: int) -> Tensor:
    """Tokens (N, T, D) with ``count`` one-hot tokens of new channels behind them."""
    if not count:
        return tokens
    dim = tokens.shape[2]
    constants = torch.eye(count, dim + count, device=tokens.device, dtype=tokens.dtype).roll(dim, 1)
    return torch.cat([nn.functional.pad(tokens, (0, count)), constants.expand(len(tokens), -1, -1)], 1)
