"""OME-TIFF where OpenSlide does not do: levels in SubIFDs, channels apart, deep or fluorescent pixels; by tifffile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openslide
import tifffile

from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Resolution, Window
from ssl_tilegen.io.readers.base import Options
from ssl_tilegen.io.readers.channels import ChannelImage
from ssl_tilegen.io.tiff.probe import has_georeference, is_tiff
from ssl_tilegen.io.tiff.tiles import TiffPlane, TileCache
from ssl_tilegen.io.uri import Source

_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4}


class OmeImage(ChannelImage):
    """The largest image of an OME-TIFF. ``resolution`` is PhysicalSizeX and Y; of many planes the first in T and Z.

    Only images in RGB count as stained.
    """

    kind = "slide"

    def __init__(self, path: Path, options: Options) -> None:
        super().__init__(path)
        cache = TileCache()
        with tifffile.TiffFile(path) as tiff:
            series = _largest(tiff)
            self._planes = [_channels(path, level, cache) for level in series.levels]
            self.resolution = options.resolution() or _stated_resolution(tiff, series)
            interleaved = series.axes.endswith("S") and self._planes[0][0][0].samples >= 3
            if any(n > 1 for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "CSYX"):
                self.remarks += (f"the first plane of {series.axes} {series.shape}",)
        self.levels = tuple(channels[0][0].size for channels in self._planes)
        self.size = self.levels[0]
        self._choose([plane.dtype for plane, _ in self._planes[0]], options)
        self._stain(interleaved and options.bands is None)

    @classmethod
    def can_read(cls, path: Source) -> bool:
        """OME-TIFFs, without a georeference, of which OpenSlide would not show every level with its mpp."""
        if not isinstance(path, Path) or path.is_dir() or not is_tiff(path) or has_georeference(path):
            return False
        with tifffile.TiffFile(path) as tiff:
            if not tiff.is_ome or openslide.OpenSlide.detect_format(path) not in (None, "generic-tiff"):
                return False
            levels = len(_largest(tiff).levels)
        try:
            with openslide.OpenSlide(path) as slide:
                return slide.level_count < levels or openslide.PROPERTY_NAME_MPP_X not in slide.properties
        except openslide.OpenSlideError:
            return True

    def close(self) -> None:
        """Close the planes of the file."""
        for plane in {plane for channels in self._planes for plane, _ in channels}:
            plane.close()

    def _read_bands(self, level: int, window: Window) -> np.ndarray:
        """The chosen bands (B, h, w); a plane that holds several is decoded once."""
        chosen = [self._planes[level][band - 1] for band in self._bands]
        read = {plane: plane.read(window) for plane in dict.fromkeys(plane for plane, _ in chosen)}
        return np.stack([read[plane][..., sample] for plane, sample in chosen])


def _largest(tiff: tifffile.TiffFile) -> Any:
    return max(tiff.series, key=lambda series: series.keyframe.imagelength * series.keyframe.imagewidth)


def _channels(path: Path, level: Any, cache: TileCache) -> list[tuple[TiffPlane, int]]:
    """(plane, sample) of each channel of a level, in order."""
    lead = [(axis, n) for axis, n in zip(level.axes, level.shape, strict=True) if axis not in "SYX"]
    shape = [n for _, n in lead] or [1]
    count = dict(lead).get("C", 1)
    indices = [np.ravel_multi_index([c if axis == "C" else 0 for axis, _ in lead] or [0], shape) for c in range(count)]
    if len(level.pages) < len(indices):
        raise InputError(f"{path}: its channels are not in planes of their own; convert it with bfconvert")
    planes = [TiffPlane(_file_of(path, level.pages[int(i)]), level.pages[int(i)], cache) for i in indices]
    return [(plane, sample) for plane in planes for sample in range(plane.samples)]


def _file_of(path: Path, page: Any) -> Path:
    """OME images may have their planes in files beside the first."""
    if page is None:
        raise InputError(f"{path}: some of its planes are in files that are not there; copy them too")
    return Path(page.parent.filehandle.path)


def _stated_resolution(tiff: tifffile.TiffFile, series: Any) -> Resolution | None:
    """The pixel size of the image that ``series`` shows; None where the metadata leave open which one that is."""
    try:
        images = [pixels.attrib for pixels in ElementTree.fromstring(tiff.ome_metadata or "").iterfind(".//{*}Pixels")]
    except ElementTree.ParseError:
        return None
    if series.kind == "ome" and len(images) == len(tiff.series):
        images = [images[tiff.series.index(series)]]
    elif len(images) > 1:  # images without planes have no series
        sides = str(series.keyframe.imagewidth), str(series.keyframe.imagelength)
        images = [facts for facts in images if (facts.get("SizeX"), facts.get("SizeY")) == sides]
    stated = {_pixel_size(facts) for facts in images}
    return stated.pop() if len(stated) == 1 else None


def _pixel_size(facts: Mapping[str, str]) -> Resolution | None:
    """The pixel size in the attributes of an image, as the geometric mean of both axes."""
    try:
        x, y = (float(facts[f"PhysicalSize{a}"]) * _UM[facts.get(f"PhysicalSize{a}Unit", "µm")] for a in "XY")
        return Resolution(math.sqrt(x * y), "um")
    except (KeyError, ValueError):
        return None
