"""Do painted tiles keep their class? A classifier that has seen real tiles alone judges real and painted ones.

    python -m benchmarks.class_check --data ../shared/data [--bundle tiny] [--tiles 360] [--draws 3]

A linear classifier of the lung classes learns from real training tiles, one of each field, in two kinds of features
that the bundle knows nothing of: EfficientNet-Lite1 (ImageNet) and ``texture``. It then judges held-out real tiles and
what the bundle paints from their embeddings, as often as there are draws, saved as JPEG as the real ones are. One JSON
line per kind of features: accuracy on both (the mean of the draws, and each), and how often both get the same class.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.judge import Images, Judge, lung, lung_files, paint_tiles, saved_as_jpeg
from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.encoders.texture import TextureEncoder
from ssl_tilegen.metrics.probes import linear_probe

CLASSES = ("adenocarcinoma", "benign", "squamous")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--tiles", type=int, default=360, help="held-out tiles; the first are of different fields")
    parser.add_argument("--draws", type=int, default=3, help="how often each tile is painted, by seeds of its own")
    given = parser.parse_args()
    known, labels = training_tiles(given.data)
    real, truth = held_out_tiles(given.data, given.tiles)
    bundle, seeds = ModelBundle.load(given.bundle), range(0, given.draws * len(real), len(real))
    painted = [saved_as_jpeg(tile) for seed in seeds for tile in paint_tiles(bundle, real, seed)]
    texture = TextureEncoder(224)
    kinds: dict[str, Callable[[Images], np.ndarray]] = {
        "efficientnet-lite1": Judge(1).features,
        "texture": lambda images: texture.embed(np.stack(images)),
    }
    for name, features in kinds.items():
        tiles = np.concatenate([features(real), features(painted)])
        guesses = linear_probe(features(known), labels, tiles, len(CLASSES)).argmax(1).reshape(-1, len(real))
        accuracy = [round(float((guess == truth).mean()), 4) for guess in guesses]
        same = round(float((guesses[1:] == guesses[0]).mean()), 4)
        print(json.dumps({"features": name, "learnt_from": len(known), "tiles": len(real), "real": accuracy[0],
                          "painted": round(float(np.mean(accuracy[1:])), 4), "draws": accuracy[1:], "same": same}),
              flush=True)  # fmt: skip


def training_tiles(data: Path) -> tuple[Images, np.ndarray]:
    """The first tile of every training field, and its class."""
    fields: dict[tuple[int, str], Path] = {}
    for number, name in enumerate(CLASSES):
        for path in sorted((data / "tiles/he/train" / name).glob("*.jpg")):
            fields.setdefault((number, path.name.split("_")[0]), path)
    tiles = [np.asarray(Image.open(path).convert("RGB")) for path in fields.values()]
    return tiles, np.array([number for number, _ in fields])


def held_out_tiles(data: Path, count: int) -> tuple[Images, np.ndarray]:
    """The tiles of `benchmarks.judge`, and their classes."""
    labels = [CLASSES.index(path.parent.name) for _, path in lung_files(data)]
    return lung(data)[0][:count], np.array(labels[:count])


if __name__ == "__main__":
    main()
