"""The study behind RESULTS.md: real, synthetic, both, with and without ordinary augmentation, where labels are few.

Every step is kept in ``--out`` and taken up again: pictures by `augment` itself, features as .npz.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import Row, write_results
from tasks import TASKS, Item, Task, digest

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import AugmentSettings
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.encoders.texture import TextureEncoder
from ssl_tilegen.metrics.probes import knn_probe, linear_probe
from ssl_tilegen.metrics.usefulness import Outcome, Part, compare
from ssl_tilegen.training.classifier import ClassifierSettings, convnet, fine_tuned
from ssl_tilegen.workflows.augment import augment
from ssl_tilegen.workflows.augment.inputs import read_pixels
from ssl_tilegen.workflows.evaluate.features import describe_windows

RECIPES = {
    "repaint": {"strength": 0.5},
    "light": {"strength": 0.3},
    "mix": {"strength": 0.7, "mix": 0.3},
    "fresh": {},
    "free": {"layout": "free", "mix": 0.3},
}
"""What is handed to `augment`."""

VIEWS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("augment-study"))
    parser.add_argument("--results", type=Path, default=Path("RESULTS.md"))
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--recipes", nargs="+", default=["repaint", "mix"], choices=list(RECIPES))
    parser.add_argument("--scale", type=int, default=2, help="pictures made of each picture")
    parser.add_argument("--pool", type=int, default=60, help="lung fields per class that draws are made from")
    parser.add_argument("--seeds", type=int, default=10, help="draws of groups")
    parser.add_argument("--finetune", type=int, default=0, help="draws that also train the small convolutional network")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bundle, rows, took = ModelBundle.load(options.model), [], time.perf_counter()
    for name in options.tasks:
        task = TASKS[name](options.data, options.out, options.pool)
        for recipe in options.recipes:
            folder = make(task, recipe, options)
            rows += study(task, recipe, folder, bundle, options)
            write_results(options.results, rows, bundle, options, time.perf_counter() - took)


def make(task: Task, recipe: str, options: argparse.Namespace) -> Path:
    """The synthetic pictures of a task, made unless they are there (of this model, recipe and number)."""
    model = ModelBundle.load(options.model).hash[:8]
    folder = options.out / f"{task.name}-{digest(task.train)}-{recipe}-x{options.scale}-{model}"
    if not folder.exists():
        settings = AugmentSettings(out=folder, model=options.model, per_image=options.scale, **RECIPES[recipe])
        augment(task.csv(options.out), settings, lambda stage, done, total: print(end=".", flush=True))
        print(f" {folder.name} made", flush=True)
    return folder


def study(task: Task, recipe: str, folder: Path, bundle: ModelBundle, options: argparse.Namespace) -> list[Row]:
    """All arms of a task by all learners, for every number of groups."""
    made = [
        Item(folder / row["path"], row["label"], row["group"])
        for row in csv.DictReader((folder / "manifest.csv").open())
    ]
    facts = json.loads((folder / "augment.json").read_text())
    rows = []
    for features, learn in (("texture", linear_probe), ("texture", knn_probe), ("bundle", linear_probe)):
        encoder = TextureEncoder(task.side_px) if features == "texture" else BundleEncoder(bundle)
        known = bundle.component_hash("encoder")[:8] if features == "bundle" else encoder.weights_sha256[:8]
        sets = {"real": (task.train, VIEWS), "made": (made, VIEWS), "test": (task.test, 0)}
        parts = {
            kind: _part(task, items, count, options.out / f"{task.name}-{kind}-{digest(items)}-{known}.npz", encoder)
            for kind, (items, count) in sets.items()
        }
        for count in task.counts:
            learner = partial(_by_views, learn)
            outcome = _all_arms(parts, learner, len(_classes(task)), count // task.block, options.seeds)
            name = f"{learn.__name__.removesuffix('_probe')}, {features}"
            rows.append(Row(task, recipe, name, count, outcome, facts))
            print(rows[-1].line(), flush=True)
    if options.finetune:
        rows += _fine_tuned(task, recipe, made, facts, options)
    return rows


def _all_arms(parts: dict[str, Part], learn: Callable[..., Any], classes: int, count: int, seeds: int) -> Outcome:
    """real, synthetic and both, and the same with ordinary augmentation as 'real+' and so on, on the same draws."""
    sets = (parts["real"], parts["made"], parts["test"], classes)
    plain, more = (
        compare(partial(learn, ordinary), *sets, seeds=seeds, per_class=count) for ordinary in (False, True)
    )
    return replace(
        plain,
        probabilities={**plain.probabilities, **{f"{arm}+": said for arm, said in more.probabilities.items()}},
        sizes={**plain.sizes, **{f"{arm}+": size for arm, size in more.sizes.items()}},
    )


def _by_views(
    probe: Callable[..., np.ndarray], ordinary: bool, train: Part, test: np.ndarray, classes: int, seed: int
) -> np.ndarray:
    """A learner over features (N, V, D): the picture alone (view 0), or with its ordinarily augmented views."""
    used = train.x if ordinary else train.x[:, :1]
    return probe(used.reshape(-1, used.shape[2]), np.repeat(train.y, used.shape[1]), test[:, 0], classes)


def _part(task: Task, items: Sequence[Item], count: int, cache: Path, encoder: Encoder) -> Part:
    """Features (N, 1 + count, D) of pictures: of themselves, and of ``count`` augmented ones."""
    if not cache.exists():
        views = np.stack([_views(read_pixels(item.path), count, index) for index, item in enumerate(items)])
        vectors = np.stack([describe_windows(encoder, views[:, v]) for v in range(1 + count)], axis=1)
        part = cache.with_name(f".{cache.name}")
        np.savez(part, x=vectors.astype(np.float32))
        part.replace(cache)
    return _labelled(task, items, np.load(cache)["x"][:, : 1 + count])


def _labelled(task: Task, items: Sequence[Item], x: np.ndarray) -> Part:
    """With blocks as groups where groups are drawn, and with their own groups where they are tested."""
    names, blocks = _classes(task), {} if items is task.test else task.blocks()
    labels = np.array([names.index(item.label) for item in items])
    groups = [blocks.get((item.label, item.group), f"{item.label}/{item.group}") for item in items]
    return Part(x, labels, np.array(groups))


def _views(rgb: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A picture (H, W, 3) and ``count`` of it that are turned, mirrored, and changed in light and stain."""
    rng, views = np.random.default_rng(seed), [rgb]
    for _ in range(count):
        view = np.rot90(rgb, int(rng.integers(4)))
        view = view[:, ::-1] if rng.random() < 0.5 else view
        gain, shift = rng.uniform(0.85, 1.15, 3), rng.uniform(-15, 15, 3)
        views.append((view * gain + shift).clip(0, 255).astype(np.uint8))
    return np.stack(views)


