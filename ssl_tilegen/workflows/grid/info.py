"""What is told and drawn of a finished grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_tilegen.errors import InputError
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.system.resources import reading_threads
from ssl_tilegen.workflows.grid.picture import thumbnail, write_picture


def describe_grid(path: Path) -> dict[str, Any]:
    """The facts of a grid: its attributes, shape and counts of cells."""
    grid = EmbeddingGrid.open(path)
    shape = {"rows": grid.shape.rows, "cols": grid.shape.cols, "dim": grid.dim}
    lost = {"lost_shards": grid.lost_shards()} if grid.lost_shards() else {}
    return shape | {"cells": grid.counts()} | lost | grid.attributes


def draw_grid(path: Path, image: str | None = None, out: Path | None = None) -> Path:
    """The picture of a grid as PNG, beside the image it was made from if that is given."""
    grid = EmbeddingGrid.open(path)
    out = out or path.with_name(path.name.removesuffix(".zarr") + ".preview.png")
    if image is None:
        return write_picture(grid, None, out)
    with open_raster(image) as raster:
        wanted = grid.spec.source.size_px
        if raster.size != wanted:
            raise InputError(
                f"--image {image}: is {raster.size} px, the grid was made from {wanted} px; give that image"
            )
        return write_picture(grid, thumbnail(RasterView(raster, 1.0), reading_threads()), out)
