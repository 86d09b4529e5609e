"""One training image: in memory whole, or read from its file window by window."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ssl_tilegen.config.train import SourceSettings
from ssl_tilegen.errors import ResolutionError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.base import Raster, ReadError
from ssl_tilegen.io.salvage import readable_part
from ssl_tilegen.io.tissue import tissue_mask
from ssl_tilegen.io.view import RasterView, view_at

_OVERVIEW_PX = 2048
_OVERVIEW_LEAST = 0.05


class TrainingImage(Protocol):
    """An image at its training resolution. ``source``: the index of the source it belongs to."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def source(self) -> int:
        """Index of the source it belongs to."""
        ...

    @property
    def size(self) -> Size:
        """Rows and columns at the training resolution."""
        ...

    @property
    def resolution(self) -> Resolution:
        """The training resolution."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether it lies in memory whole."""
        ...

    def seems_empty(self, window: Window) -> bool:
        """Whether it is known without reading that the window shows background or nothing."""
        ...

    def take(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """The window's pixels (H, W, 3) uint8, and where they are valid (H, W) or None for everywhere."""
        ...


@dataclass(frozen=True, eq=False)
class InMemoryImage:
    """``rgb`` (H, W, 3) uint8 and ``valid`` (H, W) bool, or None where all of it is valid."""

    path: Path
    source: int
    resolution: Resolution
    rgb: np.ndarray
    valid: np.ndarray | None
    in_memory = True

    @property
    def size(self) -> Size:
        """Rows and columns at the training resolution."""
        return Size(*self.rgb.shape[:2])

    def seems_empty(self, window: Window) -> bool:
        """False: a read costs nothing."""
        return False

    def take(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """The window's pixels, a view without a copy."""
        return self.rgb[window.slices], None if self.valid is None else self.valid[window.slices]


@dataclass(frozen=True, eq=False)
class StreamedImage:
    """A file that stays open; ``content`` (h, w) bool says roughly where there is anything to see."""

    path: Path
    source: int
    resolution: Resolution
    view: RasterView
    content: np.ndarray = field(repr=False)
    in_memory = False

    @property
    def size(self) -> Size:
        """Rows and columns at the training resolution."""
        return self.view.size

    def seems_empty(self, window: Window) -> bool:
        """Whether a thumbnail shows next to nothing in the window."""
        scale = self.content.shape[0] / self.size.rows, self.content.shape[1] / self.size.cols
        rows = slice(int(window.row * scale[0]), int(window.row_end * scale[0]) + 1)
        cols = slice(int(window.col * scale[1]), int(window.col_end * scale[1]) + 1)
        return bool(self.content[rows, cols].mean() < _OVERVIEW_LEAST)

    def take(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """The window's pixels, read from the file; a damaged part is nowhere valid."""
        try:
            pixels = self.view.read(window)
        except ReadError:  # a damaged part of a slide is no part of the training data
            blank = np.zeros((window.rows, window.cols, 3), np.uint8)
            return blank, np.zeros(blank.shape[:2], bool)
        return pixels.rgb, None if pixels.valid.all() else pixels.valid


class Wanted(NamedTuple):
    """A file of the source ``number``; ``usual``: the resolution of the bundle for its domain, where that is known."""

    path: Path
    number: int
    source: SourceSettings
    usual: Resolution | None = None


def read_training_images(wanted: Sequence[Wanted], memory_mib: int) -> list[TrainingImage]:
    """The images of all files in order; the smallest are read into memory, as many as fit in ``memory_mib``."""
    with ThreadPoolExecutor(4) as pool:
        areas = np.array(list(pool.map(_area, wanted)), float)
        order = np.argsort(areas, kind="stable")
        fits = np.empty(len(wanted), bool)
        fits[order] = 3 * areas[order].cumsum() <= memory_mib << 20
        return list(pool.map(_read, wanted, fits))


def _view(wanted: Wanted, opened: ExitStack) -> tuple[RasterView, Resolution]:
    """The image at its training resolution; the file is closed with ``opened``."""
    known = Resolution.stated(wanted.source.mpp, wanted.source.gsd)
    raster = opened.enter_context(open_raster(wanted.path, if_unknown=known))
    resolution = _target(raster, wanted)
    return view_at(raster, resolution), resolution


def _area(wanted: Wanted) -> int:
    with ExitStack() as opened:
        return _view(wanted, opened)[0].size.area


def _read(wanted: Wanted, fits: bool) -> TrainingImage:
    with ExitStack() as opened:
        view, resolution = _view(wanted, opened)
        if not fits:
            image = StreamedImage(wanted.path, wanted.number, resolution, view, _content(view.raster))
            opened.pop_all()  # it stays open
            return image
        rgb, valid = readable_part(view, Window.of(view.size))
    all_valid = None if valid.all() else valid
    return InMemoryImage(wanted.path, wanted.number, resolution, np.ascontiguousarray(rgb), all_valid)


def _target(raster: Raster, wanted: Wanted) -> Resolution:
    """The stated resolution, else the bundle's for slides (as `embed` reads them), else the file's own."""
    source, usual = wanted.source, wanted.usual
    if source.mpp:
        return Resolution(source.mpp * source.shrink, "um")
    if source.gsd:
        return Resolution(source.gsd * source.shrink, "m")
    if raster.resolution is None:
        raise ResolutionError(f"{raster.path}: its resolution is unknown; give data.sources.mpp or data.sources.gsd")
    own = usual if usual and usual.unit == raster.resolution.unit == "um" else raster.resolution
    return Resolution(own.value * source.shrink, own.unit)


def _content(raster: Raster) -> np.ndarray:
    """Where a thumbnail of the whole shows stained tissue; on other images, where there are data."""
    shrink = max(1.0, max(raster.size.rows, raster.size.cols) / _OVERVIEW_PX)
    view = RasterView(raster, shrink)
    rgb, valid = readable_part(view, Window.of(view.size))
    return valid & tissue_mask(rgb) if raster.stained else valid
