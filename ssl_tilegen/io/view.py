"""A raster resampled to a target resolution, read by windows of its own pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ssl_tilegen.errors import ResolutionError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.io.readers.base import Pixels, Raster, ReadError
from ssl_tilegen.io.resample import Axis
from ssl_tilegen.system.budget import check_pixels

SNAP = 0.01
_LEAST_PX = 0.5  # of a view; a smaller one would be a fraction of a pixel
_EDGE = 1e-6  # view pixels that a rounding error may cost do not count


@dataclass(frozen=True, slots=True)
class RasterView:
    """``raster`` seen at ``factor`` level-0 pixels per view pixel; its ``resolution`` is that of a view pixel."""

    raster: Raster
    factor: float

    @property
    def size(self) -> Size:
        """View pixels that lie wholly inside the raster (at least 1 x 1)."""
        rows, cols = self.raster.size.rows / self.factor, self.raster.size.cols / self.factor
        return Size(max(1, int(rows + _EDGE)), max(1, int(cols + _EDGE)))

    @property
    def resolution(self) -> Resolution | None:
        """Resolution of the view; None where the raster's is unknown."""
        base = self.raster.resolution
        return base and Resolution(base.value * self.factor, base.unit)

    @property
    def transform(self) -> tuple[float, float, float, float, float, float] | None:
        """The raster's affine transform for view pixels."""
        if self.raster.transform is None:
            return None
        a, b, c, d, e, f = self.raster.transform
        return a * self.factor, b * self.factor, c, d * self.factor, e * self.factor, f

    def read(self, window: Window) -> Pixels:
        """The pixels of ``window`` (view pixels, may reach outside); windows that touch tile one image exactly.

        Raises ReadError where the file is damaged.
        """
        rows = Axis(window.row, window.rows, self.factor)
        return self.raster.sample(rows, Axis(window.col, window.cols, self.factor))

    def read_mirrored(self, window: Window) -> Pixels:
        """As ``read``, but the image is mirrored at its edges, as often as it takes, where the window reaches outside.

        So the pixels there look like the image. Reads a window of the image, at most as large as ``window``.
        """
        rows = _mirrored(window.row, window.rows, self.size.rows)
        cols = _mirrored(window.col, window.cols, self.size.cols)
        seen = Window(int(rows.min()), int(cols.min()), int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1)
        pixels = self.read(seen)
        if seen == window:
            return pixels
        at = np.ix_(rows - seen.row, cols - seen.col)
        return Pixels(pixels.rgb[at], pixels.valid[at])

    def read_many(self, windows: Iterable[Window], threads: int = 4) -> Iterator[tuple[Window, Pixels]]:
        """(window, pixels) in order, read on ``threads`` threads, never more than twice as many windows ahead.

        Beyond its edges the image is mirrored. A window that cannot be decoded comes as pixels with ``error`` set and
        nothing valid; the others go on.
        """
        windows = iter(windows)
        with ThreadPoolExecutor(max(1, threads), thread_name_prefix="read") as pool:
            ahead: deque[tuple[Window, Future[Pixels]]] = deque()
            try:
                for window in islice(windows, 2 * max(1, threads)):
                    ahead.append((window, pool.submit(self._read_or_mark, window)))
                while ahead:
                    window, future = ahead.popleft()
                    pixels = future.result()
                    for following in islice(windows, 1):
                        ahead.append((following, pool.submit(self._read_or_mark, following)))
                    yield window, pixels
            finally:
                for _, future in ahead:
                    future.cancel()

    def _read_or_mark(self, window: Window) -> Pixels:
        try:
            return self.read_mirrored(window)
        except ReadError as error:
            return Pixels.blank(window.size, self.raster.background, error)


def _mirrored(start: int, length: int, size: int) -> NDArray[np.int64]:
    """Which pixel of an axis of ``size`` is seen at each place of [start, start + length): ... 1 0 0 1 ... n n ..."""
    places = np.arange(start, start + length) % (2 * size)
    return np.where(places < size, places, 2 * size - 1 - places)


def view_at(raster: Raster, resolution: Resolution, *, snap: float = SNAP) -> RasterView:
    """``raster`` at ``resolution``.

    A factor within ``snap`` of a whole number is taken as whole: pixels are then all averaged alike (a factor of
    1.002 would blur in beats); ``view.resolution`` is the result. ``snap=0`` resamples to the very value.
    Raises ResolutionError where the raster's own resolution is unknown or in the other unit, or nothing is left of it;
    BudgetError where the view is larger than is taken on.
    """
    own = raster.resolution
    if own is None:
        raise ResolutionError(f"{raster.path}: its resolution is unknown; say it with --mpp (um/px) or --gsd (m/px)")
    if own.unit != resolution.unit:
        option = "--mpp" if resolution.unit == "um" else "--gsd"
        raise ResolutionError(f"{raster.path}: {own} cannot be read at {resolution}; give its resolution with {option}")
    factor = resolution.value / own.value
    if not min(raster.size.rows, raster.size.cols) / factor >= _LEAST_PX:
        raise ResolutionError(f"{raster.path}: {raster.size} px at {own} are less than a pixel at {resolution}; "
                              "give a finer resolution")  # fmt: skip
    whole = max(1, round(factor))
    view = RasterView(raster, float(whole) if abs(factor / whole - 1) <= snap else factor)
    check_pixels(view.size.rows, view.size.cols, f"{raster.path} at {resolution}")
    return view
