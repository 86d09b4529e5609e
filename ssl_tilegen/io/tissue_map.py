"""Where an image has foreground: regions the user gives, else tissue found on an overview of a stained slide.

Anything else is foreground throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ssl_tilegen.geometry import Size, Window, cover
from ssl_tilegen.io.readers.base import Rgb
from ssl_tilegen.io.salvage import salvaged
from ssl_tilegen.io.tissue import slide_background, tissue_mask
from ssl_tilegen.io.view import RasterView

if TYPE_CHECKING:
    from ssl_tilegen.io.geojson import Regions

OVERVIEW_MPP = 8.0
OVERVIEW_SIDE_PX = 2048  # a larger slide is seen coarser: the memory that this takes does not grow
_BLOCK_PX, _LEAST_PX = 512, 4


@dataclass(frozen=True)
class TissueMap:
    """``mask`` bool (H, W) over an overview of the image, ``scale`` its pixels per pixel of the view."""

    background: Rgb
    mask: np.ndarray | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, view: RasterView, threads: int, regions: Regions | None = None) -> TissueMap:
        """The foreground of ``view``. Bounded work: 8 um/px, or coarser where the view or the bound on its side is."""
        raster = view.raster
        if not raster.stained and regions is None:
            return cls(raster.background)
        overview = overview_of(view)
        scale = view.factor / overview.factor
        rgb = read_whole(overview, threads) if raster.stained else None
        found = tissue_mask(rgb) if rgb is not None else None
        background = slide_background(rgb, found) if rgb is not None and found is not None else raster.background
        if regions is not None:
            return cls(
                background, regions.placed(raster.crs, raster.transform).mask(overview.size, overview.factor), scale
            )
        return cls(background, found, scale)

    @property
    def known(self) -> bool:
        """Whether there is a map at all."""
        return self.mask is not None

    def fraction(self, window: Window) -> float:
        """How much of ``window`` (view pixels) is foreground, 0 to 1."""
        if self.mask is None:
            return 1.0
        rows, cols = self.mask.shape
        top, bottom = self._span(window.row, window.row_end, rows)
        left, right = self._span(window.col, window.col_end, cols)
        return np.count_nonzero(self.mask[top:bottom, left:right]) / ((bottom - top) * (right - left))

    def _span(self, start: int, end: int, limit: int) -> tuple[int, int]:
        """The overview pixels of an interval, at least one."""
        first = min(max(round(start * self.scale), 0), limit - 1)
        return first, min(max(round(end * self.scale), first + 1), limit)


def overview_of(view: RasterView, side_px: int = OVERVIEW_SIDE_PX, mpp: float = OVERVIEW_MPP) -> RasterView:
    """The whole image small: at most ``side_px`` a side; microscopy no finer than ``mpp``."""
    raster, factor = view.raster, max(view.factor, max(view.raster.size.rows, view.raster.size.cols) / side_px)
    if raster.resolution is not None and raster.resolution.unit == "um":
        factor = max(factor, mpp / raster.resolution.value)
    return RasterView(raster, factor)


def read_whole(view: RasterView, threads: int) -> np.ndarray:
    """All of a view in blocks, uint8 (H, W, 3); undecodable parts are background, to within a few pixels."""
    rgb = np.empty((view.size.rows, view.size.cols, 3), np.uint8)
    for window, pixels in view.read_many(cover(view.size, Size(_BLOCK_PX, _BLOCK_PX)), threads):
        rgb[window.slices] = pixels.rgb
        if pixels.error is not None:
            rgb[window.slices] = salvaged(view, window, _LEAST_PX).rgb
    return rgb
