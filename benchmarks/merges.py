"""How windows become one image: cost and quality of each merge, on one bundle and grid in one run.

Run with `python -m benchmarks.merges --grid EMB.zarr --image SOURCE`; `--bundle` names another model.

``whole`` is one convolution (local models only), ``shift`` moves a lattice of windows that do not overlap, ``average``
overlaps them by half with soft weights, ``published`` is the merge of Graikos et al. 2024: uniform averages at a stride
of window / 4. All have the same steps, guidance and interval, noise, condition and decoder, so only the merge differs.
``single`` are patches of the crops' size and place, painted each by itself from the same field; ``autoencoder`` is the
source through the autoencoder alone: the floor.

One JSON line per merge and size. ``distance``: Frechet distance of `--crop` px crops to the same crops of the source,
in `evaluate`'s ``texture`` features and by its code; ``low`` and ``high``: its 95 % interval from half-samples of
blocks of the image. ``of_single``: its ratio to the single patches' distance (the assembly's cost), with an interval
of its own: the halves are the same for both, so it is much narrower. Seam scores at the lattice of cells and at the
published stride (the source's own beside them), cosine and first hits of the cells embedded again; network calls in
windows, seconds, seconds of all threads. Sizes beyond `--dear-to` leave out ``average`` and ``published``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.paintings import (
    LatentScene,
    autoencoded,
    crops,
    distances,
    features,
    painted,
    places,
    say,
    singles,
)
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.metrics.resampling import interval
from ssl_tilegen.metrics.seams import seam_score
from ssl_tilegen.workflows.generate.job import PaintJob

_DEAR = ("average", "published")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True, help="what the grid was made from")
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--dear-to", type=int, default=1024)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--only", nargs="+", help="some of: whole shift average published")
    parser.add_argument("--images", type=Path, help="a folder to keep them in")
    options = parser.parse_args()
    for size in options.sizes:
        compare(LatentScene.of(options.grid, options.image, options.bundle, size, options.steps), size, options)


def compare(scene: LatentScene, size: int, options: argparse.Namespace) -> None:
    """The table of one size."""
    corners = places(scene.real.shape[:2], options.crop, options.crop // 2)
    made: dict[str, tuple[np.ndarray, dict[str, Any]]] = {"source": (scene.real, {})}
    made["autoencoder"] = autoencoded(scene), {}
    for name, how in merges(scene.job).items():
        if (options.only is None or name in options.only) and (size <= options.dear_to or name not in _DEAR):
            made[name] = painted(scene.job, how)
    real = features(crops(scene.real, options.crop, corners))
    alone = np.stack(list(singles(scene.job, scene.job.how, options.crop, corners)))
    names = [name for name in made if name != "source"]
    sets = [features(crops(made[name][0], options.crop, corners)) for name in names]
    found = distances([features(alone), *sets], real, corners)
    say(size=size, merge="single", crops=len(corners), **_condition(found[:, 0]))
    for name, (rgb, facts) in made.items():
        if name != "source":
            own = found[:, 1 + names.index(name)]
            facts = {**facts, **_condition(own), **_condition(own / found[:, 0], "of_single", "of_single_")}
        cells = scene.cells(rgb)
        seams = dict(zip(("seam_cell", "seam_stride"), seam_scores(rgb, scene.job), strict=True))
        say(size=size, merge=name, **facts, **seams, cosine=cells.cosine, top1=cells.top1)
        if options.images:
            options.images.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rgb).save(options.images / f"{size}-{name}.png")


def merges(job: PaintJob) -> dict[str, SynthesisSettings]:
    """The recipes by name: they differ in nothing but the merge."""
    recipes = {
        "whole": replace(job.how, merge="whole"),
        "shift": replace(job.how, merge="shift"),
        "average": replace(job.how, merge="average", overlap=0.5),
        "published": replace(job.how, merge="average", overlap=0.75, feather=False),
    }
    return {name: how for name, how in recipes.items() if name != "whole" or job.bundle.conditioning.is_field}


def _condition(values: np.ndarray, name: str = "distance", prefix: str = "") -> dict[str, float]:
    """A figure of all crops, the first of (1 + rounds,), with its interval from the others."""
    found = interval(float(values[0]), values[1:].tolist(), 0)
    return {name: found.value, f"{prefix}low": found.low, f"{prefix}high": found.high}


def seam_scores(rgb: np.ndarray, job: PaintJob) -> tuple[float, float]:
    """At the lattice of cells, and at the published stride."""
    tile = job.bundle.info.encoder.tile_px or job.bundle.info.window_px
    return seam_score(rgb, tile), seam_score(rgb, max(job.bundle.factor, job.bundle.info.window_px // 4))


if __name__ == "__main__":
    main()
