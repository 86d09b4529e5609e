"""Make a grid of a file of features at level-0 corners (TRIDENT, CLAM).

The patches become cells. TRIDENT's lattice starts at (0, 0), as ours does. CLAM starts one at every contour:
such patches go to the nearest cell, and the report says how far the farthest moved and how many met in one cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.encoders.registry import ENCODERS
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Lattice, Resolution, Size
from ssl_tilegen.grids import (
    EncoderFacts,
    GridData,
    GridSpec,
    SourceFacts,
    Validity,
    unfinished_grid,
    write_grid,
)
from ssl_tilegen.io.feature_files import StoredFeatures, read_features
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.base import Raster
from ssl_tilegen.system import atomic, marks
from ssl_tilegen.system.budget import check_memory, check_pixels
from ssl_tilegen.system.locks import lock
from ssl_tilegen.system.names import recordable
from ssl_tilegen.system.outputs import Input, Output, check_output, check_paths, require_name
from ssl_tilegen.workflows.embed.view import source_facts
from ssl_tilegen.workflows.grid.exchange_report import ExchangeReport
from ssl_tilegen.workflows.grid.patches import MAGNIFICATION_MPP, Patches

_CELL_BYTES = 3  # validity and tissue of a cell in memory


def import_features(
    source: Path,
    out: Path | None = None,
    *,
    image: Path | None = None,
    mpp: float | None = None,
    gsd: float | None = None,
    tile: int | None = None,
    encoder: str | None = None,
    overwrite: bool = False,
) -> ExchangeReport:
    """Make a grid of a file of features. Cells without a patch are background.

    Args:
        source: ``.h5`` of TRIDENT or CLAM, or ``.npz``.
        out: The grid; by default beside ``source``.
        image: The slide that the features were taken from.
        mpp: Micrometres per pixel of the patches, as the encoder saw them; by default the file's or the slide's.
        gsd: The same in metres.
        tile: A patch's side in those pixels, where the file does not say it.
        encoder: Name of the encoder, for the record.
        overwrite: Replace a finished grid.

    Returns:
        How many features were placed, how far they moved, and how many were left out.

    Raises:
        InputError: The file does not say how its patches lie, or they do not fit the image.
        OutputError: The grid exists or cannot be written.
    """
    out = require_name(out or require_name(source).with_suffix(".zarr"))
    read = [Input(source, "the file of features"), *([Input(image, "--image")] if image else [])]
    written = [Output(out, marks.grid), Output(unfinished_grid(out), marks.grid, role="work")]
    check_paths(read, written, overwrite=overwrite)
    features = read_features(source)
    with ExitStack() as stack:
        raster = stack.enter_context(open_raster(image)) if image else None
        patches = Patches.of(source, features, tile)
        _check_corners(source, features, raster)
        spec = _spec(
            source, features, patches, raster, _measure(source, features.facts, patches, raster, mpp, gsd), encoder
        )
    check_pixels(spec.lattice.size.rows, spec.lattice.size.cols, f"{source}: the image that its corners span")
    check_memory(spec.shape.area * (_CELL_BYTES + 2 * spec.dim), f"{source}: a grid of {spec.shape} cells")
    data, moved, dropped = _cells(features, patches, spec)
    with lock(out) as held:
        check_paths(read, written, overwrite=overwrite)  # another import may have come to its end since
        atomic.sweep(out.parent, out.name)

        def before() -> None:
            held.check()
            check_output(written[0], overwrite=overwrite)

        write_grid(out, spec, data, overwrite=overwrite, before=before)
    return ExchangeReport(out, len(features.vectors), spec.dim, spec.shape.area, moved, dropped)


def _check_corners(path: Path, features: StoredFeatures, raster: Raster | None) -> None:
    """InputError where a corner lies outside the image, as far as its size is known."""
    facts = features.facts
    known = (raster.size.cols, raster.size.rows) if raster else tuple(
        int(facts.get(f"level0_{axis}") or 0) for axis in ("width", "height")
    )  # fmt: skip
    low, high = features.corners.min(0), features.corners.max(0)
    outside = [axis for axis in (0, 1) if low[axis] < 0 or (known[axis] and high[axis] >= known[axis])]
    if outside:
        axis = outside[0]
        worst = low[axis] if low[axis] < 0 else high[axis]
        end = f"0 to {known[axis] - 1}" if known[axis] else "0 on"
        raise InputError(
            f"{path}: has a corner at {'xy'[axis]} = {worst}, outside its image ({end}); are its coords level-0 pixels?"
        )


def _resolution(path: Path, value: Any, unit: str) -> Resolution:
    try:
        return Resolution(float(np.ravel(value)[0]), unit)
    except (TypeError, ValueError, IndexError):
        raise InputError(f"{path}: {str(value)[:40]} {unit}/px is no resolution; give --mpp or --gsd") from None


def _measure(
    path: Path, facts: Mapping[str, Any], patches: Patches, raster: Raster | None, mpp: float | None, gsd: float | None
) -> Resolution:
    """Resolution of the patches: stated by the user, else by the file, else the image's."""
    for value, unit in ((mpp, "um"), (gsd, "m"), (facts.get("mpp"), "um"), (facts.get("gsd_m"), "m")):
        if value is not None:
            return _resolution(path, value, unit)
    if raster is not None and raster.resolution is not None:
        return Resolution(raster.resolution.value * patches.factor, raster.resolution.unit)
    power = facts.get("target_magnification")
    known = float(power) if isinstance(power, (int, float)) and power > 0 else None
    hint = f" ({MAGNIFICATION_MPP / known:g} by custom, at {power}x)" if known else ""
    raise InputError(
        f"{path}: does not state the size of its pixels; give --mpp{hint}, --gsd, or the slide with --image"
    )


