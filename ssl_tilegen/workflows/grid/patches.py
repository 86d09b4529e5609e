"""How the patches of a file of features lie in the image: their side, step and scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_tilegen.errors import InputError
from ssl_tilegen.io.feature_files import StoredFeatures

MAGNIFICATION_MPP = 10.0  # magnification times um/px, by custom


@dataclass(frozen=True)
class Patches:
    """How patches lie: side and step in the pixels that the encoder saw, and level-0 pixels per such pixel."""

    tile: int
    stride: int
    factor: float

    @property
    def step(self) -> float:
        """Level-0 pixels from one patch to the next."""
        return self.stride * self.factor

    def __post_init__(self) -> None:
        if self.tile <= 0 or self.stride <= 0 or not 0 < self.factor < math.inf:
            raise InputError(
                f"patches of {self.tile} px every {self.stride} px, {self.factor:g} level-0 pixels each: must all be "
                "positive; mend the file's attributes or give --tile"
            )

    @classmethod
    def of(cls, path: Path, features: StoredFeatures, tile: int | None) -> Patches:
        """From the attributes of TRIDENT (or of our own export), of CLAM, else from ``tile`` and the corners."""
        facts = features.facts
        try:
            tile = tile or int(facts["patch_size"])
            if "factor" in facts or "patch_size_level0" in facts:
                factor = float(facts["factor"]) if "factor" in facts else float(facts["patch_size_level0"]) / tile
                return cls(tile, tile - int(facts.get("overlap", 0)), factor)
            if "downsample" in facts:
                factor = float(np.ravel(facts["downsample"])[0])
                return cls(tile, max(1, round(_step(features.corners) / factor)), factor)
        except (KeyError, TypeError, ValueError, ArithmeticError):
            if not tile:
                raise InputError(
                    f"{path}: does not say how large its patches are; give --tile (a patch's side in the pixels that "
                    "the encoder saw)"
                ) from None
        return cls(tile, tile, _step(features.corners) / tile)


def _step(corners: np.ndarray) -> float:
    """The distance of neighbouring patches: the commonest one along a row of patches, level-0 pixels."""
    order = corners[np.lexsort((corners[:, 0], corners[:, 1]))]
    along = np.diff(order[:, 0])[np.diff(order[:, 1]) == 0]
    along = along[along > 0]
    if not len(along):
        across = np.diff(np.unique(corners[:, 1]))
        along = across[across > 0]
    steps, counts = np.unique(along, return_counts=True)
    return float(steps[counts.argmax()]) if len(steps) else 1.0
