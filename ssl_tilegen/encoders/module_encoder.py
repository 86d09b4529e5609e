"""Any torch network as an encoder: normalise, run in the device's fast precision, pool."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor, nn

from ssl_tilegen.encoders.base import Normalisation
from ssl_tilegen.errors import SettingError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.system.device import autocast

POOLINGS = ("cls", "mean", "cls+mean", "pool", "patches2x2", "patches4x4", "cls+patches2x2", "cls+patches4x4")
_BATCH = {"cpu": 64, "cuda": 256}


class NetworkEncoder:
    """See `ssl_tilegen.encoders.base.Encoder`.

    ``pooling`` 'pool' is the network's own output; 'patchesKxK' are K x K tokens, means of the patch tokens of each
    part of the tile, row by row in one vector. ``input_px``: the side at which the network sees a tile (by bicubic
    resampling with antialiasing), where it is not the tile's own.
    """

    def __init__(
        self,
        id: str,
        module: nn.Module,
        *,
        tile_px: int,
        normalisation: Normalisation,
        input_px: int | None = None,
        pooling: str = "pool",
        resolution: Resolution | None = None,
        device: torch.device | str = "cpu",
        batch: int | None = None,
        weights_sha256: str | None = None,
    ) -> None:
        if pooling not in POOLINGS:
            raise SettingError(f"pooling '{pooling}' of {id}: unknown; use one of {', '.join(POOLINGS)}")
        self.id, self.tile_px, self.pooling, self.resolution = id, tile_px, pooling, resolution
        self.normalisation, self.input_px = normalisation, input_px or tile_px
        self.device = torch.device(device)
        self.weights_sha256 = weights_sha256 or hash_of_weights(module)
        self.batch = batch or _BATCH.get(self.device.type, 64)
        self.module = module.to(self.device).eval().requires_grad_(False)
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in normalisation)
        self._gain, self._shift = 1 / (255 * std), -mean / std
        self.dim = self.embed(np.zeros((1, tile_px, tile_px, 3), np.uint8)).shape[1]

    def embed(self, tiles: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) -> float32 (N, D)."""
        if tiles.dtype != np.uint8 or tiles.shape[1:] != (self.tile_px, self.tile_px, 3):
            raise ValueError(
                f"{self.id} takes uint8 (N, {self.tile_px}, {self.tile_px}, 3), got {tiles.dtype} {tiles.shape}"
            )
        pixels = torch.from_numpy(np.require(tiles, requirements=["C", "W"])).to(self.device, non_blocking=True)
        with autocast(self.device):
            x = self._seen(pixels.permute(0, 3, 1, 2)) * self._gain + self._shift
            return pool(self.module, x, self.pooling).float().cpu().numpy()

    def vectors(self, tiles: Tensor) -> Tensor:
        """Tiles (N, 3, H, W) in [0, 1] with H = W = ``tile_px`` -> vectors (N, D), with gradients to the tiles."""
        mean, std = (torch.tensor(v, device=tiles.device)[:, None, None] for v in self.normalisation)
        if self.input_px != self.tile_px:
            tiles = _resized(tiles, self.input_px).clamp(0, 1)
        return pool(self.module, (tiles - mean) / std, self.pooling).float()

    def _seen(self, tiles: Tensor) -> Tensor:
        """Tiles (N, 3, H, W) uint8 at the side that the network takes, as whole values of pixels."""
        if self.input_px == self.tile_px:
            return tiles
        return _resized(tiles.float(), self.input_px).round().clamp(0, 255)


def _resized(tiles: Tensor, side: int) -> Tensor:
    return torch.nn.functional.interpolate(tiles, (side, side), mode="bicubic", antialias=True)


def pool(module: nn.Module, x: Tensor, pooling: str) -> Tensor:
    """Images (N, 3, H, W) -> vectors (N, D): class token, mean of the patch tokens, both, or the network's output."""
    if pooling == "pool":
        return module(x)
    tokens = module.forward_features(x)  # type: ignore[operator]
    if tokens.ndim == 4:
        if pooling != "mean":
            raise SettingError(f"pooling '{pooling}': this network has no class token; use 'mean' or 'pool'")
        return tokens.mean(dim=(2, 3))
    prefix = int(getattr(module, "num_prefix_tokens", 1))
    if "cls" in pooling and prefix == 0:
        raise SettingError(f"pooling '{pooling}': this network has no class token; use 'mean' or 'pool'")
    patches = tokens[:, prefix:]
    return torch.cat([_part(name, tokens[:, 0], patches) for name in pooling.split("+")], dim=1)


def _part(name: str, cls: Tensor, patches: Tensor) -> Tensor:
    """One part of a pooling: the class token, the mean of the patch tokens (N, n, D), or K x K means of them."""
    if name in ("cls", "mean"):
        return cls if name == "cls" else patches.mean(dim=1)
    n, count, dim = patches.shape
    side, k = math.isqrt(count), int(name[-1])
    if side * side != count or side < k:
        raise SettingError(f"pooling '{name}': this network has {count} patch tokens, which make no {k} x {k} parts")
    grid = patches.transpose(1, 2).reshape(n, dim, side, side)
    return torch.nn.functional.adaptive_avg_pool2d(grid, k).flatten(2).transpose(1, 2).flatten(1)


def hash_of_weights(module: nn.Module) -> str:
    """Hash of all weights by name, type, shape and value: the same for any file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
