"""Georeferenced rasters, and plain TIFFs, by rasterio (GDAL); files of this machine and addresses elsewhere."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Hashable

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window as GdalWindow

from ssl_tilegen.errors import InputError, ResolutionError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.io.handle_pool import HandlePool
from ssl_tilegen.io.intensity import SCALED_REMARK, default_bands, percentiles, refuse_complex, to_rgb
from ssl_tilegen.io.overviews import ProbedRaster
from ssl_tilegen.io.readers.base import Kind, Options, ReadError
from ssl_tilegen.io.uri import Source

_STATISTICS_SIDE_PX = 1024  # the scaling is estimated from a decimated read of at most this size

warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
for _option, _value in {"CONNECTTIMEOUT": "15", "TIMEOUT": "120", "MAX_RETRY": "3", "RETRY_DELAY": "1"}.items():
    os.environ.setdefault(f"GDAL_HTTP_{_option}", _value)  # else GDAL waits for a dead host for ever
logging.getLogger("rasterio").addHandler(logging.NullHandler())


class GeoTiff(ProbedRaster):
    """Any raster GDAL opens; without a georeference it is a plain image (``kind``).

    Bands: ``options.bands``, else 1, 2, 3, else band 1 for all three colours (a palette is applied). 8-bit values are
    taken as they are. Others are mapped to 0..255 linearly from ``options.scale``, else from each band's 2nd to 98th
    percentile over the whole file. ``scaling`` says which, and has to be stored with the results. Alpha bands, dataset
    masks, nodata in all chosen bands and NaN are not valid; a fourth band that is not declared alpha is data.

    ``resolution`` in metres is ``options.gsd``, else from the transform: linear units as the CRS states them (for Web
    Mercator its nominal metres, see ``remarks``), degrees at the centre's latitude; rotation is fine.

    Overviews are read only where they were made by averaging: many files hold nearest-neighbour ones.
    """

    kind: Kind = "georaster"
    background = (0, 0, 0)

    def __init__(self, path: Source, options: Options) -> None:
        super().__init__(path)
        self._handles: HandlePool[rasterio.DatasetReader] = HandlePool(self._open)
        with self._handles.borrow(0) as dataset:
            self.size = Size(dataset.height, dataset.width)
            self.levels = self._find_levels(dataset)
            self._place(dataset, options)
            self._choose_bands(dataset, options)

    @classmethod
    def can_read(cls, path: Source) -> bool:
        """Whether GDAL opens the file and finds a band in it."""
        try:
            with rasterio.open(path) as dataset:
                return dataset.count > 0
        except RasterioError:
            return False

    def close(self) -> None:
        """Close all handles of the file."""
        self._handles.close()

    def _open(self, level: Hashable) -> rasterio.DatasetReader:
        assert isinstance(level, int)
        return rasterio.open(self.path, **({"overview_level": level - 1} if level else {}))

    def _find_levels(self, dataset: rasterio.DatasetReader) -> tuple[Size, ...]:
        sizes = [self.size]
        for level in range(1, len(dataset.overviews(1)) + 1):
            with self._handles.borrow(level) as overview:
                sizes.append(Size(overview.height, overview.width))
        return tuple(sizes)

    def _place(self, dataset: rasterio.DatasetReader, options: Options) -> None:
        """Set kind, crs, transform, resolution and remarks about them."""
        if dataset.crs is None and dataset.transform.is_identity:
            self.kind, self.background = "picture", (255, 255, 255)
            self.resolution = options.resolution()
            return
        a, b, c, d, e, f = dataset.transform[:6]
        self.transform = (a, b, c, d, e, f)
        if dataset.crs is not None:
            self.crs = dataset.crs.to_string()
        metres = _metres_per_pixel(dataset)
        if not all(math.isfinite(value) for value in self.transform):
            raise ResolutionError(f"{self.path}: its transform has values that are no numbers; mend its georeference")
        self.resolution = options.resolution() or (metres and Resolution(metres, "m")) or None
        if self.crs == "EPSG:3857" and options.gsd is None:
            true_share = math.cos(math.radians(_centre_latitude(dataset)))
            self.remarks += (
                f"ground sampling in nominal EPSG:3857 metres; true metres are about {true_share:.3f} of them",
            )

    def _choose_bands(self, dataset: rasterio.DatasetReader, options: Options) -> None:
        """Set the bands, their palette or scaling, and whether a mask has to be read."""
        self._bands = options.bands or default_bands(dataset.count)
        if missing := [band for band in self._bands if not 1 <= band <= dataset.count]:
            raise InputError(f"{self.path}: has {dataset.count} band(s), no band {missing[0]}; choose with --bands")
        refuse_complex(self.path, [dataset.dtypes[band - 1] for band in self._bands])
        flags = [dataset.mask_flag_enums[band - 1] for band in self._bands]
        self._masked = any(MaskFlags.all_valid not in flag for flag in flags)
        palette = dataset.colorinterp[0] == ColorInterp.palette and options.bands is None
        self._palette = _palette(dataset) if palette else None
        if self._palette is not None:
            return
        if options.scale is not None:
            self.scaling = (options.scale,) * len(self._bands)
        elif any(dataset.dtypes[band - 1] != "uint8" for band in self._bands):
            self.scaling = self._estimated_scaling(dataset)
            self.remarks += (SCALED_REMARK,)

    def _estimated_scaling(self, dataset: rasterio.DatasetReader) -> tuple[tuple[float, float], ...]:
        shrink = max(1.0, max(dataset.shape) / _STATISTICS_SIDE_PX)
        shape = (len(self._bands), *(max(1, int(side / shrink)) for side in dataset.shape))
        try:
            bands = dataset.read(self._bands, out_shape=shape).astype(np.float64)
            masks = dataset.read_masks(self._bands, out_shape=shape) > 0
        except RasterioIOError as error:
            raise InputError(f"{self.path}: cannot be read to find its scaling ({error}); give --scale") from error
        seen = [band[mask] for band, mask in zip(bands, masks, strict=True)]
        if any(values.size for values in seen) and not any(np.isfinite(values).any() for values in seen):
            raise InputError(f"{self.path}: none of its values is a finite number; leave it out, or give --scale")
        return tuple(map(percentiles, seen))

    def _read_level(self, level: int, window: Window) -> tuple[np.ndarray, np.ndarray]:
        area = GdalWindow(window.col, window.row, window.cols, window.rows)
        try:
            with self._handles.borrow(level) as dataset:
                bands = dataset.read(self._bands, window=area)
                masks = dataset.read_masks(self._bands, window=area) if self._masked else None
        except RasterioError as error:
            raise ReadError(f"{self.path}: level {level} cannot be read at {window} ({error})") from error
        valid = np.ones(bands.shape[1:], bool) if masks is None else (masks > 127).any(axis=0)
        if bands.dtype.kind == "f":
            valid &= np.isfinite(bands).all(axis=0)
        return self._to_rgb(bands), valid

    def _to_rgb(self, bands: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) from the chosen bands (1 or 3, h, w)."""
        if self._palette is not None:
            return self._palette[bands[0]]
        return to_rgb(bands, self.scaling)


