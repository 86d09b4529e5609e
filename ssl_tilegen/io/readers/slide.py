"""Whole-slide images, by OpenSlide; those that are tiled TIFF by their tiles where that gives the same pixels."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import openslide

from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Resolution, Size, Window, cover
from ssl_tilegen.io.handle_pool import HandlePool
from ssl_tilegen.io.readers.base import Options, Raster, ReadError, Rgb
from ssl_tilegen.io.readers.slide_tiles import VENDORS, Read, SlideTiles
from ssl_tilegen.io.tiff.probe import has_georeference
from ssl_tilegen.io.uri import Source

COARSEST_MPP = 100.0  # a "slide" coarser than this is a photograph with a print resolution
_CACHE_BYTES = 32 << 20
_BLOCK_PX = 256


class Slide(Raster):
    """A slide that OpenSlide knows (SVS, NDPI, MRXS, SCN, tiled pyramidal TIFF, DICOM, ...).

    ``resolution`` comes from ``openslide.mpp-x`` and ``-y`` (their geometric mean); where they are missing it is None
    and ``at`` asks for ``--mpp``. Transparent pixels (never scanned) are not valid. Levels whose size is no whole
    fraction of level 0 are placed by OpenSlide to within a quarter of their pixel. Bands and scale do not apply.
    """

    kind = "slide"
    stained = True

    def __init__(self, path: Path, options: Options) -> None:
        super().__init__(path)
        self._cache = openslide.OpenSlideCache(_CACHE_BYTES)
        self._handles = HandlePool(self._open)
        with self._handles.borrow() as slide:
            self.levels = tuple(Size(rows, cols) for cols, rows in slide.level_dimensions)
            self._downsamples = tuple(slide.level_downsamples)
            self.background = _background(slide)
            self.resolution = options.resolution() or _stated_resolution(slide)
            vendor = slide.properties.get(openslide.PROPERTY_NAME_VENDOR, "")
        self.size = self.levels[0]
        self.tiles = _tiles(path, self.levels, lambda *place: self._read_region(*place)[..., :3], vendor)

    @classmethod
    def can_read(cls, path: Source) -> bool:
        """Every vendor's format; a generic tiled TIFF only with a slide's mpp and without a georeference."""
        vendor = openslide.OpenSlide.detect_format(path)
        if vendor != "generic-tiff":
            return vendor is not None
        if not isinstance(path, Path) or has_georeference(path):
            return False
        try:
            with openslide.OpenSlide(path) as slide:
                return _stated_resolution(slide) is not None
        except openslide.OpenSlideError:
            return False

    def close(self) -> None:
        """Close the slide and its tile reader."""
        self._handles.close()
        if self.tiles:
            self.tiles.close()

    def _open(self, _: Hashable) -> openslide.OpenSlide:
        try:
            slide = openslide.OpenSlide(self.path)
        except (openslide.OpenSlideError, OSError) as error:
            raise InputError(
                f"{self.path}: OpenSlide cannot open it ({error}); copy it again with all its files"
            ) from (error)
        slide.set_cache(self._cache)
        return slide

    def _read_level(self, level: int, window: Window) -> tuple[np.ndarray, np.ndarray]:
        whole = self._downsamples[level].is_integer()
        if whole and self.tiles and (plane := self.tiles.plane(level)):
            return plane.read(window), np.ones((window.rows, window.cols), bool)
        rgba = self._read_region(level, window) if whole else self._read_blocks(level, window)
        return np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] >= 128

    def _read_region(self, level: int, window: Window) -> np.ndarray:
        downsample = self._downsamples[level]
        corner = round(window.col * downsample), round(window.row * downsample)
        try:
            with self._handles.borrow() as slide:
                return np.asarray(slide.read_region(corner, level, (window.cols, window.rows)))
        except openslide.OpenSlideError as error:
            raise ReadError(f"{self.path}: level {level} cannot be read at {window} ({error})") from error

    def _read_blocks(self, level: int, window: Window) -> np.ndarray:
        """A window put together from blocks at fixed places.

        OpenSlide takes corners in level-0 pixels; where they are no whole level pixels it shifts the image by the
        rest. With fixed blocks a pixel is shifted alike whichever window asks for it.
        """
        outer = window.aligned(_BLOCK_PX)
        rgba = np.zeros((outer.rows, outer.cols, 4), np.uint8)
        for block in cover(outer.size, Size(_BLOCK_PX, _BLOCK_PX)):
            rgba[block.slices] = self._read_region(level, block.shifted(outer.row, outer.col))
        return rgba[window.within(outer).slices]


def _tiles(path: Path, levels: Sequence[Size], read: Read, vendor: str) -> SlideTiles | None:
    """The slide's tiles; None where it has none of its own, or its file is too odd for tifffile."""
    try:
        return SlideTiles(path, levels, read) if vendor in VENDORS else None
    except Exception:  # whatever a strange directory does there, OpenSlide reads the slide
        return None


def _background(slide: openslide.OpenSlide) -> Rgb:
    stated = slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "FFFFFF")
    red, green, blue = bytes.fromhex(stated.lstrip("#"))
    return red, green, blue


def _stated_resolution(slide: openslide.OpenSlide) -> Resolution | None:
    try:
        mpp_x = float(slide.properties[openslide.PROPERTY_NAME_MPP_X])
        mpp_y = float(slide.properties[openslide.PROPERTY_NAME_MPP_Y])
    except (KeyError, ValueError):
        return None
    if not (0 < mpp_x < COARSEST_MPP and 0 < mpp_y < COARSEST_MPP):
        return None
    return Resolution(math.sqrt(mpp_x * mpp_y), "um")
