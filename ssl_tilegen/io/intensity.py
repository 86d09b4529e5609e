"""From the values that files hold to the 8 bits that networks see."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ssl_tilegen.errors import InputError

PERCENTILES = (2.0, 98.0)
SCALED_REMARK = f"values scaled from the {PERCENTILES[0]:g}-{PERCENTILES[1]:g} percentiles of each band"
Scaling = tuple[tuple[float, float], ...]


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The (low, high) that become 0 and 255; (0, 1) of nothing."""
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    return (low, high) if high > low else (low, low + 1.0)


def to_rgb(bands: np.ndarray, scaling: Scaling | None) -> np.ndarray:
    """uint8 (h, w, 3) from (1 or 3, h, w) of any type; one band becomes all three colours."""
    if scaling is not None:
        low, high = np.array(scaling, np.float64).T[..., None, None]
        scaled = (np.nan_to_num(bands.astype(np.float64)) - low) / (high - low)
        bands = (np.clip(scaled, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(bands.transpose(1, 2, 0), (*bands.shape[1:], 3)))


def refuse_complex(path: object, dtypes: Iterable[str]) -> None:
    """InputError where a band holds complex numbers: which part of them is meant is not ours to guess."""
    for dtype in dtypes:
        if "complex" in str(dtype):
            raise InputError(f"{path}: has complex values ({dtype}); convert it to amplitude or to real bands first")


def default_bands(count: int) -> tuple[int, ...]:
    """The first three of ``count`` bands, or the first."""
    return (1, 2, 3) if count >= 3 else (1,)
