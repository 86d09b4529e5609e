"""Any torch network as an encoder: normalise, run in the device's fast precision, pool."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from ssl_tilegen.encoders.base import Normalisation
from ssl_tilegen.errors import SettingError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.system.device import autocast

POOLINGS = ("cls", "mean", "cls+mean", "pool")
_BATCH = {"cpu": 64, "cuda": 256}


class NetworkEncoder:
    """See `ssl_tilegen.encoders.base.Encoder`. ``pooling`` 'pool' is the network's own output."""

    def __init__(
        self,
        id: str,
        module: nn.Module,
        *,
        tile_px: int,
        normalisation: Normalisation,
        pooling: str = "pool",
        resolution: Resolution | None = None,
        device: torch.device | str = "cpu",
        batch: int | None = None,
        weights_sha256: str | None = None,
    ) -> None:
        if pooling not in POOLINGS:
            raise SettingError(f"pooling '{pooling}' of {id}: unknown; use one of {', '.join(POOLINGS)}")
        self.id, self.tile_px, self.pooling, self.resolution = id, tile_px, pooling, resolution
        self.normalisation = normalisation
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
        pixels = torch.from_numpy(np.ascontiguousarray(tiles)).to(self.device, non_blocking=True)
        with autocast(self.device):
            x = pixels.permute(0, 3, 1, 2) * self._gain + self._shift
            return pool(self.module, x, self.pooling).float().cpu().numpy()


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
    parts = {"cls": tokens[:, 0], "mean": tokens[:, prefix:].mean(dim=1)}
    return torch.cat([parts[name] for name in pooling.split("+")], dim=1)


def hash_of_weights(module: nn.Module) -> str:
    """Hash of all weights by name, type, shape and value: the same for any file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
