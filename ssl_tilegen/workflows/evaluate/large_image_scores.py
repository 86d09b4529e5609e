"""Scores of large images: seams, content across windows, and agreement of cells with their condition."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.bundle_encoder import encoder_of
from ssl_tilegen.errors import FormatError, InputError
from ssl_tilegen.geometry import Lattice, Resolution, Size, Window, cover
from ssl_tilegen.grids import EmbeddingGrid, Validity
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.metrics.resampling import half_samples, interval
from ssl_tilegen.metrics.retrieval import ranks
from ssl_tilegen.metrics.seams import seam_score
from ssl_tilegen.system.progress import Progress
from ssl_tilegen.workflows.evaluate.feature_cache import FeatureCache
from ssl_tilegen.workflows.evaluate.features import Features, features_of
from ssl_tilegen.workflows.evaluate.image_sets import Image, ImageSet
from ssl_tilegen.workflows.evaluate.scores import Score, scores_of
from ssl_tilegen.workflows.evaluate.windows import factor_of, is_large, places
from ssl_tilegen.workflows.generate.provenance import fingerprint

_STRIP_CELLS, _COARSER, _LEAST_WINDOWS, _MOST_SEAMS = 16, 4, 14, 20
_BLOCK, _ROUNDS = 8, 100
_LATTICES = (64, 256)


@dataclass(frozen=True)
class Condition:
    """How well the cells of an image painted from a grid carry the vectors they were painted from.

    ``spans``: the 95 % intervals of ``cosine``, ``top1`` and ``top5``; ``map`` (R, K): the cosine of each cell.
    """

    grid: str
    encoder: str
    dim: int
    cells: int
    cosine: float
    top1: float
    top5: float
    chance: float
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    map: np.ndarray | None = None


def condition_of(
    grid: EmbeddingGrid, made: np.ndarray, wanted: np.ndarray, use: np.ndarray, seed: int = 0
) -> Condition:  # fmt: skip
    """Compare cells (R, K, D) where ``use`` (R, K); intervals by half-samples of blocks of 8 x 8 cells."""
    cosine, nearer = ranks(made[use], wanted[use])
    rows, cols = np.nonzero(use)
    blocks = (rows // _BLOCK) * (use.shape[1] // _BLOCK + 1) + cols // _BLOCK
    values = {"cosine": cosine, "top1": nearer < 1, "top5": nearer < 5}
    halves = [index for (index,) in half_samples([blocks], _ROUNDS, seed)] if len(cosine) > 1 else []
    means = {name: float(own.mean()) for name, own in values.items()}
    spans = {
        name: interval(means[name], [float(own[index].mean()) for index in halves], -1 if name == "cosine" else 0, 1)
        for name, own in values.items()
    }
    cosines = np.full(use.shape, np.nan)
    cosines[use] = cosine
    ends = {name: (found.low, found.high) for name, found in spans.items()}
    return Condition(grid.path.name, grid.spec.encoder.id, grid.dim, len(cosine), **means, chance=1 / len(cosine),
                     spans=ends, map=cosines)  # fmt: skip


def condition(
    grid: EmbeddingGrid, image: Path, bundle: ModelBundle, progress: Progress, seed: int = 0
) -> Condition:  # fmt: skip
    """Embed ``image`` again, cell by cell, and compare with the grid's vector at each cell's centre.

    The .json that `generate` writes beside an image says where a crop or a stretched image lies. FormatError
    where the bundle's encoder is another one, or the image was painted from another grid.
    """
    encoder, facts = encoder_of(bundle), _record(image)
    if grid.spec.encoder.weights_sha256 != encoder.weights_sha256:
        raise FormatError(
            f"--grid {grid.path}: made by {grid.spec.encoder.id}, the encoder of --model is {encoder.id}; "
            "give the bundle that made the grid"
        )
    _check_painted_from(grid, image, facts)
    with open_raster(image) as raster:
        view, spec = RasterView(raster, 1.0), grid.spec
        lattice = Lattice(view.size, spec.lattice.tile, spec.lattice.stride)
        if min(view.size.rows, view.size.cols) < lattice.tile:
            raise InputError(f"{image}: {view.size} px, smaller than a cell of {lattice.tile} px of {grid.path}")
        wanted, use = _wanted(grid, lattice, *_placement(image, facts, spec.lattice.size, view.size))
        made = np.zeros((*use.shape, grid.dim), np.float32)
        for strip in cover(lattice.shape, Size(_STRIP_CELLS, lattice.shape.cols)):
            made[strip.slices] = _embedded(view, lattice, strip, encoder)
            progress("condition", strip.row_end, lattice.shape.rows)
    if not use.any():
        raise InputError(f"--grid {grid.path}: none of its cells of foreground lies inside {image}")
    return condition_of(grid, made, wanted, use, seed)


def _wanted(
    grid: EmbeddingGrid, lattice: Lattice, corner: tuple[int, int], stretch: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """The condition (R, K, D) at the centres of the image's cells, and which of them (R, K) show foreground."""
    cells, own = grid.read(), grid.spec.lattice
    field = ConditionField.of_grid(
        cells.embedding, tile_px=own.tile, stride_px=own.stride, factor=1, stretch=stretch, valid=cells.usable
    )
    at = [corner[axis] + np.arange(count) * lattice.stride + lattice.tile / 2
          for axis, count in enumerate((lattice.shape.rows, lattice.shape.cols))]  # fmt: skip
    near = [np.clip(np.round((positions / scale - own.tile / 2) / own.stride), 0, count - 1).astype(int)
            for positions, scale, count in zip(at, stretch, (own.shape.rows, own.shape.cols), strict=True)]  # fmt: skip
    return field.sample(*at).permute(1, 2, 0).numpy(), (cells.valid == Validity.OK)[np.ix_(*near)]


