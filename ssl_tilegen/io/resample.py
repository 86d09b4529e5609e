"""Exact area filtering on one axis at a time: every output pixel is the mean of the pixels it covers.

An output pixel's value depends on its absolute position only, never on the window it was asked for with. Sums are taken
in a fixed order: windows that touch tile the very same image, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LINEAR_BELOW = 0.99  # steps below this many source pixels enlarge: linear interpolation; above: area mean
_DECIMALS = 6  # edges are rounded to a millionth of a pixel, so that whole factors give whole edges


@dataclass(frozen=True, slots=True)
class Axis:
    """``count`` output pixels from index ``first``; pixel i covers ``origin + [i, i + 1) * step`` source pixels."""

    first: int
    count: int
    step: float
    origin: float = 0.0

    @property
    def edges(self) -> np.ndarray:
        """The count + 1 pixel borders, in source pixels (float64)."""
        return np.round(self.origin + (self.first + np.arange(self.count + 1)) * self.step, _DECIMALS)

    def on_level(self, downsample: float) -> Axis:
        """The same pixels over a level whose pixels are ``downsample`` source pixels wide."""
        return Axis(self.first, self.count, self.step / downsample, self.origin / downsample)

    def halves(self) -> tuple[Axis, Axis]:
        """The first and the second half of the samples."""
        half = self.count // 2
        return (
            Axis(self.first, half, self.step, self.origin),
            Axis(self.first + half, self.count - half, self.step, self.origin),
        )

    def taps(self, length: int) -> Taps | None:
        """Which of ``length`` source pixels each output pixel takes, and how much; None where it meets none."""
        index, weight = self._linear(length) if self.step < LINEAR_BELOW else self._area(length)
        used = weight.any(axis=1)
        if not used.any():
            return None
        start, stop = int(index[used].min()), int(index[used].max()) + 1
        return Taps(start, stop, np.clip(index, start, stop - 1) - start, weight)

    def _area(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        edges = self.edges
        low, high = edges[:-1, None], edges[1:, None]
        start = np.floor(low).astype(np.int64)
        index = start + np.arange(int((np.ceil(high) - start).max()))
        weight = np.clip(np.minimum(high, index + 1) - np.maximum(low, index), 0, None)
        inside = (index >= 0) & (index < length)
        return np.clip(index, 0, length - 1), (weight * inside).astype(np.float32)

    def _linear(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        edges = self.edges
        centre = (edges[:-1] + edges[1:]) / 2
        low = np.floor(centre - 0.5)
        share = centre - 0.5 - low
        index = low.astype(np.int64)[:, None] + np.arange(2)
        weight = np.stack([1 - share, share], axis=1) * ((centre > 0) & (centre < length))[:, None] * self.step
        return np.clip(index, 0, length - 1), weight.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Taps:
    """Source pixels ``start .. stop``; per output pixel the indices (from ``start``) and weights it sums, (count, K).

    Weights are lengths in source pixels; they sum to the axis' step where the output pixel lies wholly inside.
    """

    start: int
    stop: int
    index: np.ndarray
    weight: np.ndarray

    @property
    def is_identity(self) -> bool:
        """Whether each output pixel is one source pixel, in order."""
        whole = len(self.index) == self.stop - self.start
        return whole and self.weight.shape[1] == 1 and bool((self.weight == 1).all())

    def sum(self, source: np.ndarray, axis: int) -> np.ndarray:
        """The weighted sums along ``axis`` (0 or 1) of ``source``, float32."""
        total: np.ndarray | None = None
        for index, weight in zip(self.index.T, self.weight.T, strict=True):
            shape = [1] * source.ndim
            shape[axis] = len(weight)
            term = np.take(source, index, axis=axis) * weight.reshape(shape)
            total = term if total is None else np.add(total, term, out=total)
        assert total is not None  # an axis has at least one tap
        return total


def filter_pixels(
    rgb: np.ndarray, valid: np.ndarray, rows: Taps, cols: Taps, pixel_area: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour of the valid source pixels under each output pixel.

    ``rgb`` uint8 (h, w, 3) and ``valid`` bool (h, w) are the source pixels that ``rows`` and ``cols`` span. Returns
    uint8 (H, W, 3) and bool (H, W): an output pixel is valid when at least half of its ``pixel_area`` (in source
    pixels) is.
    """
    if rows.is_identity and cols.is_identity:
        return rgb, valid
    if valid.all():
        colour = cols.sum(rows.sum(rgb, 0), 1)
        row_weight = rows.sum(np.ones((len(rgb), 1), np.float32), 0)
        weight = cols.sum(np.broadcast_to(row_weight, (len(row_weight), rgb.shape[1])), 1)
    else:
        colour = cols.sum(rows.sum(rgb * valid[..., None], 0), 1)
        weight = cols.sum(rows.sum(valid.astype(np.float32), 0), 1)
    mean = colour / np.maximum(weight, 1e-9)[..., None]
    return (mean + 0.5).astype(np.uint8), weight >= 0.5 * pixel_area - 1e-4
