"""What can be decoded of a damaged file: one bad tile must not hide what lies around it."""

from __future__ import annotations

import numpy as np

from ssl_tilegen.geometry import Size, Window, cover
from ssl_tilegen.io.readers.base import Pixels, ReadError
from ssl_tilegen.io.view import RasterView

_LEAST_PX = _MOST_PARTS = 32


def salvaged(view: RasterView, window: Window, least_px: int) -> Pixels:
    """The pixels of a window. Where it is damaged, its quarters and theirs are read, as far as they are larger than
    ``least_px``; what cannot be decoded is background, and nowhere valid. ``error`` is the first one met."""
    try:
        return view.read(window)
    except ReadError as error:
        found = Pixels.blank(window.size, view.raster.background, error)
    if max(window.rows, window.cols) > least_px:
        half = Size(-(-window.rows // 2), -(-window.cols // 2))
        for quarter in cover(window.size, half):
            pixels = salvaged(view, quarter.shifted(window.row, window.col), least_px)
            found.rgb[quarter.slices], found.valid[quarter.slices] = pixels.rgb, pixels.valid
    return found


def readable_part(view: RasterView, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """What can be decoded of a window: rgb (H, W, 3) uint8 and valid (H, W) bool. ReadError where nothing can.

    Around damage, parts of 32 px or a 32nd of the window's side are given up: a read that fails takes milliseconds.
    """
    pixels = salvaged(view, window, max(_LEAST_PX, max(window.rows, window.cols) // _MOST_PARTS))
    if pixels.error is not None and not pixels.valid.any():
        raise pixels.error
    return pixels.rgb, pixels.valid
