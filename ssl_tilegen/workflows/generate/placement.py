"""Where an image lies on its grid: which canvas is meant, which part of it is painted, and its ground."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssl_tilegen.errors import SettingError
from ssl_tilegen.geometry import Lattice, Resolution, Size, Window
from ssl_tilegen.grids.spec import GridData, GridSpec, Validity
from ssl_tilegen.io.writers.format import Affine6

Fit = Literal["whole", "crop", "stretch"]
_TRUE_TO_SCALE = 1.25


@dataclass(frozen=True, slots=True)
class Placement:
    """The painted ``window`` (pixels) of a virtual ``canvas``, on which the grid's view lies ``stretch``ed.

    Canvas pixel = view pixel * stretch, (row, col). All noise and conditions are addressed on the canvas, so windows of
    one canvas fit each other.
    """

    fit: Fit
    canvas: Size
    window: Window
    stretch: tuple[float, float] = (1.0, 1.0)

    @property
    def is_true_to_scale(self) -> bool:
        """Whether things in the cells keep about their own size."""
        return all(1 / _TRUE_TO_SCALE <= ratio <= _TRUE_TO_SCALE for ratio in self.stretch)

    def window_lat(self, factor: int) -> Window:
        """The latents of ``factor`` px that cover the window."""
        around = self.window.aligned(factor)
        return Window(around.row // factor, around.col // factor, around.rows // factor, around.cols // factor)

    def canvas_lat(self, factor: int) -> Window:
        """The latents of the whole canvas."""
        return Window.of(self.canvas.ceil_div(factor))

    def transform(self, spec: GridSpec) -> Affine6 | None:
        """(col, row) of the painted window -> the grid's CRS."""
        if spec.crs is None or spec.transform is None:
            return None
        a, b, c, d, e, f = spec.transform
        down, across = self.stretch
        a, b, d, e = a / across, b / down, d / across, e / down
        row, col = self.window.row, self.window.col
        return a, b, c + a * col + b * row, d, e, f + d * col + e * row

    def resolution(self, spec: GridSpec) -> Resolution | None:
        """Of a painted pixel. A stretched map still lies on the source's ground; stretched tissue is new tissue."""
        own = spec.resolution
        if own is None or self.transform(spec) is None:
            return own
        return Resolution(own.value / math.sqrt(self.stretch[0] * self.stretch[1]), own.unit)


def place(
    spec: GridSpec, cells: GridData, *, size: Size | None, region: Window | None, fit: str, least_px: int
) -> Placement:
    """The placement that --size, --region and --fit state. SettingError where they do not fit each other or the grid.

    Without a size the canvas is the grid's view. A size is a crop of it where it is large enough (``auto``), else the
    layout is stretched over that size. A region is a part of the canvas.
    """
    view = spec.lattice.size
    _check_size(size, least_px)
    covers = size is None or (size.rows <= view.rows and size.cols <= view.cols)
    if fit == "crop" and not covers:
        raise SettingError(f"--fit crop --size {size}: the grid shows {view} px; give --fit stretch or less --size")
    if size is None or size == view:
        return _part(Placement("whole", view, Window.of(view)), region)
    if fit == "stretch" or not covers:
        stretch = size.rows / view.rows, size.cols / view.cols
        return _part(Placement("stretch", size, Window.of(size), stretch), region)
    if region is not None and region.size != size:
        raise SettingError(
            f"--size {size} --region {region.size}: two sizes of one crop; leave out --size, or give --fit stretch to "
            "paint a part of the stretched layout"
        )
    return _part(Placement("crop", view, Window.of(view)), region or best_crop(spec.lattice, cells, size))


def _check_size(size: Size | None, least_px: int) -> None:
    if size is not None and min(size.rows, size.cols) < least_px:
        raise SettingError(
            f"--size {size}: smaller than the model's window; give at least {least_px} on each side, or --region for a "
            "smaller part"
        )


def check_within(region: Window, canvas: Size) -> None:
    """SettingError where a region reaches beyond the canvas."""
    if not Window.of(canvas).contains(region):
        raise SettingError(
            f"--region {region.col},{region.row},{region.cols},{region.rows}: reaches beyond the canvas of "
            f"{canvas} px; keep X + W and Y + H within it"
        )


def _part(whole: Placement, region: Window | None) -> Placement:
    if region is None:
        return whole
    check_within(region, whole.canvas)
    return Placement("stretch" if whole.fit == "stretch" else "crop", whole.canvas, region, whole.stretch)


def best_crop(lattice: Lattice, cells: GridData, size: Size) -> Window:
    """The window of ``size`` at a corner of a cell with the most foreground in it; of equals the most central one."""
    foreground = np.where(cells.valid == Validity.OK, cells.tissue.astype(np.float64), 0.0)
    rows, row_sums = _sliding(foreground, lattice, size.rows, lattice.size.rows)
    cols, sums = _sliding(row_sums.T, lattice, size.cols, lattice.size.cols)
    scores = sums.T
    from_centre = np.hypot(
        rows[:, None] + size.rows / 2 - lattice.size.rows / 2, cols + size.cols / 2 - lattice.size.cols / 2
    )
    best = np.where(scores >= scores.max() - 1e-6 * max(1.0, scores.max()), from_centre, np.inf)
    row, col = np.unravel_index(np.argmin(best), best.shape)
    return Window(int(rows[row]), int(cols[col]), size.rows, size.cols)


def _sliding(values: np.ndarray, lattice: Lattice, length: int, whole: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts of a stretch of ``length`` px along the first axis, and the sums of the cells whose centres it holds."""
    starts = np.arange(0, whole - length + 1, lattice.stride)
    centres = np.arange(len(values)) * lattice.stride + lattice.tile / 2
    table = np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(0)])
    first, last = np.searchsorted(centres, starts), np.searchsorted(centres, starts + length)
    return starts, table[last] - table[first]
