"""Where a slide shows tissue, from an overview of it; anything that is no slide is foreground throughout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl_tilegen.geometry import Resolution, Size, Window, cover
from ssl_tilegen.io.raster import RasterView
from ssl_tilegen.io.tissue import slide_background, tissue_mask

OVERVIEW_MPP = 8.0
_BLOCK_PX = 512


@dataclass(frozen=True)
class TissueMap:
    """``table`` is the summed-area table of the overview's mask, ``scale`` overview pixels per view pixel."""

    background: tuple[int, int, int]
    table: np.ndarray | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, view: RasterView, threads: int) -> TissueMap:
        """The tissue of a slide (bounded work: 8 um/px, or the view itself where that is coarser)."""
        raster = view.raster
        if raster.kind != "slide" or view.resolution is None:
            return cls(raster.background)
        overview = raster.at(Resolution(max(OVERVIEW_MPP, view.resolution.value), "um"))
        rgb = _read_whole(overview, threads)
        mask = tissue_mask(rgb)
        table = np.pad(mask.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
        return cls(slide_background(rgb, mask), table, view.factor / overview.factor)

    @property
    def known(self) -> bool:
        """Whether there is a map at all."""
        return self.table is not None

    def fraction(self, window: Window) -> float:
        """How much of ``window`` (view pixels) is tissue, 0 to 1."""
        if self.table is None:
            return 1.0
        rows, cols = (side - 1 for side in self.table.shape)
        top, bottom = self._span(window.row, window.row_end, rows)
        left, right = self._span(window.col, window.col_end, cols)
        t = self.table
        total = t[bottom, right] - t[top, right] - t[bottom, left] + t[top, left]
        return float(total) / ((bottom - top) * (right - left))

    def _span(self, start: int, end: int, limit: int) -> tuple[int, int]:
        """The overview pixels of an interval, at least one."""
        first = min(max(round(start * self.scale), 0), limit - 1)
        return first, min(max(round(end * self.scale), first + 1), limit)


def _read_whole(view: RasterView, threads: int) -> np.ndarray:
    """All of a view in blocks, uint8 (H, W, 3); what cannot be decoded is background."""
    rgb = np.empty((view.size.rows, view.size.cols, 3), np.uint8)
    for window, pixels in view.read_many(cover(view.size, Size(_BLOCK_PX, _BLOCK_PX)), threads):
        rgb[window.slices] = pixels.rgb
    return rgb
