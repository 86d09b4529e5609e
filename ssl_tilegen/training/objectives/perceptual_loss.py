"""Differences of images in the inner features of our own encoder: no downloaded network is needed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.errors import InputError


class PerceptualLoss(nn.Module):
    """The frozen encoder of a bundle, asked for its feature maps at all depths."""

    gain: Tensor
    shift: Tensor

    def __init__(self, bundle: ModelBundle) -> None:
        super().__init__()
        encoder, info = bundle.encoder, bundle.info.encoder
        self.net: Any = getattr(encoder, "net", encoder)
        if not hasattr(self.net, "forward_intermediates"):
            raise InputError(f"feature_bundle {bundle.folder}: its encoder {info.id} has no inner features")
        self.tile_px = info.tile_px
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (info.mean, info.std))
        self.register_buffer("gain", 0.5 / std)
        self.register_buffer("shift", (0.5 - mean) / std)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Always in the mode of inference."""
        return super().train(False)

    def maps(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [-1, 1] -> maps (N, C, h, w) of unit length at every place, one per depth."""
        tiles = _tiled(images, self.tile_px) * self.gain + self.shift
        found = self.net.forward_intermediates(tiles, intermediates_only=True, output_fmt="NCHW")
        return [nn.functional.normalize(level.float(), dim=1) for level in found]

    def difference(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean squared distance of the maps of two sets of images (LPIPS, Zhang et al. 2018, with equal weights)."""
        with torch.no_grad():
            wanted = self.maps(b)
        return torch.stack([(x - y).square().sum(1).mean() for x, y in zip(self.maps(a), wanted, strict=True)]).mean()

    @torch.no_grad()
    def vectors(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> one vector per tile: the mean of the deepest map."""
        tiles = _tiled(images, self.tile_px) * self.gain + self.shift
        deepest = self.net.forward_intermediates(tiles, intermediates_only=True, output_fmt="NCHW")[-1]
        return deepest.float().mean((2, 3))


def _tiled(images: Tensor, side: int) -> Tensor:
    """The whole tiles of images (N * T, 3, side, side); images smaller than a tile are enlarged to one."""
    rows, cols = images.shape[2] // side, images.shape[3] // side
    if not rows or not cols:
        return nn.functional.interpolate(images, (side, side), mode="bilinear", align_corners=False)
    part = images[:, :, : rows * side, : cols * side].unflatten(2, (rows, side)).unflatten(4, (cols, side))
    return part.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