def _check_painted_from(grid: EmbeddingGrid, image: Path, facts: dict[str, Any]) -> None:
    """FormatError where the file beside an image says that it was painted from another grid. An older one has no hash
    of it, but the size of the canvas, which is that of the grid's view unless the layout was stretched."""
    view = grid.spec.lattice.size
    if "grid_sha256" in facts:
        same = facts["grid_sha256"] == fingerprint(grid, grid.read())
    else:
        canvas = facts.get("canvas_px", [view.cols, view.rows])
        same = facts.get("fit") == "stretch" or canvas == [view.cols, view.rows]
    if not same:
        raise FormatError(
            f"--grid {grid.path}: {image} was painted from another grid, {facts.get('grid', 'of another size')}, says "
            "the .json beside it; give that one"
        )


def _placement(
    image: Path, facts: dict[str, Any], view: Size, size: Size
) -> tuple[tuple[int, int], tuple[float, float]]:  # fmt: skip
    """(row, col) of the image's corner on the grid's view, and the stretch, as the file beside the image says.

    An image that was repainted by --keep is there as a whole: its region is a part of it.
    """
    if "region_px" in facts and "canvas_px" in facts:
        x, y = (0, 0) if "kept" in facts else facts["region_px"][:2]
        cols, rows = facts["canvas_px"]
        return (y, x), ((rows / view.rows, cols / view.cols) if facts.get("fit") == "stretch" else (1.0, 1.0))
    if abs(size.rows - view.rows) > 8 or abs(size.cols - view.cols) > 8:
        raise InputError(
            f"{image}: {size} px and no .json beside it that says where it lies on the grid, which shows {view} px"
        )
    return (0, 0), (1.0, 1.0)


def _record(image: Path) -> dict[str, Any]:
    """The JSON that `generate` wrote beside an image; empty where there is none."""
    for path in (image.with_name(image.name + ".json"), image.with_name(image.name.split(".")[0] + ".json")):
        try:
            facts = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(facts, dict):
            return facts.get("provenance", facts)
    return {}


def _embedded(view: RasterView, lattice: Lattice, cells: Window, encoder: Encoder) -> np.ndarray:
    """Vectors (R, K, D) of a window of cells."""
    reach = lattice.tile - lattice.stride
    at = Window(cells.row * lattice.stride, cells.col * lattice.stride,
                cells.rows * lattice.stride + reach, cells.cols * lattice.stride + reach)  # fmt: skip
    rgb = view.read(at).rgb
    tiles = np.stack([rgb[lattice.window(*cell).slices] for cell in np.ndindex(cells.rows, cells.cols)])
    parts = [encoder.embed(tiles[i : i + encoder.batch]) for i in range(0, len(tiles), encoder.batch)]
    return np.concatenate(parts).reshape(cells.rows, cells.cols, -1)