def _metres_per_pixel(dataset: rasterio.DatasetReader) -> float | None:
    """Side of the square with a pixel's area, in metres; None where the CRS does not tell."""
    crs, area = dataset.crs, abs(dataset.transform.determinant)
    if crs is None or not 0 < area < math.inf:
        return None
    side = math.sqrt(area)
    if crs.is_geographic:
        latitude = math.radians(_centre_latitude(dataset))
        north = 111132.95 - 559.85 * math.cos(2 * latitude) + 1.17 * math.cos(4 * latitude)
        east = 111412.88 * math.cos(latitude) - 93.5 * math.cos(3 * latitude) + 0.12 * math.cos(5 * latitude)
        return side * math.sqrt(north * max(east, 1.0))
    try:
        return side * crs.linear_units_factor[1]
    except RasterioError:
        return None


def _centre_latitude(dataset: rasterio.DatasetReader) -> float:
    """Degrees north of the raster's middle."""
    a, b, c, d, e, f = dataset.transform[:6]
    row, col = dataset.height / 2, dataset.width / 2
    x, y = a * col + b * row + c, d * col + e * row + f
    if dataset.crs.is_geographic:
        return y
    from rasterio.warp import transform

    return transform(dataset.crs, "EPSG:4326", [x], [y])[1][0]


def _palette(dataset: rasterio.DatasetReader) -> np.ndarray:
    """Colours of values 0..255, uint8 (256, 3)."""
    table = np.zeros((256, 3), np.uint8)
    for value, rgba in dataset.colormap(1).items():
        if 0 <= value < 256:
            table[value] = rgba[:3]
    return table
