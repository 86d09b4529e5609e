"""The preview of a grid: the image beside the first three principal components of its embeddings as colour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl_tilegen.errors import OutputError
from ssl_tilegen.geometry import Size
from ssl_tilegen.grids import EmbeddingGrid, GridSpec, Validity, shards
from ssl_tilegen.io.png_text import png_text
from ssl_tilegen.io.tissue_map import overview_of, read_whole
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.system import atomic

PANEL_PX = 1024
_SAMPLED_SHARDS, _SAMPLED_CELLS = 64, 4_096
_GAP_PX, _FONT_PX, _PAPER, _INK = 16, 15, (255, 255, 255), (30, 30, 30)
COLOURS = {
    Validity.BACKGROUND: (226, 226, 226),
    Validity.OUTSIDE: (150, 150, 150),
    Validity.READ_ERROR: (255, 0, 0),
    Validity.NODATA: (60, 60, 60),
}


def thumbnail(view: RasterView, threads: int) -> np.ndarray:
    """The whole image, uint8 (H, W, 3), at most `PANEL_PX` a side."""
    return read_whole(overview_of(view, PANEL_PX, 0.0), threads)


def write_preview(
    grid: EmbeddingGrid,
    image: np.ndarray | None,
    path: Path,
    title: str,
    before: Callable[[], object] = lambda: None,
    *,
    replace: bool = True,
) -> Path:
    """Write the preview of ``grid``, beside ``image`` (H, W, 3) if there is one, as PNG with a ``title`` in it;
    ``before`` it gets its name, that is asked whether it still may; with ``replace`` in the place of another file."""
    size = Size(*image.shape[:2]) if image is not None else _panel_size(grid.spec)
    panels = ([image] if image is not None else []) + [grid_panel(grid, size)]
    try:
        with atomic.writing(path, before=before, replace=replace) as part:
            _compose(panels, grid).save(part, "PNG", pnginfo=png_text(Title=title))
    except OSError as error:
        raise OutputError(f"{path}: cannot write here ({error.strerror or error}); choose another -o") from error
    return path


def grid_panel(grid: EmbeddingGrid, size: Size) -> np.ndarray:
    """uint8 (H, W, 3): every cell where its tile's middle lies; components as colour, codes for cells without any."""
    colours = _coloured(grid, Components.of(grid))
    lattice = grid.spec.lattice
    lead = (lattice.tile - lattice.stride) / 2
    rows, cols = (
        ((np.arange(side) + 0.5) * plane / side - lead) / lattice.stride
        for side, plane in ((size.rows, lattice.size.rows), (size.cols, lattice.size.cols))
    )
    panel = colours[np.clip(rows, 0, grid.shape.rows - 1).astype(int)][
        :, np.clip(cols, 0, grid.shape.cols - 1).astype(int)
    ]
    beyond = ((rows < 0) | (rows >= grid.shape.rows))[:, None] | ((cols < 0) | (cols >= grid.shape.cols))[None]
    return np.where(beyond[..., None], np.uint8(255), panel)


class Components(NamedTuple):
    """The map from vectors to colours: ``mean`` (D,), ``axes`` (D, 3), ``low`` and ``high`` (3,) become 0 and 255."""

    mean: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, grid: EmbeddingGrid) -> Components:
        """Fitted to the cells that are no background, sampled evenly over the grid."""
        vectors = _sample(grid)
        mean = vectors.mean(0)
        vectors -= mean
        _, axes = np.linalg.eigh(vectors.T @ vectors)
        axes = np.pad(axes[:, ::-1][:, :3], ((0, 0), (0, max(0, 3 - axes.shape[1]))))
        axes = axes * np.where(
            np.abs(axes).max(0) > np.abs(axes.min(0)), 1, -1
        )  # a sign that does not depend on LAPACK
        low, high = np.percentile(vectors @ axes, (2, 98), axis=0)
        return cls(mean, axes, low, high)

    def colour(self, vectors: np.ndarray) -> np.ndarray:
        """(..., D) -> uint8 (..., 3)."""
        spread = np.where(self.high > self.low, self.high - self.low, np.inf)
        shares = ((vectors.astype(np.float32) - self.mean) @ self.axes - self.low) / spread
        return (np.clip(shares, 0, 1) * 255 + 0.5).astype(np.uint8)


