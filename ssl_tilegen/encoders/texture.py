"""An encoder without weights: colour and texture measured by fixed filters.

The second opinion of `evaluate` where no network can be downloaded. Nothing in it was learnt, so no generator was ever
trained towards it, and it is the same on every machine. Measured are, of a tile's lightness and of its
two opponent colours:

- the distribution of values;
- at five scales, the energy of oriented filters (a steerable pyramid: Portilla and Simoncelli 2000), its spread over
  the tile and its direction;
- the correlation of energies between neighbouring scales, and between colour and lightness.
"""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.encoders.base import HALF
from ssl_tilegen.geometry import Resolution

NAME = "texture"
_VERSION = 1
_SCALES, _ANGLES, _REACH = 5, 4, 4
_OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))
_QUANTILES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
_COLOUR_GAIN, _FLOOR = 4.0, 4e-3
_PIECE_PX = 1 << 16
_BLUR = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class TextureEncoder:
    """See `ssl_tilegen.encoders.base.Encoder`. Tiles of any side from 32 px; ``tile_px`` is the default side."""

    id = NAME
    pooling = "statistics"
    normalisation = HALF
    resolution: Resolution | None = None

    def __init__(self, tile_px: int = 224, *, device: torch.device | str = "cpu", batch: int | None = None) -> None:
        self.tile_px, self.batch, self.device = tile_px, batch or 32, torch.device(device)
        facts = [_VERSION, _SCALES, _ANGLES, _REACH, _OPPONENT, _QUANTILES, _COLOUR_GAIN, _FLOOR, _BLUR]
        self.weights_sha256 = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        self._filters = _quadrature(_ANGLES).to(self.device)
        self._blur = torch.outer(torch.tensor(_BLUR), torch.tensor(_BLUR))[None, None].to(self.device)
        self.dim = self.embed(np.zeros((1, tile_px, tile_px, 3), np.uint8)).shape[1]

    @torch.inference_mode()
    def embed(self, tiles: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) -> float32 (N, D). Worked in pieces that stay in the cache."""
        piece = max(1, _PIECE_PX // (tiles.shape[1] * tiles.shape[2]))
        parts = [self._described(tiles[i : i + piece]) for i in range(0, len(tiles), piece)]
        return torch.cat(parts).cpu().numpy()

    def _described(self, tiles: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.require(tiles, requirements=["C", "W"])).to(self.device).float() / 255
        planes = torch.einsum("nhwc,kc->nkhw", pixels, torch.tensor(_OPPONENT, device=self.device))
        parts = [_colour(planes)]
        finer: Tensor | None = None
        for _ in range(_SCALES):
            energy = self._energy(planes)
            parts.append(_texture(energy, finer))
            finer, planes = energy, self._halved(planes)
            if min(planes.shape[2:]) < 2 * _REACH:
                break
        return torch.cat(parts, 1).float()

    def _energy(self, planes: Tensor) -> Tensor:
        """Planes (N, K, h, w) -> amplitude (N, K, A, h, w) at each angle, the same at every phase of a wave."""
        n, k, h, w = planes.shape
        padded = torch.nn.functional.pad(planes.reshape(n * k, 1, h, w), (_REACH,) * 4, mode="reflect")
        found = torch.nn.functional.conv2d(padded, self._filters).reshape(n, k, 2, _ANGLES, h, w)
        return found.square().sum(2).sqrt()

    def _halved(self, planes: Tensor) -> Tensor:
        n, k, h, w = planes.shape
        padded = torch.nn.functional.pad(planes.reshape(n * k, 1, h, w), (2,) * 4, mode="reflect")
        return torch.nn.functional.conv2d(padded, self._blur, stride=2).reshape(n, k, -(-h // 2), -(-w // 2))


def _quadrature(angles: int) -> Tensor:
    """Even and odd Gabor filters (2 A, 1, 2 R + 1, 2 R + 1), without response to a flat field."""
    at = torch.arange(-_REACH, _REACH + 1, dtype=torch.float64)
    y, x = torch.meshgrid(at, at, indexing="ij")
    window, filters = torch.exp(-(x**2 + y**2) / (2 * 1.6**2)), []
    for phase in (0.0, math.pi / 2):
        for a in range(angles):
            along = x * math.cos(math.pi * a / angles) + y * math.sin(math.pi * a / angles)
            wave = window * torch.cos(2 * math.pi * along / 4.5 - phase)
            wave = wave - window * wave.sum() / window.sum()
            filters.append(wave / wave.square().sum().sqrt())
    return torch.stack(filters)[:, None].float()


def _colour(planes: Tensor) -> Tensor:
    """Quantiles of every plane, spreads, and how the planes go together: (N, 3 Q + 6)."""
    flat = planes.flatten(2)
    at = torch.tensor(_QUANTILES, device=planes.device)
    quantiles = torch.quantile(flat, at, dim=2).permute(1, 2, 0).flatten(1)
    centred = flat - flat.mean(2, keepdim=True)
    spread = centred.square().mean(2).sqrt()
    unit = centred / (spread[..., None] + _FLOOR)
    together = torch.stack([(unit[:, i] * unit[:, j]).mean(1) for i, j in ((0, 1), (0, 2), (1, 2))], 1)
    return torch.cat([quantiles * _COLOUR_GAIN, (spread + _FLOOR).log(), together], 1)


def _texture(energy: Tensor, finer: Tensor | None) -> Tensor:
    """Level, unevenness, directedness, and ties to colour and to the next finer scale of (N, K, A, h, w)."""
    overall = energy.mean(2)
    flat = overall.flatten(2)
    mean, spread = flat.mean(2), flat.std(2)
    angles = energy.mean((3, 4))
    directed = angles.std(2) / (angles.mean(2) + _FLOOR)
    unit = (flat - mean[..., None]) / (spread[..., None] + _FLOOR)
    ties = [(unit[:, 0] * unit[:, 1]).mean(1), (unit[:, 0] * unit[:, 2]).mean(1)]
    if finer is not None:
        before = torch.nn.functional.adaptive_avg_pool2d(finer.mean(2), (overall.shape[2], overall.shape[3])).flatten(2)
        before = (before - before.mean(2, keepdim=True)) / (before.std(2, keepdim=True) + _FLOOR)
        ties += list((unit * before).mean(2).T)
    levels = [(mean + _FLOOR).log(), ((spread + _FLOOR) / (mean + _FLOOR)).log(), directed]
    return torch.cat([*levels, torch.stack(ties, 1)], 1)