def _fine_tuned(task: Task, recipe: str, made: Sequence[Item], facts: dict, options: argparse.Namespace) -> list[Row]:
    """The same by a small convolutional network over half-size pixels; slow, so only for the middle numbers."""

    def pixels(items: Sequence[Item]) -> Part:
        half = task.side_px // 2
        x = np.stack([read_pixels(i.path).reshape(half, 2, half, 2, 3).mean((1, 3)).astype(np.uint8) for i in items])
        return _labelled(task, items, x)

    def learn(ordinary: bool, train: Part, test: np.ndarray, classes: int, seed: int) -> np.ndarray:
        settings = ClassifierSettings(steps=100, augment="full" if ordinary else "none", backbone_lr=2e-3)
        torch.manual_seed(seed)
        return fine_tuned(convnet(), train.x, train.y, classes, seed, settings)(test)

    parts, rows = {"real": pixels(task.train), "made": pixels(made), "test": pixels(task.test)}, []
    for count in task.counts[1:3]:
        outcome = _all_arms(parts, learn, len(_classes(task)), count // task.block, options.finetune)
        rows.append(Row(task, recipe, "convolutional network, pixels", count, outcome, facts))
        print(rows[-1].line(), flush=True)
    return rows


def _classes(task: Task) -> list[str]:
    return sorted({item.label for item in task.train})


if __name__ == "__main__":
    main()
