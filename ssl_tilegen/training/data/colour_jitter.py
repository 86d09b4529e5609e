"""Random changes of colour: of stains in their own space, and of brightness."""

from __future__ import annotations

import numpy as np
from skimage.color import hed_from_rgb, rgb_from_hed

_AXES = 3
_SHIFT = 1.4  # optical densities that a shift of 1 adds


def jittered_colours(rng: np.random.Generator, rgb: np.ndarray, stain: float, brightness: float) -> np.ndarray:
    """uint8 (H, W, 3) with other amounts of its stains and another brightness; unchanged where both are 0.

    Each of haematoxylin, eosin and residual is multiplied by 1 + a and has b added (Tellez et al. 2018). Both are drawn
    evenly from [-stain, stain]; b is scaled to the range of optical densities. Colours that no mixture of stains makes
    (grass, water) have negative amounts, which are kept: without a change an image comes back as it was.
    """
    if stain:
        amounts = -np.log(np.maximum(rgb, 1) / 255) @ hed_from_rgb
        gain = 1 + rng.uniform(-stain, stain, _AXES)
        shift = rng.uniform(-stain, stain, _AXES) * _SHIFT
        rgb = _to_bytes(np.exp(-(amounts * gain + shift) @ rgb_from_hed) * 255)
    if brightness:
        rgb = _to_bytes(rgb * (1 + rng.uniform(-brightness, brightness)))
    return rgb


def jittered(rng: np.random.Generator, image: np.ndarray, amount: float) -> np.ndarray:
    """Small random change of contrast, brightness and colour balance of (3, H, W) in [-1, 1]."""
    gain = 1 + rng.uniform(-amount, amount, (3, 1, 1)) / 2 + rng.uniform(-amount, amount)
    shift = rng.uniform(-amount, amount, (3, 1, 1)) / 2 + rng.uniform(-amount, amount)
    return (image * gain + shift).clip(-1, 1).astype(np.float32)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)