def _spec(
    path: Path,
    features: StoredFeatures,
    patches: Patches,
    raster: Raster | None,
    resolution: Resolution,
    encoder: str | None,
) -> GridSpec:
    """All that is known of the features."""
    facts, id = features.facts, encoder or str(features.facts.get("encoder") or "unknown")
    far = features.corners.max(0)
    width, height = (int(facts.get(f"level0_{axis}") or 0) for axis in ("width", "height"))
    patch = patches.tile * patches.factor
    sides = (side if side > f else int(f + patch) for side, f in ((height, far[1]), (width, far[0])))
    whole = raster.size if raster else Size(*sides)
    name, origin = recordable(str(facts.get("name") or path.name)), recordable(f"from {path.name}")
    kind = "slide" if resolution.unit == "um" else "georaster"
    card = ENCODERS.get(id)
    statistics = card.normalisation if card else ((), ())
    return GridSpec(
        source=source_facts(raster) if raster else SourceFacts(name, kind, whole, "", remarks=(origin,)),
        lattice=_lattice(patches, whole, far, partial=bool(facts.get("partial_cells", False))),
        dim=features.vectors.shape[1],
        encoder=EncoderFacts(id, "", tuple(statistics[0]), tuple(statistics[1]), card.pooling if card else "unknown"),
        resolution=resolution,
        factor=patches.factor,
        crs=raster.crs if raster else None,
        transform=_scaled(raster.transform, patches.factor) if raster else None,
    )


def _lattice(patches: Patches, whole: Size, far: np.ndarray, *, partial: bool) -> Lattice:
    """The cells that the patches lie in, the last at level-0 corner ``far`` (x, y); ``partial`` where it says so, or
    where a patch reaches beyond the image of size ``whole``."""
    size = Size(*(max(1, int(side / patches.factor + 1e-6)) for side in (whole.rows, whole.cols)))
    col, row = (round(float(f) / patches.step) for f in far)
    for lattice in (Lattice(size, patches.tile, patches.stride, partial),
                    Lattice(size, patches.tile, patches.stride, partial=True)):  # fmt: skip
        if lattice.shape.rows > row and lattice.shape.cols > col:
            return lattice
    ends = (last * patches.stride + patches.tile for last in (row, col))
    size = Size(*(max(side, end) for side, end in zip((size.rows, size.cols), ends, strict=True)))
    return Lattice(size, patches.tile, patches.stride)


def _scaled(transform: tuple[float, ...] | None, factor: float) -> tuple[float, ...] | None:
    if transform is None:
        return None
    a, b, c, d, e, f = transform
    return a * factor, b * factor, c, d * factor, e * factor, f


def _cells(features: StoredFeatures, patches: Patches, spec: GridSpec) -> tuple[GridData, float, int]:
    """The grid's cells, the farthest move of a corner, and how many patches met in a cell with a nearer one."""
    xy = np.rint(features.corners / patches.step).astype(np.int64)
    moves = np.abs(features.corners - xy * patches.step).max(axis=1)
    vectors = features.vectors.astype(np.float16)
    if not np.isfinite(vectors).all():
        raise InputError("the features have values beyond float16, or none; scale them first")
    data = GridData.empty(spec.shape, spec.dim)
    data.valid[:] = Validity.BACKGROUND
    order = np.argsort(-moves, kind="stable")  # the nearest comes last and stays
    rows, cols = xy[order, 1], xy[order, 0]
    data.embedding[rows, cols] = vectors[order]
    data.valid[rows, cols], data.tissue[rows, cols] = Validity.OK, 1
    return data, float(moves.max()), len(moves) - int((data.valid == Validity.OK).sum())
