"""The network of the canonical FID (Heusel et al. 2017): TensorFlow's Inception v3 of 2015, its last pooled features.

The network, with TensorFlow's own resize to 299 px, is torch-fidelity's (Apache-2.0), which reproduces the original to
floating point. FIDs of other Inceptions (torchvision's, timm's) cannot be compared with published ones.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ssl_tilegen.encoders.base import HALF
from ssl_tilegen.encoders.module_encoder import hash_of_weights
from ssl_tilegen.encoders.timm_encoder import read_weights
from ssl_tilegen.errors import FormatError, InputError, SettingError
from ssl_tilegen.geometry import Resolution

NAME = "inception"
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
_LAYER = "2048"


class InceptionEncoder:
    """See `ssl_tilegen.encoders.base.Encoder`. Takes tiles of any side ``tile_px``; always runs in float32."""

    id, dim, normalisation, pooling = NAME, int(_LAYER), HALF, "pool"
    resolution: Resolution | None = None

    def __init__(
        self, tile_px: int, weights: Path | None, *, device: torch.device | str = "cpu", batch: int | None = None
    ) -> None:
        if weights is None:
            raise InputError(
                f"--encoder {NAME}: its weights are not downloaded; give --weights {WEIGHTS} "
                "(from the releases of github.com/toshas/torch-fidelity)"
            )
        self.tile_px, self.device, self.batch = tile_px, torch.device(device), batch or 32
        self.module = _network(weights).to(self.device).eval()
        self.weights_sha256 = hash_of_weights(self.module)

    @torch.inference_mode()
    def embed(self, tiles: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) -> float32 (N, 2048)."""
        pixels = torch.from_numpy(np.require(tiles, requirements=["C", "W"])).to(self.device).permute(0, 3, 1, 2)
        return self.module(pixels)[0].float().cpu().numpy()


def _network(weights: Path) -> nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise SettingError(
            f"--encoder {NAME}: torch-fidelity is not installed; pip install 'ssl-tilegen[fid]'"
        ) from None
    safe = io.BytesIO()  # its own loading would run pickled code; what it gets here are tensors that were read safely
    torch.save(read_weights(weights), safe)
    safe.seek(0)
    try:
        return FeatureExtractorInceptionV3(NAME, [_LAYER], feature_extractor_weights_path=safe)
    except RuntimeError as error:
        raise FormatError(
            f"--weights {weights}: not the weights of {NAME} (TensorFlow's, 1008 classes); give {WEIGHTS}"
        ) from error
