"""A prior of grids: which embeddings lie beside which, given a label, a text or any vector for every cell.

It works on the lattice of cells as the painter works on the lattice of latents: a convolutional network of finite reach
whose condition is a field. So a layout of any size is one convolution, without windows to merge, and every cell may
have a condition of its own (a map of labels). A window smaller than the reach equals a canvas that ends there.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from ssl_tilegen.nets.layers import ChannelNorm, Recomputable, sinusoid, zeroed


class GridPrior(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Flow-matching denoiser (Lipman et al. 2023) of normalised cells: ``dim`` numbers of embedding, then validity.

    ``anchors`` (labels, C) keeps what is told of each label on average. Preconditioned per channel as ``FieldUNet`` is.
    Blocks are those of ConvNeXt (Liu et al. 2022) with a modulation per cell; one reaches one cell to each side.
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
    ) -> None:
        super().__init__()
        channels = dim + 1
        self._blocks, self._time_features = blocks, time_features
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("clean_std", torch.ones(channels))
        self.register_buffer("condition_mean", torch.zeros(condition_dim))
        self.register_buffer("condition_std", torch.ones(condition_dim))
        self.register_buffer("anchors", torch.zeros(labels, condition_dim))
        self.null = nn.Parameter(torch.zeros(condition_dim))
        self.time_in = nn.Linear(time_features, hidden)
        self.condition_in = nn.Conv2d(condition_dim, hidden, 1)
        self.condition_mix = nn.Conv2d(hidden, hidden, 1)
        self.act = nn.SiLU()
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.body: Any = nn.ModuleList(_CellBlock(width, expansion, hidden) for _ in range(blocks))
        self.norm_out = ChannelNorm(width)
        self.out = zeroed(nn.Conv2d(width, channels, 1))

    @property
    def halo(self) -> int:
        """Cells of context to each side that make a piece exact."""
        return self._blocks + 1

    def normalised(self, cells: Tensor) -> Tensor:
        """Embeddings and validity (..., D + 1) as the network sees them."""
        return (cells - self.mean) * self.scale

    def restored(self, x: Tensor) -> Tensor:
        """The inverse of ``normalised`` for (..., D + 1)."""
        return x / self.scale + self.mean

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None, inside: Tensor | None = None) -> Tensor:
        """Velocity noise - clean (N, D + 1, R, K) for noisy cells x, times t (N,) in [0, 1] and a condition or None.

        The condition is (N, C, R, K); numbers of it that are NaN are not known. ``inside`` (N, 1, R, K) in 0 and 1:
        where there are cells at all; the rest is as if beyond the edge.
        """
        time = t.float()[:, None, None, None]
        std = self.clean_std[:, None, None]
        spread = (1 - time) ** 2 * std**2 + time**2
        h = x * spread.rsqrt()
        h = self.stem(h if inside is None else h * inside)
        modulation = self._modulation(t, condition, x)
        for block in self.body:
            h = block(h if inside is None else h * inside, modulation)
        remainder = self.out(self.act(self.norm_out(h)))
        return (time - (1 - time) * std**2) / spread * x + std * spread.rsqrt() * remainder

    def _modulation(self, t: Tensor, condition: Tensor | None, x: Tensor) -> Tensor:
        """What all blocks take their scale and shift from: (N, hidden, R, K), or of one cell where all are alike."""
        null = self.null[None, :, None, None]
        if condition is None:
            field = null.expand(len(x), -1, 1, 1)
        else:
            field = (condition - self.condition_mean[:, None, None]) / self.condition_std[:, None, None]
            field = torch.where(field.isnan(), null, field)
        time = self.time_in(sinusoid(t, self._time_features))[:, :, None, None]
        mixed = self.condition_mix(self.act(self.condition_in(field) + time))
        return self.act(mixed + time)


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
        h = self.norm(self.around(x)) * (1 + scale) + shift
        return x + self.narrow(self.act(self.wide(h)))
