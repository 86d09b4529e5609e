"""How windows become one picture: cost and quality of each merge, on one bundle and grid in one run.

Run with `python -m tests.benchmarks.merges --grid EMB.zarr --image SOURCE`; `--bundle` names another model.

``whole`` is one convolution (local models only), ``shift`` moves a lattice of windows that do not overlap, ``average``
overlaps them by half with soft weights, ``published`` is the algorithm of Graikos et al. 2024: uniform averages at a
stride of window / 4, guidance at every step. All have the same steps, noise, condition and decoder. ``single`` are
windows painted each by itself from the same places of the field: what a merge cannot easily beat.

One JSON line per merge: network calls (windows, or the area of a convolution in windows; guided steps count twice),
seconds, the seam score at the cells and at the published stride, the Frechet distance of window-sized crops to those of
the source (features: colour, contrast and gradients at four scales) and its ratio to that of single windows, and the
mean cosine of a cell's embedding to the one it was painted from.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import sqrtm

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.grids import EmbeddingGrid, Validity
from ssl_tilegen.metrics.seams import seam_score
from ssl_tilegen.synthesis import SynthesisSettings, develop, paint, plan
from ssl_tilegen.workflows.generate_job import Job, prepare
from ssl_tilegen.workflows.kept import keep

_SINGLES = 96
_SCALES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, required=True)
    parser.add_argument("--image", required=True, help="what the grid was made from")
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--only", nargs="+", help="some of: whole shift average published")
    options = parser.parse_args()
    job = prepare(GenerateSettings(grid=options.grid, model=options.bundle, size=Size(options.size, options.size),
                                   fit="crop", steps=options.steps, out=Path("merges.png")))  # fmt: skip
    view = keep(options.image, job.placement.window, EmbeddingGrid.open(options.grid).spec).view
    real = view.read(job.placement.window).rgb
    real_features = features(list(crops(real, job.bundle.info.window_px)))
    single = frechet(features(singles(job)), real_features)
    say(merge="single", crop_fd=single)
    cell, stride = seams(real, job)
    say(merge="source", seam_cell=cell, seam_stride=stride, cosine=cosine(job, real, options))
    for name, how in merges(job).items():
        if options.only is None or name in options.only:
            rgb, facts = made(job, how)
            distance = frechet(features(list(crops(rgb, job.bundle.info.window_px))), real_features)
            cell, stride = seams(rgb, job)
            say(merge=name, **facts, seam_cell=cell, seam_stride=stride, crop_fd=distance, of_single=distance / single,
                cosine=cosine(job, rgb, options))  # fmt: skip


def say(**facts: Any) -> None:
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in facts.items()}), flush=True)


def merges(job: Job) -> dict[str, SynthesisSettings]:
    """The recipes by name."""
    recipes = {
        "whole": replace(job.how, merge="whole"),
        "shift": replace(job.how, merge="shift"),
        "average": replace(job.how, merge="average", overlap=0.5),
        "published": replace(job.how, merge="average", overlap=0.75, feather=False, guidance_interval=(0.0, 1.0)),
    }
    return {name: how for name, how in recipes.items() if name != "whole" or job.bundle.locality == "local"}


def made(job: Job, how: SynthesisSettings) -> tuple[np.ndarray, dict[str, Any]]:
    """The picture uint8 (H, W, 3) and what it took."""
    started = time.perf_counter()
    calls = plan(job.bundle, job.field, job.region_lat, how, job.glass).network_latents / job.bundle.window_lat**2
    canvas = paint(job.bundle, job.field, job.region_lat, how, glass=job.glass)
    painted = time.perf_counter()
    rgb = np.concatenate(list(develop(job.bundle, canvas)))[: job.image.size.rows, : job.image.size.cols]
    seconds = time.perf_counter() - started
    return rgb, {"calls": round(calls), "paint_s": painted - started, "all_s": seconds}


def singles(job: Job) -> list[np.ndarray]:
    """Windows painted each by itself, at even places of the picture."""
    side, region = job.bundle.window_lat, job.region_lat
    across = max(2, round(_SINGLES**0.5))
    places = [np.linspace(0, length - side, across).round() for length in (region.rows, region.cols)]
    how = replace(job.how, merge="average", bleed_lat=0)
    step = job.bundle.field_stride_lat
    found = []
    for row in places[0]:
        for col in places[1]:
            window = Window(region.row + int(row) // step * step, region.col + int(col) // step * step, side, side)
            canvas = paint(job.bundle, job.field, window, replace(how, seed=len(found)), glass=job.glass)
            found.append(np.concatenate(list(develop(job.bundle, canvas))))
    return found


def crops(rgb: np.ndarray, side: int) -> Iterator[np.ndarray]:
    """Crops at half overlap."""
    for row in range(0, rgb.shape[0] - side + 1, side // 2):
        for col in range(0, rgb.shape[1] - side + 1, side // 2):
            yield rgb[row : row + side, col : col + side]


def features(images: list[np.ndarray]) -> np.ndarray:
    """(n, 36): mean and deviation of the colours and the strength of their gradients, at four scales."""
    return np.stack([np.concatenate(list(_statistics(image.astype(np.float32) / 255))) for image in images])


def _statistics(image: np.ndarray) -> Iterator[np.ndarray]:
    for _ in range(_SCALES):
        yield image.mean((0, 1))
        yield image.std((0, 1))
        yield np.abs(np.diff(image, axis=0)).mean((0, 1)) + np.abs(np.diff(image, axis=1)).mean((0, 1))
        rows, cols = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        image = image[:rows, :cols].reshape(rows // 2, 2, cols // 2, 2, 3).mean((1, 3))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Between Gaussians fitted to (n, d) and (m, d), in units of the second's deviations."""
    scale = b.std(0) + 1e-6
    a, b = a / scale, b / scale
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    mixed = np.trace(sqrtm(first @ second + 1e-8 * np.eye(len(first)))).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * mixed)


def seams(rgb: np.ndarray, job: Job) -> tuple[float, float]:
    """At the lattice of cells, and at the published stride."""
    tile = job.bundle.info.encoder.tile_px or job.bundle.info.window_px
    return seam_score(rgb, tile), seam_score(rgb, max(job.bundle.factor, job.bundle.info.window_px // 4))


def cosine(job: Job, rgb: np.ndarray, options: argparse.Namespace) -> float:
    """Of cells that lie in the picture and show something, to the embeddings they were painted from."""
    grid, bundle = EmbeddingGrid.open(options.grid), ModelBundle.load(options.bundle)
    cells, lattice, place = grid.read(), grid.spec.lattice, job.placement.window
    tiles, wanted = [], []
    for row, col in lattice.cells():
        window = lattice.window(row, col)
        if place.contains(window) and cells.valid[row, col] == Validity.OK:
            tiles.append(rgb[window.within(place).slices])
            wanted.append(cells.embedding[row, col].astype(np.float32))
    found, wanted = BundleEncoder(bundle).embed(np.stack(tiles)), np.stack(wanted)
    return float(((found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)).mean())


if __name__ == "__main__":
    main()
