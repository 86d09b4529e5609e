"""The interface of an encoder."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from ssl_tilegen.geometry import Resolution


class Normalisation(NamedTuple):
    """Channel statistics of pixels scaled to [0, 1]: the network sees (pixel - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@runtime_checkable
class Encoder(Protocol):
    """A frozen map from square tiles to vectors.

    A tile's vector depends on that tile alone, up to the rounding of the chip's precision. ``resolution`` is what
    slides should be read at, None where the encoder has no preference.
    """

    id: str
    tile_px: int
    dim: int
    normalisation: Normalisation
    pooling: str
    weights_sha256: str
    resolution: Resolution | None
    batch: int

    def embed(self, tiles: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) with H = W = ``tile_px`` -> float32 (N, ``dim``)."""
        ...