def _sample(grid: EmbeddingGrid) -> np.ndarray:
    """Embeddings (N, D) float32 of usable cells, N bounded; a single zero where there are none."""
    windows = shards(grid.shape)
    step = -(-len(windows) // _SAMPLED_SHARDS)
    chosen = windows[::step]
    each = _SAMPLED_CELLS // len(chosen)
    found = []
    for window in chosen:
        cells = grid.read(window)
        vectors = cells.embedding[cells.valid == Validity.OK]
        found.append(vectors[:: -(-len(vectors) // each) or 1].astype(np.float32))
    vectors = np.concatenate(found)
    return vectors if len(vectors) else np.zeros((1, grid.dim), np.float32)


def _coloured(grid: EmbeddingGrid, components: Components) -> np.ndarray:
    """uint8 (R, K, 3), one colour a cell; read shard by shard."""
    colours = np.empty((grid.shape.rows, grid.shape.cols, 3), np.uint8)
    for window in shards(grid.shape):
        cells = grid.read(window)
        part = components.colour(cells.embedding)
        for code, colour in COLOURS.items():
            part[cells.valid == code] = colour
        colours[window.slices] = part
    return colours


def _panel_size(spec: GridSpec) -> Size:
    size = spec.lattice.size
    return size.scaled(min(1.0, PANEL_PX / max(size.rows, size.cols)))


def _compose(panels: list[np.ndarray], grid: EmbeddingGrid) -> Image.Image:
    """The panels side by side, with a legend of the colours below."""
    lines = _legend(grid)
    font = ImageFont.load_default(_FONT_PX)
    height, width = panels[0].shape[:2]
    wide = max(len(panels) * (width + _GAP_PX) + _GAP_PX, 640)
    page = Image.new("RGB", (wide, height + 2 * _GAP_PX + len(lines) * (_FONT_PX + 7) + _GAP_PX), _PAPER)
    draw = ImageDraw.Draw(page)
    for index, panel in enumerate(panels):
        place = (_GAP_PX + index * (width + _GAP_PX), _GAP_PX)
        page.paste(Image.fromarray(np.ascontiguousarray(panel)), place)
        draw.rectangle((place[0] - 1, place[1] - 1, place[0] + width, place[1] + height), outline=_INK)
    for index, (colour, text) in enumerate(lines):
        top = height + 2 * _GAP_PX + index * (_FONT_PX + 7)
        if colour:
            draw.rectangle((_GAP_PX, top, _GAP_PX + _FONT_PX, top + _FONT_PX), fill=colour, outline=_INK)
        draw.text((_GAP_PX + (_FONT_PX + 8 if colour else 0), top - 2), text, fill=_INK, font=font)
    return page


def _legend(grid: EmbeddingGrid) -> list[tuple[tuple[int, int, int] | None, str]]:
    """(colour, text) of each line: the grid's kind, and the codes that occur in it."""
    counts, spec = grid.counts(), grid.spec
    resolution = f" at {spec.resolution}" if spec.resolution else ""
    lines: list[tuple[tuple[int, int, int] | None, str]] = [
        (
            None,
            f"{spec.source.name}: {grid.shape.cols} x {grid.shape.rows} cells of {spec.lattice.tile} px{resolution}",
        ),
        (None, f"{spec.encoder.id}, {grid.dim} values: components 1, 2, 3 as red, green, blue; {counts['ok']} ok"),
    ]
    return lines + [(colour, f"{counts[c.name.lower()]} {c.name.lower().replace('_', ' ')}")
                    for c, colour in COLOURS.items() if counts[c.name.lower()]]  # fmt: skip
