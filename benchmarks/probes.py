"""What an encoder's vectors tell of classes, and whether stain alone makes them neighbours.

    python -m benchmarks.probes --data ../shared/data --out FOLDER [--bundle tiny] [--only sites built lung stains]

One JSON line per figure and encoder: all numbers of the bundle's vectors, their content half, and ``texture`` of the
same cells and of whole tiles. A tile is the mean of 3 x 3 cells.

- ``sites``, ``built``, ``lung``: the tasks of ``examples/augment`` (four NEON sites; roofs or none; lung classes):
  accuracy of a linear probe from few groups (footprints, blocks of ground, fields) per class, mean of ``--draws``
  draws, on images of other groups. The better of two scalings: each number to unit deviation, all by a common one.
- ``stains``: held-out lung tiles of different fields in four stains of `data.stain`'s kind. ``own_first``: how often a
  tile finds itself in another stain before all other tiles in its own stain. ``same_class``, ``same_stain``: of the
  nearest tile of another field, every tile in a stain drawn for it, with what chance would give. Cosine of centred
  vectors, each number at unit deviation for ``texture``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from examples.augment.tasks import TASKS, Item
from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.encoders.texture import TextureEncoder
from ssl_tilegen.metrics.probes import linear_probe, pick_groups, scores
from ssl_tilegen.training.data.colour_jitter import jittered_colours

SIDE_PX, CELLS, STAINS, BATCH = 64, 3, 4, 16
Vectors = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True, help="folder for the crops of the tasks")
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--only", nargs="+", default=["sites", "built", "stains"], choices=[*TASKS, "stains"])
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--tiles", type=int, default=120, help="of stains")
    parser.add_argument("--stain", type=float, default=0.08, help="as data.stain; the encoder of tiny was shown 0.08")
    given = parser.parse_args()
    describe = descriptions(given.bundle)
    for name in given.only:
        if name == "stains":
            found = stains(describe, sorted((given.data / "tiles/he/val").glob("*/*.jpg")), given.tiles, given.stain)
        else:
            found = classes(describe, name, given.data, given.out, given.draws)
        for facts in found:
            print(json.dumps({"figure": name, **facts}), flush=True)


def descriptions(bundle: str) -> Callable[[Sequence[np.ndarray]], Vectors]:
    """A function from tiles (H, W, 3) to their vectors (N, D), by encoder."""
    opened, texture = ModelBundle.load(bundle), TextureEncoder(SIDE_PX)
    encoder, content = BundleEncoder(opened), opened.info.encoder.dim - opened.info.encoder.layout_dim

    def describe(tiles: Sequence[np.ndarray]) -> Vectors:
        parts: dict[str, list[np.ndarray]] = {"all": [], "texture": [], "texture of whole tiles": []}
        for first in range(0, len(tiles), BATCH):
            some = tiles[first : first + BATCH]
            nine = np.concatenate([_nine(tile) for tile in some])
            for name, kind in (("all", encoder), ("texture", texture)):
                parts[name].append(kind.embed(nine).reshape(len(some), CELLS**2, -1).mean(1))
            parts["texture of whole tiles"].append(texture.embed(np.stack(some)))
        found = {name: np.concatenate(part).astype(np.float64) for name, part in parts.items()}
        return {"content": found["all"][:, :content], **found}

    return describe


def _nine(tile: np.ndarray) -> np.ndarray:
    """Nine cells spread evenly over a tile, uint8 (9, 64, 64, 3)."""
    rows, cols = (np.linspace(0, side - SIDE_PX, CELLS).astype(int) for side in tile.shape[:2])
    return np.stack([tile[row : row + SIDE_PX, col : col + SIDE_PX] for row in rows for col in cols])


def classes(describe: Callable[..., Vectors], name: str, data: Path, out: Path, draws: int) -> list[dict[str, Any]]:
    """Accuracy by the number of groups per class that are known."""
    task = TASKS[name](data, out, 45)
    labels = sorted({item.label for item in task.train})
    known, asked = ([_read(item) for item in items] for items in (task.train, task.test))
    train, test = describe(known), describe(asked)
    y, truth = (np.array([labels.index(item.label) for item in items]) for items in (task.train, task.test))
    groups = np.array([f"{item.label} {item.group}" for item in task.train])
    found = []
    for encoder, x in train.items():
        accuracy = {}
        for count in task.counts:
            picked = [pick_groups(groups, y, count, seed) for seed in range(draws)]
            both = [[_accuracy(x[keep], y[keep], test[encoder], truth, len(labels), common) for keep in picked]
                    for common in (False, True)]  # fmt: skip
            accuracy[count] = round(max(float(np.mean(each)) for each in both), 4)
        found.append({"encoder": encoder, "classes": len(labels), "tested": len(truth), "accuracy": accuracy})
    return found


def _accuracy(x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray, count: int, common: bool) -> float:
    l2 = 10 / len(x) if common else 1e-2  # C = 0.1 of the usual libraries
    return scores(linear_probe(x, y, test, count, l2=l2, common_scale=common), truth).accuracy


def _read(item: Item) -> np.ndarray:
    return np.asarray(Image.open(item.path).convert("RGB"))


def stains(describe: Callable[..., Vectors], paths: list[Path], count: int, amount: float) -> list[dict[str, Any]]:
    """Neighbours of re-stained tiles, one tile of each field."""
    fields = {path.parent.name + path.name.split("_")[0]: path for path in reversed(paths)}
    chosen = [fields[key] for key in sorted(fields)]
    chosen = [chosen[index] for index in np.linspace(0, len(chosen) - 1, min(count, len(chosen))).astype(int)]
    kind = np.unique([path.parent.name for path in chosen], return_inverse=True)[1]
    tiles = [np.asarray(Image.open(path).convert("RGB")) for path in chosen]
    stained = [jittered_colours(np.random.default_rng(stain), tile, amount, 0.0)
               for stain in range(STAINS) for tile in tiles]  # fmt: skip
    found = []
    for encoder, vectors in describe(stained).items():
        by_stain = _unit(vectors, scaled=encoder.startswith("texture")).reshape(STAINS, len(tiles), -1)
        found.append({"encoder": encoder, "tiles": len(tiles), **_neighbours(by_stain, kind)})
    return found


def _unit(vectors: np.ndarray, *, scaled: bool) -> np.ndarray:
    centred = vectors - vectors.mean(0)
    centred = centred / centred.std(0).clip(1e-9) if scaled else centred
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def _neighbours(vectors: np.ndarray, kind: np.ndarray) -> dict[str, float]:
    """Of vectors (stains, tiles, D) and classes (tiles,)."""
    count, first = len(kind), []
    for one, other in np.ndindex(STAINS, STAINS):
        if one != other:
            among = vectors[one] @ vectors[one].T
            np.fill_diagonal(among, (vectors[one] * vectors[other]).sum(1))
            first.append((among.argmax(1) == np.arange(count)).mean())
    rng, same_class, same_stain = np.random.default_rng(0), [], []
    for _ in range(20):
        stain = rng.integers(STAINS, size=count)
        drawn = vectors[stain, np.arange(count)]
        likeness = drawn @ drawn.T
        np.fill_diagonal(likeness, -np.inf)
        nearest = likeness.argmax(1)
        same_class.append((kind[nearest] == kind).mean())
        same_stain.append((stain[nearest] == stain).mean())
    shares = {"own_first": first, "same_class": same_class, "same_stain": same_stain}
    chance = {"class_by_chance": float((np.bincount(kind) ** 2).sum() / count**2), "stain_by_chance": 1 / STAINS}
    return {name: round(float(np.mean(values)), 4) for name, values in (shares | chance).items()}


if __name__ == "__main__":
    main()
