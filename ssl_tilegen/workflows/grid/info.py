"""Facts and an image of a finished grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_tilegen.errors import InputError
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.uri import source_of
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.system import atomic, marks
from ssl_tilegen.system.locks import lock
from ssl_tilegen.system.outputs import Input, Output, check_output, check_paths, require_name
from ssl_tilegen.system.resources import reading_threads
from ssl_tilegen.workflows.grid.preview import thumbnail, write_preview

PREVIEW = ".grid-preview.png"


def describe_grid(path: Path) -> dict[str, Any]:
    """The facts of a grid: its attributes, shape and counts of cells."""
    grid = EmbeddingGrid.open(path)
    shape = {"rows": grid.shape.rows, "cols": grid.shape.cols, "dim": grid.dim}
    lost = {"lost_shards": grid.lost_shards()} if grid.lost_shards() else {}
    return shape | {"cells": grid.counts()} | lost | grid.attributes


def preview_grid(path: Path, image: str | None = None, out: Path | None = None, *, overwrite: bool = False) -> Path:
    """Write a grid as a PNG.

    Args:
        path: The grid.
        image: The image that it was made from, to be shown beside it.
        out: The PNG; by default beside the grid.
        overwrite: Replace a preview.

    Returns:
        The PNG.

    Raises:
        InputError: ``image`` is not the one that the grid was made from.
        OutputError: The PNG exists or cannot be written.
    """
    out = require_name(out or require_name(path).with_name(path.name.removesuffix(".zarr") + PREVIEW))
    written = Output(out, marks.preview("grid preview", path.name))
    check_paths(_inputs(path, image), [written], overwrite=overwrite)
    grid, title = EmbeddingGrid.open(path), marks.preview_title("grid preview", path.name)
    with lock(out) as held:
        atomic.sweep(out.parent, out.name)

        def before() -> None:
            held.check()
            check_output(written, overwrite=overwrite)

        if image is None:
            return write_preview(grid, None, out, title, before, replace=overwrite)
        with open_raster(image) as raster:
            wanted = grid.spec.source.size_px
            if raster.size != wanted:
                raise InputError(
                    f"--image {image}: is {raster.size} px, the grid was made from {wanted} px; give that image"
                )
            seen = thumbnail(RasterView(raster, 1.0), reading_threads())
        return write_preview(grid, seen, out, title, before, replace=overwrite)


def _inputs(path: Path, image: str | None) -> list[Input]:
    found = [Input(path, "the grid")]
    source = source_of(image) if image else None
    return [*found, Input(source, "--image")] if isinstance(source, Path) else found
