"""The cost of background: a slide's own grid and a canvas that is mostly empty, with background left out or painted.

Run with `python -m benchmarks.background --slide GRID.zarr --ground EMB.zarr --out FOLDER`.

``slide``: the grid as it is. ``islands``: a canvas of `--size` px of which two round islands show the cells of
`--ground` (any grid of the same model) and all else is background. Each is painted with its background marked, as
`embed` leaves it, and with the same cells taken for tissue. One JSON line each: network calls in windows, seconds of
painting, of all, and of all threads.

The borders: ``step`` is the mean difference of neighbouring pixels across the lines where background begins.
``beside`` is that of pixels one block to either side. ``painted_step`` and ``painted_beside`` are those of the image
in which all was painted, at the same places. A visible border would lift ``step`` above the others. `slide.png` and
`islands.png` show the images, `slide-border.png` and `islands-border.png` the pieces with the most border.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.paintings import painted, say
from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings, load_settings
from ssl_tilegen.geometry import Size
from ssl_tilegen.grids import EmbeddingGrid, Validity
from ssl_tilegen.workflows.generate.job import PaintJob, background_latent, prepare

_PIECE_PX = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slide", type=Path, required=True, help="a grid with background")
    parser.add_argument("--ground", type=Path, help="whose cells the islands show; default: the slide's tissue")
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--region", help="X,Y,W,H of the slide alone")
    parser.add_argument("--only", choices=("slide", "islands"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    given = {"grid": options.slide, "model": options.bundle, "steps": options.steps, "region": options.region}
    settings = load_settings(GenerateSettings, None, given | {"out": Path("benchmark.png")})
    slide = prepare(settings, ModelBundle.load(settings.model))
    if options.only != "islands":
        compare("slide", slide, options.out)
    if options.only != "slide":
        compare("islands", islands(slide, options.ground or options.slide, options.size), options.out)


def compare(name: str, job: PaintJob, folder: Path) -> None:
    """Both ways of painting, and the borders of the first."""
    everything = replace(job, field=replace(job.field, blank=np.zeros_like(job.field.blank)), background=None)
    made, facts = painted(job, job.how)
    share = round(float(job.field.blank.mean()), 3)
    say(case=name, background="skipped", size=[made.shape[1], made.shape[0]], background_cells=share, **facts)
    all_painted, dear = painted(everything, job.how)
    say(case=name, background="painted", **dear, calls_saved=round(1 - facts["calls"] / dear["calls"], 3),
        faster=round(dear["all_s"] / facts["all_s"], 2))  # fmt: skip
    say(case=name, borders=True, **borders(job, made, all_painted))
    Image.fromarray(made[:: max(1, len(made) // 1024), :: max(1, len(made) // 1024)]).save(folder / f"{name}.png")
    Image.fromarray(piece(job, made)).save(folder / f"{name}-border.png")


def islands(slide: PaintJob, ground: Path, size: int) -> PaintJob:
    """Two islands of the grid's tissue cells, repeated, in a sea of background of ``size`` px."""
    grid = EmbeddingGrid.open(ground)
    cells, stride = grid.read(), grid.spec.lattice.stride
    shown = cells.embedding[cells.valid == Validity.OK].astype(np.float32)
    count = size // stride
    rows, cols = np.mgrid[:count, :count] + 0.5
    radius, centres = count / 8, ((0.3, 0.3), (0.6, 0.7))
    tissue = np.any([np.hypot(rows - count * r, cols - count * c) < radius for r, c in centres], axis=0)
    order = (np.add.outer(np.arange(count) * 7, np.arange(count))) % len(shown)
    background = cells.embedding[cells.valid == Validity.BACKGROUND].astype(np.float32)
    empty = background.mean(0) if len(background) else shown.mean(0)
    field = type(slide.field).of_grid(
        np.where(tissue[..., None], shown[order], empty), tile_px=grid.spec.lattice.tile, stride_px=stride,
        factor=slide.bundle.factor, blank=~tissue,
    )  # fmt: skip
    whole = replace(slide.placement, canvas=Size(size, size), window=type(slide.placement.window)(0, 0, size, size))
    region = whole.window_lat(slide.bundle.factor)
    how = replace(slide.how, extent=whole.canvas_lat(slide.bundle.factor))
    background_of = (
        slide.background if slide.background is not None else background_latent(slide.bundle, grid.spec.background)
    )
    return replace(slide, placement=whole, region_lat=region, field=field, background=background_of, how=how)


def border_lines(job: PaintJob) -> tuple[np.ndarray, int]:
    """Which blocks (R, K) of the image are background, and their side in pixels."""
    side = job.bundle.conditioning.quantum_lat
    return job.field.blank_blocks(job.region_lat, side), side * job.bundle.factor


def borders(job: PaintJob, *images: np.ndarray) -> dict[str, Any]:
    """Differences of neighbouring pixels across the lines where background begins, and one block to either side."""
    blank, side = border_lines(job)
    facts: dict[str, Any] = {}
    for prefix, rgb in zip(("", "painted_"), images, strict=True):
        step, beside = [], []
        for grid, image in ((blank, rgb), (blank.T, rgb.swapaxes(0, 1))):
            change = np.abs(np.diff(image.astype(np.float32), axis=0)).mean(-1)
            for row, col in np.argwhere(grid[1:] != grid[:-1]):
                line, across = (row + 1) * side - 1, slice(col * side, (col + 1) * side)
                if side <= line < len(change) - side and change[line, across].size:
                    step.append(change[line, across].mean())
                    near = change[[line - side // 2, line + side // 2], across]
                    beside.append(near.mean())
        facts |= {f"{prefix}step": float(np.mean(step)), f"{prefix}beside": float(np.mean(beside))}
    return {"lines": len(step), **facts}


def piece(job: PaintJob, rgb: np.ndarray) -> np.ndarray:
    """The piece of the image with the most border in it, at full size."""
    blank, side = border_lines(job)
    edge: np.ndarray = np.zeros(blank.shape)
    edge[1:] += blank[1:] != blank[:-1]
    edge[:, 1:] += blank[:, 1:] != blank[:, :-1]
    count = _PIECE_PX // side
    best, at = -1.0, (0, 0)
    for row in range(0, max(1, len(edge) - count), count // 2):
        for col in range(0, max(1, edge.shape[1] - count), count // 2):
            found = edge[row : row + count, col : col + count].sum()
            best, at = max((best, at), (found, (row * side, col * side)))
    return rgb[at[0] : at[0] + _PIECE_PX, at[1] : at[1] + _PIECE_PX]


if __name__ == "__main__":
    main()
