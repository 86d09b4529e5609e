"""A real image of which a part is repainted: its pixels all around, and its latents for the painter to go on from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.diffusion.inpainting import border_ramp
from ssl_tilegen.errors import FormatError, InputError, OutputError
from ssl_tilegen.geometry import Resolution, Window
from ssl_tilegen.grids.spec import GridSpec
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.view import RasterView

_BLEND_PX = 32
_READ_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Inpainting:
    """``view`` of the image at the grid's resolution, and the ``region`` of it (pixels) that is repainted."""

    view: RasterView
    region: Window

    @property
    def fingerprint(self) -> str:
        """Content fingerprint of the image that is repainted."""
        return self.view.raster.fingerprint

    def refuse_changed(self, expected: object) -> None:
        """InputError where the image has another fingerprint than ``expected`` by now."""
        if self.fingerprint != expected:
            path = self.view.raster.path
            raise InputError(f"{path}: was changed while it was read; embed it again, then repaint it")

    def latents(self, bundle: ModelBundle, window: Window) -> Tensor:
        """The image's own latents (C, rows, cols) in a window of the canvas; beyond its edges it is mirrored."""
        return bundle.encode_window(self.view, window)

    def around(self, painted: Iterator[np.ndarray], first: int) -> Iterator[np.ndarray]:
        """The whole image from row ``first`` on, uint8 (rows, width, 3), with the region's rows from ``painted``."""
        row, region = first, self.region
        for end, rows in ((region.row, self._own_rows), (region.row_end, lambda a, b: painted)):
            for band in rows(row, end) if row < end else ():
                yield self._joined(row, band) if end == region.row_end else band
                row += len(band)
        yield from self._own_rows(row, self.view.size.rows)

    def _own_rows(self, first: int, end: int) -> Iterator[np.ndarray]:
        step = max(1, _READ_BYTES // (3 * self.view.size.cols))
        for row in range(first, end, step):
            yield self._read(Window(row, 0, min(step, end - row), self.view.size.cols))

    def _joined(self, row: int, band: np.ndarray) -> np.ndarray:
        """The image's rows from ``row`` with a band (rows, region's width, 3) in its place, blended at its border."""
        size, region = self.view.size, self.region
        rows = self._read(Window(row, 0, len(band), size.cols)).copy()  # the decoded pixels are read-only
        down = border_ramp(0, size.rows, region.row, region.row_end, _BLEND_PX)[row : row + len(band)]
        across = border_ramp(0, size.cols, region.col, region.col_end, _BLEND_PX)[region.col : region.col_end]
        share = (down[:, None] * across).numpy()[..., None]
        own = rows[:, region.col : region.col_end]
        own[:] = np.rint(own + share * (band.astype(np.float32) - own)).astype(np.uint8)
        return rows

    def _read(self, window: Window) -> np.ndarray:
        return self.view.read(window).rgb


def open_inpainting(image: str, region: Window, spec: GridSpec) -> Inpainting:
    """The image that a grid was made from, seen as the grid sees it. FormatError where it is another one."""
    own = spec.resolution and Resolution(spec.resolution.value / spec.factor, spec.resolution.unit)
    scales = set(spec.source.scale or ())
    scale = scales.pop() if len(scales) == 1 else None
    raster = open_raster(image, bands=spec.source.bands, scale=scale, if_unknown=own)
    view = RasterView(raster, spec.factor)
    if raster.fingerprint != spec.source.fingerprint or view.size != spec.lattice.size:
        raster.close()
        raise FormatError(
            f"{image}: not the image that the grid was made from ({spec.source.name}, seen at {spec.lattice.size} px); "
            "give that one, or embed this one"
        )
    return Inpainting(view, region)


def check_lossless(out: Path) -> None:
    """OutputError for an output that would change the pixels which are to be kept."""
    if out.name.lower().endswith((".jpg", ".jpeg", ".svs")):
        raise OutputError(f"{out}: JPEG would change the pixels that are kept; write .ome.tif, .tif, .png or .zarr")
