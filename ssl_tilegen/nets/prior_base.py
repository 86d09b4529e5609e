"""The common base of the networks that sample grids: statistics of cells and conditions, and the preconditioning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_tilegen.nets.configurable import ConfigurableNetwork
from ssl_tilegen.nets.layers import Modulated


class CellNetwork(Modulated, ConfigurableNetwork):
    """Flow-matching denoiser (Lipman et al. 2023) of normalised cells: ``dim`` numbers of embedding, then validity.

    ``anchors`` (labels, C) keeps the mean condition of each label. Preconditioned per channel as ``FieldUNet`` is.
    Subclasses give ``remainder`` and ``halo``.
    """

    mean: Tensor
    scale: Tensor
    clean_std: Tensor
    condition_mean: Tensor
    condition_std: Tensor
    anchors: Tensor
    null: Any
    halo = 0
    places = 8
    """Places on each axis of a cell that ``masked`` tells apart."""

    def _add_statistics(self, dim: int, condition_dim: int, labels: int) -> int:
        """Buffers for cells and conditions; returns the number of channels of a cell."""
        channels = dim + 1
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("clean_std", torch.ones(channels))
        self.register_buffer("condition_mean", torch.zeros(condition_dim))
        self.register_buffer("condition_std", torch.ones(condition_dim))
        self.register_buffer("anchors", torch.zeros(labels, condition_dim))
        self.null = nn.Parameter(torch.zeros(condition_dim))
        return channels

    def normalised(self, cells: Tensor) -> Tensor:
        """Embeddings and validity (..., D + 1) as the network sees them."""
        return (cells - self.mean) * self.scale

    def restored(self, x: Tensor) -> Tensor:
        """The inverse of ``normalised`` for (..., D + 1)."""
        return x / self.scale + self.mean

    def masked(self, cells: Tensor, mask: Tensor) -> Tensor:
        """What normalised cells (D + 1, R, K) add to a mixture, of which ``mask`` (R * places, K * places) is theirs,
        0 or 1 at every place: here their share, in a network that sees inside of cells the part of their image."""
        return cells * self._share(mask)

    def _share(self, mask: Tensor) -> Tensor:
        """How much of each cell (1, R, K) a mask has."""
        return nn.functional.avg_pool2d(mask[None], self.places)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        condition: Tensor | None,
        inside: Tensor | None = None,
        joints: Tensor | None = None,
    ) -> Tensor:
        """Velocity noise - clean (N, D + 1, R, K) for noisy cells x, times t (N,) in [0, 1] and a condition or None.

        The condition is (N, C, R, K); numbers of it that are NaN are not known. ``inside`` (N, 1, R, K) is 0 where
        there are no cells, as if beyond the edge, and 1 elsewhere; None: all are cells. ``joints`` (N, 2, R, K) is 1
        where the cell to the left, or above, does not belong beside it; None: all belong together.
        """
        time = t.float()[:, None, None, None]
        std = self.clean_std[:, None, None]
        spread = (1 - time) ** 2 * std**2 + time**2
        remainder = self.remainder(x * spread.rsqrt(), t, self._condition(condition, x), inside, joints)
        return (time - (1 - time) * std**2) / spread * x + std * spread.rsqrt() * remainder

    def remainder(
        self, x: Tensor, t: Tensor, condition: Tensor, inside: Tensor | None, joints: Tensor | None
    ) -> Tensor:
        """The network's own output (N, D + 1, R, K), for cells of about unit variance.

        ``condition`` is (N, C, R, K), or (N, C, 1, 1) where all cells have the same.
        """
        raise NotImplementedError

    def _condition(self, condition: Tensor | None, x: Tensor) -> Tensor:
        """The condition, standardised, with the learned vector where nothing is known."""
        null = self.null[None, :, None, None]
        if condition is None:
            return null.expand(len(x), -1, 1, 1)
        field = (condition - self.condition_mean[:, None, None]) / self.condition_std[:, None, None]
        return torch.where(field.isnan(), null, field)
