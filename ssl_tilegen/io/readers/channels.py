"""Microscopy as arrays of channels of any type: the common part of OME-TIFF and OME-Zarr."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Window
from ssl_tilegen.io.intensity import SCALED_REMARK, default_bands, percentiles, refuse_complex, to_rgb
from ssl_tilegen.io.overviews import ProbedRaster
from ssl_tilegen.io.readers.base import Options

_SAMPLE_PX = 1024


class ChannelImage(ProbedRaster):
    """Bands are channels (from 1): ``options.bands``, else the first three, else the first.

    What is not 8-bit is scaled by ``options.scale``, else from the percentiles of the coarsest level's middle.
    """

    _bands: tuple[int, ...]

    @abstractmethod
    def _read_bands(self, level: int, window: Window) -> np.ndarray:
        """The chosen bands (B, h, w). Raises ReadError."""

    def _choose(self, dtypes: list[np.dtype], options: Options) -> None:
        """Set the bands and their scaling, of an image with a channel for each of ``dtypes``."""
        self._bands = options.bands or default_bands(len(dtypes))
        if missing := [band for band in self._bands if not 1 <= band <= len(dtypes)]:
            raise InputError(f"{self.path}: has {len(dtypes)} channel(s), no channel {missing[0]}; choose with --bands")
        refuse_complex(self.path, [str(dtypes[band - 1]) for band in self._bands])
        if options.scale is not None:
            self.scaling = (options.scale,) * len(self._bands)
        elif any(dtypes[band - 1] != np.uint8 for band in self._bands):
            size = self.levels[-1]
            rows, cols = min(size.rows, _SAMPLE_PX), min(size.cols, _SAMPLE_PX)
            middle = Window((size.rows - rows) // 2, (size.cols - cols) // 2, rows, cols)
            self.scaling = tuple(percentiles(band) for band in self._read_bands(len(self.levels) - 1, middle))
            self.remarks += (SCALED_REMARK,)

    def _stain(self, in_colour: bool) -> None:
        """Set whether it shows a stain: only images in 8-bit colour do. Of fluorescence all is foreground."""
        self.stained = in_colour and self.scaling is None
        self.background = (255, 255, 255) if self.stained else (0, 0, 0)

    def _read_level(self, level: int, window: Window) -> tuple[np.ndarray, np.ndarray]:
        bands = self._read_bands(level, window)
        finite = np.isfinite(bands).all(axis=0) if bands.dtype.kind == "f" else np.ones(bands.shape[1:], bool)
        return to_rgb(bands, self.scaling), finite
