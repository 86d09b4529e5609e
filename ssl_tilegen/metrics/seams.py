"""Do lattice lines show in an image?"""

from __future__ import annotations

import numpy as np


def seam_score(image: np.ndarray, lattice_px: int) -> float:
    """Mean absolute difference across the lines of a lattice, relative to that across all other pixel borders.

    ``image`` is (H, W) or (H, W, C); lines lie between pixels k * lattice_px - 1 and k * lattice_px on both axes.
    1 is no seam; an image of flat squares gives infinity, a constant one 1. Raises ValueError where no line lies
    inside the image.
    """
    values = image.astype(np.float32)
    on, off = [], []
    for axis in (0, 1):
        change = np.abs(np.diff(values, axis=axis))
        change = change.mean(axis=tuple(a for a in range(change.ndim) if a != axis))
        line = np.arange(1, len(change) + 1) % lattice_px == 0
        on.append(change[line])
        off.append(change[~line])
    lines = np.concatenate(on)
    if not len(lines):
        raise ValueError(f"no line of a {lattice_px} px lattice lies inside an image of {image.shape[:2]}")
    across, elsewhere = float(lines.mean()), float(np.concatenate(off).mean())
    if elsewhere == 0:
        return 1.0 if across == 0 else float("inf")
    return across / elsewhere
