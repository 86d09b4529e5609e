"""Tissue masks of stained H&E slides."""

from __future__ import annotations

import numpy as np

MIN_COLOURFULNESS = 10.0  # below this nothing is tissue: grey or tinted background, JPEG noise
MAX_COLOURFULNESS = 30.0  # above this everything is: Otsu would otherwise split tissue from tissue
PEN_EXCESS = 20.0  # green above red by this much is ink: haematoxylin and eosin both absorb green most
_SMOOTHING_PX = 1.5
_REACH_PX = 6  # of the smoothing, four standard deviations
_STRIP_PX = 256


def tissue_mask(rgb: np.ndarray) -> np.ndarray:
    """Where uint8 (H, W, 3) shows stained tissue: bool (H, W). Best at 2 to 16 um/px.

    Stains colour, background is grey of any brightness. The spread of the colour channels is thresholded by Otsu's
    method. Absolute limits keep it right for images of tissue only, or of background only. Blue, green and black ink
    does not count (black is grey; the others have more green than red, which these stains never do). Red ink does:
    nothing tells it from blood by colour.
    """
    colourfulness = np.empty(rgb.shape[:2], np.uint8)
    ink = np.empty(rgb.shape[:2], bool)
    for start in range(0, len(rgb), _STRIP_PX):
        strip = slice(start, start + _STRIP_PX)
        smooth = _smoothed(rgb, strip)
        colourfulness[strip] = smooth.max(axis=-1) - smooth.min(axis=-1) + 0.5
        ink[strip] = smooth[..., 1] - smooth[..., 0] > PEN_EXCESS
    mask = colourfulness > _threshold(np.bincount(colourfulness[~ink], minlength=256))
    mask &= ~ink
    return mask


def _threshold(counts: np.ndarray) -> float:
    """The colourfulness that separates tissue from background, given how many pixels have each of 0 to 255."""
    if np.count_nonzero(counts) < 2:
        return MAX_COLOURFULNESS
    from skimage.filters import threshold_otsu

    return float(np.clip(threshold_otsu(hist=(counts, np.arange(256))), MIN_COLOURFULNESS, MAX_COLOURFULNESS))


def slide_background(rgb: np.ndarray, mask: np.ndarray) -> tuple[int, int, int]:
    """Median colour of the background of uint8 (H, W, 3), i.e. outside ``mask`` bool (H, W); white where all is
    tissue."""
    background = ~mask
    if not background.any():
        return 255, 255, 255
    red, green, blue = (round(float(np.median(rgb[..., channel][background]))) for channel in range(3))
    return red, green, blue


def _smoothed(rgb: np.ndarray, strip: slice) -> np.ndarray:
    """Rows ``strip`` of the smoothed image, float32; from no more rows than it takes."""
    from skimage.filters import gaussian

    first = max(0, strip.start - _REACH_PX)
    part = rgb[first : strip.stop + _REACH_PX].astype(np.float32)
    smooth = gaussian(part, sigma=_SMOOTHING_PX, channel_axis=-1, preserve_range=True)
    return smooth[strip.start - first :][: strip.stop - strip.start]
