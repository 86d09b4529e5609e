"""Which sampling recipe a bundle should have: steps, guidance, its interval of noise, update rule.

Run with `python -m benchmarks.recipes --pair EMB.zarr SOURCE --pair EMB.zarr SOURCE`, one pair per kind of image.

From the bundle's own recipe each option is varied alone; `--from steps=12 guidance=2` starts elsewhere, so that two or
three runs walk to the best one. One JSON line per recipe, the means over the images first: Frechet distance of 128 px
crops to the same crops of the source (`evaluate`'s ``texture`` features and code), cosine and first hits of the cells
embedded again, network calls in windows, seconds, seconds of all threads; then the images' own. ``of_start`` is the
distance's ratio to that of the recipe it starts from, with a 95 % interval from half-samples of the images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paintings import LatentScene, crops, distances, features, painted, places, say
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.metrics.resampling import interval

STEPS, GUIDANCE = (8, 12, 16, 24), (1.0, 1.5, 2.0, 3.0, 4.0)
FEW_STEPS, FEW_GUIDANCE, FEW_STEPPERS = (2, 3, 4, 6, 8), (1.0, 1.5, 2.0), ("renoise", "ddim")
"""Of painters of few steps."""
INTERVALS, STEPPERS = ((0.0, 1.0), (0.2, 0.8), (0.2, 1.0), (0.4, 0.8)), ("dpmpp_2m", "ddim", "ancestral")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", nargs=2, action="append", required=True, metavar=("GRID", "SOURCE"))
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--from", nargs="+", default=[], dest="start", metavar="OPTION=VALUE")
    parser.add_argument("--only", nargs="+", help="some of: steps guidance guidance_interval update")
    options = parser.parse_args()
    scenes = [LatentScene.of(Path(grid), Path(image), options.bundle, options.size) for grid, image in options.pair]
    start = replace(scenes[0].job.how, **dict(map(_knob, options.start)))
    corners = places((options.size, options.size), options.crop, options.crop // 2)
    real = [features(crops(scene.real, options.crop, corners)) for scene in scenes]
    first: np.ndarray | None = None
    for varied, how in recipes(start, options.only):
        found, facts = [], []
        for scene, own in zip(scenes, real, strict=True):
            rgb, cost = painted(scene.job, replace(how, extent=scene.job.how.extent, layout=scene.job.how.layout))
            found.append(distances([features(crops(rgb, options.crop, corners))], own, corners)[:, 0])
            cells = scene.cells(rgb)
            facts.append({"distance": float(found[-1][0]), "cosine": cells.cosine, "top1": cells.top1, **cost})
        each = np.stack(found)
        first = each if first is None else first
        ratio = np.exp(np.log(each / first).mean(0))
        span = interval(float(ratio[0]), ratio[1:].tolist(), 0)
        recipe = {"steps": how.steps, "guidance": how.guidance, "interval": how.guidance_interval, "update": how.update}
        means = {key: float(np.mean([fact[key] for fact in facts])) for key in facts[0]}
        say(varied=varied, **recipe, of_start=span.value, low=span.low, high=span.high, **means,
            distances=[round(fact["distance"], 3) for fact in facts])  # fmt: skip


def recipes(start: SynthesisSettings, only: list[str] | None) -> Iterator[tuple[str, SynthesisSettings]]:
    """``start``, and each of its options varied alone."""
    yield "start", start
    options: dict[str, tuple[Any, ...]] = {"steps": STEPS, "guidance": GUIDANCE, "update": STEPPERS}
    if start.times:
        options = {"steps": FEW_STEPS, "guidance": FEW_GUIDANCE, "update": FEW_STEPPERS}
    if start.guidance != 1:
        options["guidance_interval"] = INTERVALS
    for name, values in options.items():
        for value in values if only is None or name in only else ():
            if value != getattr(start, name):
                yield name, replace(start, **{name: value})


def _knob(text: str) -> tuple[str, Any]:
    """``steps=12``, ``guidance=2``, ``guidance_interval=0.2,0.8`` or ``update=ddim`` as name and value."""
    name, _, value = text.partition("=")
    if name == "guidance_interval":
        low, high = map(float, value.split(","))
        return name, (low, high)
    return name, {"steps": int, "guidance": float, "update": str}[name](value)


if __name__ == "__main__":
    main()