def seams(image: Image, lattice_px: int, resolution: Resolution | None, strip_px: int = 1024) -> float:
    """Seam score of a whole image, strip by strip (each holds whole cells and the line below them)."""
    with open_raster(image.path) as raster:
        view = RasterView(raster, factor_of(image, resolution))
        height = strip_px // lattice_px * lattice_px
        scores, weights = [], []
        for row in range(0, view.size.rows - lattice_px, height):
            rows = min(height + 1, view.size.rows - row)
            scores.append(seam_score(view.read(Window(row, 0, rows, view.size.cols)).rgb, lattice_px))
            weights.append(rows)
    known = np.isfinite(scores)
    return float(np.average(np.array(scores)[known], weights=np.array(weights)[known])) if known.any() else float("inf")


def scores_of_large_images(
    images: dict[str, ImageSet],
    encoders: dict[str, Encoder],
    real: Features,
    side: int,
    resolution: Resolution | None,
    settings: EvaluateSettings,
    progress: Progress,
    cache: FeatureCache | None = None,
) -> list[Score]:
    """Seams, and Frechet distances of windows on the lattice (patches), across its lines (crops), and of four times
    the view (wide): assembling a large image from parts costs quality where the later ones are larger."""
    large = [image for image in images["synthetic"].images if is_large(image, side, resolution)]
    if not large:
        return []
    name, dim = next(iter(encoders)), real.x.shape[1]
    made = replace(images["synthetic"], images=tuple(large))
    found = []
    for key, title, shift, coarser in _VIEWS:
        how = (encoders, side, resolution, settings, progress, cache)
        own = real if coarser == 1 else _seen(images["real"], *how, 0, coarser)
        other = _seen(made, *how, shift and side // 2, coarser)
        if own is not None and other is not None:
            found += [replace(score, name=key, title=title) for score in
                      scores_of(name, own, other, ("fd",), neighbours=settings.neighbours, rounds=settings.rounds,
                              seed=settings.seed)]  # fmt: skip
    return found + _seam_scores(images["real"], large, side, resolution, name, dim)


_VIEWS = (
    ("patch_fd", "Large images: patches on the lattice", 0, 1),
    ("crop_fd", "Large images: crops across its lines", 1, 1),
    ("wide_fd", "Large images: four times the view", 0, _COARSER),
)


def _seen(
    part: ImageSet,
    encoders: dict[str, Encoder],
    side: int,
    resolution: Resolution | None,
    settings: EvaluateSettings,
    progress: Progress,
    cache: FeatureCache | None,
    shift: int,
    coarser: int,
) -> Features | None:
    """Vectors of windows at another place or scale; None where there are too few to say anything."""
    found, groups = places(part, side, resolution, shift=shift, coarser=coarser, limit=settings.limit)
    if len(found) < _LEAST_WINDOWS:
        return None
    stage = f"describe {'wide' if coarser > 1 else 'crops'}"
    return next(iter(features_of(encoders, found, groups, settings.reading_threads, stage, progress, cache,
                                 settings.resolution).values()))  # fmt: skip


def _seam_scores(
    real: ImageSet, large: list[Image], side: int, resolution: Resolution | None, name: str, dim: int
) -> list[Score]:
    """Seam scores at the spacings of windows that generators use; the baseline is that of real large images."""
    found = []
    for lattice in _LATTICES:
        made = np.array([seams(image, lattice, resolution) for image in large])
        own = [seams(image, lattice, resolution) for image in real.images[:_MOST_SEAMS]
               if min(image.size.rows, image.size.cols) > 2 * lattice]  # fmt: skip
        spread = 1.96 * float(made.std(ddof=1)) / len(made) ** 0.5 if len(made) > 1 else float("nan")
        value = float(made.mean())
        found.append(
            Score(f"seams_{lattice}", f"Large images: seams at every {lattice} px", "pixels", 3, len(own), len(made),
                   value, value - spread, value + spread, better="near 1", paper="change across lines / elsewhere",
                   baseline=float(np.mean(own)) if own else None)
        )  # fmt: skip
    return found
