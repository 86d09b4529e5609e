"""Grids of embeddings paired with the training images, as the condition of a denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.diffusion.field import fill_invalid
from ssl_tilegen.encoders.bundle_encoder import is_made_by_encoder_of
from ssl_tilegen.errors import FormatError
from ssl_tilegen.geometry import Window
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.training.data.images import TrainingImage

_SAME_RESOLUTION = 0.01


@dataclass(frozen=True)
class Grid:
    """Cells (R, K, D) float16 of a lattice whose first tile starts at ``corner_px`` (row, col); 0: without gaps."""

    corner_px: tuple[int, int]
    cells: np.ndarray
    stride_px: int = 0


def paired_grid(image: TrainingImage, pattern: str, bundle: ModelBundle, part: Window) -> Grid:
    """The cells over ``part`` of an image, from the grid that ``pattern`` names; corners count from the part's.

    FormatError where the grid was made by another encoder, at another resolution or of another image.
    """
    path = paired_grid_path(image, pattern)
    grid = EmbeddingGrid.open(path)
    lattice, own = grid.spec.lattice, grid.spec.resolution
    if not is_made_by_encoder_of(bundle, grid.spec.encoder):
        raise FormatError(f"{path}: made by the encoder {grid.spec.encoder.id}, not by the bundle's "
                          f"{bundle.info.encoder.id}; embed the image with this bundle")  # fmt: skip
    wanted = image.resolution
    if own is None or own.unit != wanted.unit or abs(own.value / wanted.value - 1) > _SAME_RESOLUTION:
        raise FormatError(f"{path}: embedded at {own}, but trained at {wanted}; embed again with that")
    if (lattice.size.rows, lattice.size.cols) != (image.size.rows, image.size.cols):
        raise FormatError(f"{path}: a grid of {lattice.size}, the image is {image.size}; is it of another image?")
    cells = _cells_over(part, lattice.stride, lattice.tile, grid.shape.rows, grid.shape.cols)
    data = grid.read(cells)
    known = fill_invalid(data.embedding.astype(np.float32), data.usable)
    corner = (cells.row * lattice.stride - part.row, cells.col * lattice.stride - part.col)
    return Grid(corner, known.astype(np.float16), lattice.stride)


def paired_grid_path(image: TrainingImage, pattern: str) -> Path:
    """Where the grid of an image is, as ``pattern`` says."""
    return image.path.parent / pattern.format(stem=image.path.name.split(".")[0], name=image.path.name)


def _cells_over(part: Window, stride: int, tile: int, rows: int, cols: int) -> Window:
    """The cells whose tiles lie in ``part``, and one more on each side where there is one."""
    bounds = []
    for start, length, count in ((part.row, part.rows, rows), (part.col, part.cols, cols)):
        first = max(0, -(-start // stride) - 1)
        last = min(count, (start + length - tile) // stride + 2)
        bounds.append((min(first, count - 1), max(1, last - first)))
    (row, n_rows), (col, n_cols) = bounds
    return Window(row, col, n_rows, n_cols)
