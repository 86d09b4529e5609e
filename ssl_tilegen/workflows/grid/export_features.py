"""Write the cells of a grid as features at level-0 corners, as TRIDENT and CLAM keep them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.grids import (
    EmbeddingGrid,
    GridSpec,
    Validity,
    shards,
)
from ssl_tilegen.io.feature_files import write_features
from ssl_tilegen.system import atomic, marks
from ssl_tilegen.system.locks import lock
from ssl_tilegen.system.outputs import Input, Output, check_output, check_paths, require_name
from ssl_tilegen.workflows.grid.exchange_report import ExchangeReport
from ssl_tilegen.workflows.grid.patches import MAGNIFICATION_MPP


def export_grid(source: Path, out: Path | None = None, *, overwrite: bool = False) -> ExchangeReport:
    """Write the cells of a grid that are ok.

    Args:
        source: The grid.
        out: The file, ``.h5`` or ``.npz``; by default ``.h5`` beside the grid.
        overwrite: Replace a finished file.

    Returns:
        How many features were written.

    Raises:
        FormatError: The grid is unfinished or damaged.
        OutputError: The file exists or cannot be written.
    """
    out = require_name(out or require_name(source).with_suffix(".h5"))
    written = Output(out, marks.features)
    check_paths([Input(source, "the grid")], [written], overwrite=overwrite)
    grid = EmbeddingGrid.open(source)
    with lock(out) as held:
        atomic.sweep(out.parent, out.name)

        def before() -> None:
            held.check()
            check_output(written, overwrite=overwrite)

        before()
        count = write_features(out, _parts(grid), grid.dim, facts_of(grid.spec), before, replace=overwrite)
    return ExchangeReport(out, count, grid.dim, grid.shape.area)


def _parts(grid: EmbeddingGrid) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(vectors, corners) of the ok cells of each shard."""
    step = grid.spec.lattice.stride * grid.spec.factor
    for window in shards(grid.shape):
        cells = grid.read(window)
        places = np.argwhere(cells.valid == Validity.OK)
        corners = np.rint((places[:, ::-1] + (window.col, window.row)) * step).astype(np.int64)
        yield cells.embedding[tuple(places.T)].astype(np.float32), corners


def facts_of(spec: GridSpec) -> dict[str, Any]:
    """TRIDENT's attributes of coords, and further ones from which an import restores the grid."""
    lattice, factor = spec.lattice, spec.factor
    facts: dict[str, Any] = {
        "patch_size": lattice.tile,
        "patch_size_level0": round(lattice.tile * factor),
        "overlap": lattice.tile - lattice.stride,
        "level0_width": spec.source.size_px.cols,
        "level0_height": spec.source.size_px.rows,
        "name": spec.source.name.rpartition(".")[0] or spec.source.name,
        "encoder": spec.encoder.id,
        "factor": factor,
        "software": marks.SOFTWARE,
    }
    if lattice.partial:
        facts["partial_cells"] = True
    if spec.resolution and spec.resolution.unit == "um":
        own = spec.resolution.value / factor
        facts |= {"mpp": spec.resolution.value, "target_magnification": _magnification(spec.resolution.value)}
        facts |= {"level0_magnification": _magnification(own)}
    elif spec.resolution:
        facts |= {"gsd_m": spec.resolution.value}
    return facts


def _magnification(mpp: float) -> float:
    """The objective by custom: 0.25 um/px is 40."""
    exact = MAGNIFICATION_MPP / mpp
    return round(exact) if abs(exact / round(exact or 1) - 1) < 0.05 else round(exact, 2)
