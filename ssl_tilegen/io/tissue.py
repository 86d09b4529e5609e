"""Telling stained tissue from glass on H&E slides."""

from __future__ import annotations

import numpy as np
from skimage.filters import gaussian, threshold_otsu

MIN_COLOURFULNESS = 10.0  # below this nothing is tissue: grey or tinted glass, JPEG noise
MAX_COLOURFULNESS = 30.0  # above this everything is: Otsu would otherwise split tissue from tissue
_SMOOTHING_PX = 1.5


def tissue_mask(rgb: np.ndarray) -> np.ndarray:
    """Where uint8 (H, W, 3) shows stained tissue: bool (H, W). Best at 2 to 16 um/px.

    Stains colour, glass is grey of any brightness: the spread of the colour channels is thresholded by Otsu's method,
    held within absolute limits so that images of tissue only, or of glass only, come out right too. Pen marks are
    colourful and count as tissue.
    """
    colourfulness = _colourfulness(rgb)
    if colourfulness.min() == colourfulness.max():
        return colourfulness > MAX_COLOURFULNESS
    threshold = float(np.clip(threshold_otsu(colourfulness), MIN_COLOURFULNESS, MAX_COLOURFULNESS))
    return colourfulness > threshold


def slide_background(rgb: np.ndarray, mask: np.ndarray) -> tuple[int, int, int]:
    """Median colour of the glass of uint8 (H, W, 3), i.e. outside ``mask`` bool (H, W); white where all is tissue."""
    glass = rgb[~mask]
    if not len(glass):
        return 255, 255, 255
    red, green, blue = (round(float(value)) for value in np.median(glass, axis=0))
    return red, green, blue


def _colourfulness(rgb: np.ndarray) -> np.ndarray:
    """Smoothed difference of the largest and smallest channel, 0 to 255, float (H, W)."""
    smooth = gaussian(rgb.astype(np.float32), sigma=_SMOOTHING_PX, channel_axis=-1, preserve_range=True)
    return smooth.max(axis=-1) - smooth.min(axis=-1)
