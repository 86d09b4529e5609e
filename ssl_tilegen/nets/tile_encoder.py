"""The encoder of a tile in two parts: its content, and its coarse layout.

A self-supervised network is trained not to care where things lie in its tile. So an image painted from its vector has
the right tissue in the wrong places. The second part restores them: a coarse image of the tile, in its principal
components. Both are linear heads, so the whole is one network that maps a tile to one vector.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class TileEncoder(nn.Module):
    """Tiles (N, 3, S, S), normalised -> (N, content_dim + layout_dim): content first, layout last.

    ``net`` is any network (N, 3, S, S) -> (N, features). Layout is a linear map of the tile averaged to
    ``layout_px`` x ``layout_px``.
    """

    def __init__(self, net: nn.Module, features: int, content_dim: int, layout_px: int, layout_dim: int) -> None:
        super().__init__()
        self.net: Any = net
        self.layout_px = layout_px
        self.content = nn.Linear(features, content_dim)
        self.layout = nn.Linear(3 * layout_px**2, layout_dim)

    def forward(self, tiles: Tensor) -> Tensor:
        """Normalised tiles (N, 3, H, W) -> content and layout (N, D)."""
        return torch.cat([self.content(self.net(tiles)), self.layout(self.coarse(tiles))], 1)

    def coarse(self, tiles: Tensor) -> Tensor:
        """The averaged image of each tile (N, 3 * layout_px ** 2)."""
        return nn.functional.adaptive_avg_pool2d(tiles, self.layout_px).flatten(1)

    @torch.no_grad()
    def decode_layout(self, layout: Tensor) -> Tensor:
        """The averaged images (..., 3, layout_px, layout_px) that layout parts (..., L) most likely are."""
        flat = (layout - self.layout.bias) @ torch.linalg.pinv(self.layout.weight).T
        return flat.unflatten(-1, (3, self.layout_px, self.layout_px))

    @torch.no_grad()
    def set_content(self, one: Tensor, other: Tensor, scale: Tensor | None = None) -> None:
        """Fit the content head to features (N, features) of two views of each of N tiles.

        The ``content_dim`` directions are kept along which the two views of a tile agree best, after within-class
        covariance normalisation (Hatch et al. 2006) with the tile as the class. They are laid out as the principal
        components of what they explain of the features, times ``scale`` (features,): a direction is as long as it
        shows in them. (If all were of one length, the many weak ones would drown the few that tell classes apart.)
        The squared length of the part is 1 on average.
        """
        mean = (one.mean(0) + other.mean(0)).double() / 2
        total = torch.cov(torch.cat([one, other]).double().T)
        within = torch.cov(((one - other).double() / 2**0.5).T)
        variance, vectors = torch.linalg.eigh(total)
        whiten = vectors / variance.clamp(min=1e-8).sqrt()
        _, turn = torch.linalg.eigh(whiten.T @ within @ whiten)  # ascending: the most reproducible first
        kept = whiten @ turn[:, : self.content.out_features]
        shown = total @ kept if scale is None else scale.double()[:, None] * (total @ kept)
        _, length, axes = torch.linalg.svd(shown, full_matrices=False)
        _set_linear(self.content, kept @ axes.T * length / length.norm(), mean)

    @torch.no_grad()
    def set_layout(self, tiles: Tensor) -> None:
        """Fit the layout head to the principal components of (N, 3, S, S) tiles.

        Each component's deviation is the square root of its own, so that colour does not drown the rest; the squared
        length of the part is 1 on average.
        """
        coarse = self.coarse(tiles).double()
        mean = coarse.mean(0)
        variance, vectors = torch.linalg.eigh(torch.cov((coarse - mean).T))
        order = variance.argsort(descending=True)[: self.layout.out_features]
        deviation = variance[order].clamp(min=1e-8).sqrt()
        _set_linear(self.layout, vectors[:, order] / deviation.sqrt() / deviation.sum().sqrt(), mean)


def _set_linear(layer: nn.Linear, basis: Tensor, mean: Tensor) -> None:
    """Make ``layer`` (x - mean) @ basis, with basis (in, out)."""
    layer.weight.copy_(basis.T)
    layer.bias.copy_(-(mean @ basis))
