"""Pictures drawn from labels beside real ones, in ImageNet features that no part of the bundle was trained with.

    python -m benchmarks.drawn --data DATA --out FOLDER [--bundle tiny] [--variant 1 2] [--seeds 3]

For each label, images of 1,024 px are drawn and painted (one per seed) and cut into tiles of 224 px; so are the real
images of that label: of the lung the held-out tiles, of the ground the scenes that the prior was trained on (there are
no others of its labels). One JSON line per label and network: ``drawn`` is the Frechet distance of drawn to real tiles
in the 16 principal components of the pooled EfficientNet-Lite features of all real tiles, ``halves`` that between two
halves of the real ones (lung: of other fields; scenes: neighbouring tiles alternate), where tiles are half as many.
Then their means.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.judge import TILE_PX, Judge, lung_files, saved_as_jpeg
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.metrics.frechet import frechet_distance
from ssl_tilegen.workflows.generate.run import generate

COMPONENTS, SIDE_PX, MOST = 16, 1024, 120
LUNG = {"benign lung": "benign", "lung adenocarcinoma": "adenocarcinoma", "lung squamous carcinoma": "squamous"}
GROUND = {
    "town": "oam_sample2_rgba.tif", "village": "oam_area1_half.tif", "coastal village": "oam_area4_*.tif",
    "forest": "neon/HARV*.tif", "savanna": "neon/SJER*.tif", "pine woodland": "neon/OSBS*.tif",
}  # fmt: skip
Tiles = list[np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--variant", type=int, nargs="+", default=[1], help="of EfficientNet-Lite, 0 to 4")
    parser.add_argument("--seeds", type=int, default=3, help="images per label")
    parser.add_argument("--layout", choices=["auto", "exact", "loose", "free"], default="auto", help="of the painter")
    parser.add_argument("--out", type=Path, required=True, help="folder for the drawn images")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    real = {label: lung(given.data, folder) for label, folder in LUNG.items()}
    real |= {label: ground(given.data / "rasters", pattern) for label, pattern in GROUND.items()}
    drawn = {label: [tile for seed in range(given.seeds) for tile in draw(label, seed, given)] for label in real}
    for variant in given.variant:
        judge = Judge(variant)
        features = {label: judge.features(tiles) for label, tiles in real.items()}
        every = np.concatenate(list(features.values()))
        basis = np.linalg.eigh(np.cov((every - every.mean(0)).T))[1][:, ::-1][:, :COMPONENTS]
        found = []
        for label, own in features.items():
            own, made = own @ basis, judge.features(drawn[label]) @ basis
            found.append((frechet_distance(made, own), frechet_distance(own[::2], own[1::2])))
            say(label, variant, len(made), len(own), *found[-1])
        say("mean of all", variant, sum(map(len, drawn.values())), len(every), *np.mean(found, 0))


def say(label: str, variant: int, made: int, real: int, distance: float, halves: float) -> None:
    facts = {"label": label, "network": variant, "drawn_n": made, "real_n": real}
    print(json.dumps(facts | {"drawn": round(float(distance), 2), "halves": round(float(halves), 2)}), flush=True)


def lung(data: Path, folder: str) -> Tiles:
    """The held-out tiles of a class that `benchmarks.judge` takes; neighbours in the list are of other fields."""
    files = [path for _, path in lung_files(data) if path.parent.name == folder]
    return [np.asarray(Image.open(path).convert("RGB")) for path in files]


def ground(folder: Path, pattern: str) -> Tiles:
    """Tiles of all scenes of a pattern, that share no pixels."""
    found: Tiles = []
    for path in sorted(folder.glob(pattern)):
        with open_raster(path) as raster:
            pixels = raster.read(Window.of(raster.size))
        found += [tile for tile, valid in zip(tiles_of(pixels.rgb), tiles_of(pixels.valid), strict=True) if valid.all()]
    return found[:: -(-len(found) // MOST)]


def draw(label: str, seed: int, given: argparse.Namespace) -> Tiles:
    """The tiles of an image that is drawn and painted from a label, H&E as JPEG as the real ones are."""
    out = given.out / f"{label.replace(' ', '-')}-{seed}.png"
    if not out.exists():
        size = Size(SIDE_PX, SIDE_PX)
        generate(GenerateSettings(label=label, size=size, seed=seed, model=given.bundle, layout=given.layout, out=out))
    tiles = tiles_of(np.asarray(Image.open(out).convert("RGB")))
    return [saved_as_jpeg(tile) for tile in tiles] if label in LUNG else tiles


def tiles_of(plane: np.ndarray) -> Tiles:
    """The whole tiles of an image, row by row."""
    places = [range(0, length - TILE_PX + 1, TILE_PX) for length in plane.shape[:2]]
    return [np.ascontiguousarray(plane[r : r + TILE_PX, c : c + TILE_PX]) for r in places[0] for c in places[1]]


if __name__ == "__main__":
    main()
