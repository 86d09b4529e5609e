"""Grids out to the tools of the neighbourhood and in from them: features at level-0 corners (TRIDENT, CLAM).

Their patches become cells. TRIDENT's lattice starts at (0, 0), as ours does. CLAM starts one at every contour:
such patches go to the nearest cell, and the report says how far the farthest moved and how many met in one cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.encoders.registry import ENCODERS
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Lattice, Resolution, Size
from ssl_tilegen.grids import (
    EmbeddingGrid,
    EncoderFacts,
    GridData,
    GridSpec,
    SourceFacts,
    Validity,
    shards,
    unfinished_grid,
    write_grid,
)
from ssl_tilegen.io.feature_files import StoredFeatures, read_features, write_features
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.base import Raster
from ssl_tilegen.system import atomic, marks
from ssl_tilegen.system.boundary import printable
from ssl_tilegen.system.budget import check_memory, check_pixels
from ssl_tilegen.system.locks import lock
from ssl_tilegen.system.outputs import Input, Output, check_output, check_paths, require_name
from ssl_tilegen.workflows.embed.view import source_facts

_NOMINAL = 10.0  # magnification times um/px
_CELL_BYTES = 3  # validity and tissue of a cell in memory


@dataclass(frozen=True)
class ExchangeReport:
    """Summary of an exchange: ``moved_px`` is the farthest a corner went, level-0; ``dropped`` shared a cell."""

    path: Path
    features: int
    dim: int
    cells: int
    moved_px: float = 0.0
    dropped: int = 0

    def line(self) -> str:
        """The report as one line of text."""
        text = printable(f"{self.path}: {self.features} features of {self.dim} values, {self.cells} cells")
        if self.moved_px > 1:
            text += f"; corners off the lattice moved by up to {self.moved_px:.0f} px"
        return text + (f"; {self.dropped} left out, they shared a cell with a nearer one" if self.dropped else "")


def export_grid(source: Path, out: Path | None = None, *, overwrite: bool = False) -> ExchangeReport:
    """Write the cells of a grid that are ok, as .h5 (default: beside it) or .npz."""
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
    exact = _NOMINAL / mpp
    return round(exact) if abs(exact / round(exact or 1) - 1) < 0.05 else round(exact, 2)


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
    """Make a grid of a file of features.

    ``mpp`` or ``gsd`` is the size of a pixel of the patches, as the encoder saw them; else the file says it, or
    ``image`` (the slide they were taken from) does. ``tile``: a patch's side in those pixels, where the file does not
    say it. Cells without a patch are background.
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


@dataclass(frozen=True)
class Patches:
    """How patches lie: side and step in the pixels that the encoder saw, and level-0 pixels per such pixel."""

    tile: int
    stride: int
    factor: float

    @property
    def step(self) -> float:
        """Level-0 pixels from one patch to the next."""
        return self.stride * self.factor

    def __post_init__(self) -> None:
        if self.tile <= 0 or self.stride <= 0 or not 0 < self.factor < math.inf:
            raise InputError(
                f"patches of {self.tile} px every {self.stride} px, {self.factor:g} level-0 pixels each: must all be "
                "positive; mend the file's attributes or give --tile"
            )

    @classmethod
    def of(cls, path: Path, features: StoredFeatures, tile: int | None) -> Patches:
        """From the attributes of TRIDENT (or of our own export), of CLAM, else from ``tile`` and the corners."""
        facts = features.facts
        try:
            tile = tile or int(facts["patch_size"])
            if "factor" in facts or "patch_size_level0" in facts:
                factor = float(facts["factor"]) if "factor" in facts else float(facts["patch_size_level0"]) / tile
                return cls(tile, tile - int(facts.get("overlap", 0)), factor)
            if "downsample" in facts:
                factor = float(np.ravel(facts["downsample"])[0])
                return cls(tile, max(1, round(_step(features.corners) / factor)), factor)
        except (KeyError, TypeError, ValueError, ArithmeticError):
            if not tile:
                raise InputError(
                    f"{path}: does not say how large its patches are; give --tile (a patch's side in the pixels that "
                    "the encoder saw)"
                ) from None
        return cls(tile, tile, _step(features.corners) / tile)


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


def _step(corners: np.ndarray) -> float:
    """The distance of neighbouring patches: the commonest one along a row of patches, level-0 pixels."""
    order = corners[np.lexsort((corners[:, 0], corners[:, 1]))]
    along = np.diff(order[:, 0])[np.diff(order[:, 1]) == 0]
    along = along[along > 0]
    if not len(along):
        across = np.diff(np.unique(corners[:, 1]))
        along = across[across > 0]
    steps, counts = np.unique(along, return_counts=True)
    return float(steps[counts.argmax()]) if len(steps) else 1.0


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
    hint = f" ({_NOMINAL / known:g} by custom, at {power}x)" if known else ""
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
    name = str(facts.get("name") or path.name)
    kind = "slide" if resolution.unit == "um" else "georaster"
    card = ENCODERS.get(id)
    statistics = card.normalisation if card else ((), ())
    return GridSpec(
        source=source_facts(raster) if raster else SourceFacts(name, kind, whole, "", remarks=(f"from {path.name}",)),
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
