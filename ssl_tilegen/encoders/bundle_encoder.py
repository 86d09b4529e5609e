"""The encoder that a bundle carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ssl_tilegen.encoders.base import Normalisation
from ssl_tilegen.encoders.network import NetworkEncoder
from ssl_tilegen.geometry import Resolution

if TYPE_CHECKING:
    from torch import nn


def bundle_encoder(
    module: nn.Module,
    facts: object,
    *,
    resolution: Resolution | None = None,
    device: torch.device | str = "cpu",
    batch: int | None = None,
) -> NetworkEncoder:
    """``module`` as an encoder; ``facts`` has id, tile_px, mean, std and pooling (``bundle.info.encoder``)."""
    return NetworkEncoder(
        facts.id,  # type: ignore[attr-defined]
        module,
        tile_px=facts.tile_px,  # type: ignore[attr-defined]
        normalisation=Normalisation(tuple(facts.mean), tuple(facts.std)),  # type: ignore[attr-defined]
        pooling=facts.pooling,  # type: ignore[attr-defined]
        resolution=resolution,
        device=device,
        batch=batch,
    )
