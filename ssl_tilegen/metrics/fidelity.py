"""How near is a reconstruction to its image?"""

from __future__ import annotations

import numpy as np


def psnr(a: np.ndarray, b: np.ndarray, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB between two arrays of equal shape; infinity where they are equal."""
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean()
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two uint8 images (H, W, 3), 1 where they are equal (Wang et al. 2004)."""
    from skimage.metrics import structural_similarity

    window = min(7, min(a.shape[:2]) - (min(a.shape[:2]) + 1) % 2)
    return float(structural_similarity(a, b, channel_axis=-1, data_range=255, win_size=window))
