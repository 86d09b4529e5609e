"""The commands `grid ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ssl_tilegen.cli.command import MEASURE, PLAIN, Overwrite, command
from ssl_tilegen.cli.console import Console
from ssl_tilegen.cli.tables import facts_table
from ssl_tilegen.system.boundary import printable

grid = typer.Typer(help="Grids of embeddings: facts, previews, exchange with other tools.", **PLAIN)

GridPath = Annotated[Path, typer.Argument(metavar="GRID", help="A grid made by `embed`.")]


@command(group=grid)
def info_(console: Console, path: GridPath) -> tuple[Any, str]:
    """Describe a grid: its source, its encoder, and the number of usable cells.

    Examples:
        ssl-tilegen grid info slide.zarr
    """
    from ssl_tilegen.workflows.grid.info import describe_grid

    facts = describe_grid(path)
    return facts, facts_table(facts)


@command(group=grid)
def preview(
    console: Console,
    path: GridPath,
    image: Annotated[
        str | None, typer.Option("--image", metavar="FILE", help="The image it was made from, to show beside it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="PNG to write. [GRID.grid-preview.png]", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> tuple[Any, str]:
    """Write a preview of a grid: principal components as colours, invalid cells marked.

    Examples:
        ssl-tilegen grid preview slide.zarr --image slide.svs
    """
    from ssl_tilegen.workflows.grid.info import preview_grid

    written = preview_grid(path, image, out, overwrite=overwrite)
    return {"preview": written}, printable(f"{written}: written")


@command(group=grid)
def export(
    console: Console,
    path: GridPath,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="File to write, .h5 or .npz. [GRID.h5]", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> tuple[Any, str]:
    """Write the vectors of a grid for TRIDENT and CLAM: .h5 (or .npz) with level-0 coordinates.

    Examples:
        ssl-tilegen grid export slide.zarr -o slide.h5
    """
    from ssl_tilegen.workflows.grid.export_features import export_grid

    report = export_grid(path, out, overwrite=overwrite)
    return report, report.line()


@command(group=grid)
def import_(
    console: Console,
    features: Annotated[Path, typer.Argument(metavar="FEATURES", help=".h5 of TRIDENT or CLAM, or .npz.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="GRID", help="Grid to write. [FEATURES.zarr]", show_default=False),
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="The image the features were taken from.")
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option("--mpp", help="Micrometres per pixel of the patches.", min=1e-6, **MEASURE),
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option("--gsd", help="Metres per pixel of the patches.", min=1e-6, **MEASURE),
    ] = None,
    tile: Annotated[
        int | None, typer.Option("--tile", metavar="PX", help="Side of a patch in its pixels.", min=1)
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="NAME", help="Name of the encoder, to be recorded.")
    ] = None,
    overwrite: Overwrite = False,
) -> tuple[Any, str]:
    """Make a grid from features that another tool extracted.

    Examples:
        ssl-tilegen grid import slide.h5 --image slide.svs --encoder uni
    """
    from ssl_tilegen.workflows.grid.import_features import import_features

    options: dict[str, Any] = {"image": image, "mpp": mpp, "gsd": gsd, "tile": tile, "encoder": encoder}
    report = import_features(features, out, overwrite=overwrite, **options)
    return report, report.line()
