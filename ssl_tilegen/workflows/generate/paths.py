"""All that `generate` reads and writes, for the gate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.grids import unfinished_grid
from ssl_tilegen.io.npy_vectors import file_of
from ssl_tilegen.io.pyramid import outputs_of
from ssl_tilegen.io.uri import source_of
from ssl_tilegen.io.writers.registry import check_suffix
from ssl_tilegen.prior.scene import legend_of
from ssl_tilegen.system import atomic, marks
from ssl_tilegen.system.locks import lock_file
from ssl_tilegen.system.outputs import Input, Output, check_paths, require_name
from ssl_tilegen.workflows.generate.preview import preview_output
from ssl_tilegen.workflows.model_paths import model_inputs


def check_run(
    settings: GenerateSettings, out: Path, grid: Path | None = None, *, overwrite: bool | None = None
) -> None:
    """OutputError or InputError where something would be lost, or nothing can be written. Writes nothing.

    ``grid``: the one that is painted from; where it was sampled for the settings, only the image is still to come.
    """
    require_name(out)
    require_name(settings.save_grid or out, "--save-grid")
    check_suffix(out)
    overwrite = settings.overwrite if overwrite is None else overwrite
    if grid and settings.grid is None:
        check_paths([Input(grid, "the grid"), *model_inputs(settings.model)], outputs_of(out), overwrite=overwrite)
    else:
        check_paths(_inputs(settings), _outputs(settings, out), overwrite=overwrite)


def sweep_run(settings: GenerateSettings, out: Path) -> None:
    """Remove the temporary files that ended runs left beside the outputs."""
    for path in {output.path for output in _outputs(settings, out) if output.role != "work"} | {hidden_grid(out)}:
        atomic.sweep(path.parent, path.name)


def hidden_grid(out: Path) -> Path:
    """Where a grid that a prior drew is kept until the image is whole."""
    return out.with_name(f".{out.name}.grid.zarr")


def scene_beside(grid: Path) -> Path:
    """The map that a prompt with relations was read as, beside --save-grid."""
    return grid.with_suffix(".scene.png")


def _inputs(settings: GenerateSettings) -> Iterator[Input]:
    if settings.grid:
        yield Input(settings.grid, "the grid")
    if settings.scene:
        yield Input(settings.scene, "--scene")
        if settings.scene.suffix.lower() not in (".geojson", ".json"):
            yield Input(legend_of(settings.scene), "the legend of --scene")
    if settings.vector:
        yield Input(file_of(settings.vector), "--vector")
    kept = source_of(settings.keep) if settings.keep else None
    if isinstance(kept, Path):
        yield Input(kept, "--keep")
    yield from model_inputs(settings.model)


def _outputs(settings: GenerateSettings, out: Path) -> Iterator[Output]:
    yield from outputs_of(out)
    yield Output(lock_file(out), marks.lock, role="work")
    if settings.preview:
        yield preview_output(out)
    if settings.grid is None:
        yield Output(hidden_grid(out), marks.grid, role="work")
        yield Output(unfinished_grid(hidden_grid(out)), marks.grid, role="work")
    if settings.save_grid:
        yield Output(settings.save_grid, marks.grid, "--save-grid", "side")
        yield Output(unfinished_grid(settings.save_grid), marks.grid, "--save-grid", "work")
        scene = scene_beside(settings.save_grid)
        yield Output(scene, marks.scene, "--save-grid", "side")
        yield Output(legend_of(scene), marks.legend_of(scene), "--save-grid", "side")
