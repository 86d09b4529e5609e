"""The study behind RESULTS.md: real, synthetic, both and gated, with and without ordinary augmentation.

For each task a recipe of `augment` and a kind of ordinary augmentation are chosen on held-out groups of the training
part; then all arms are tested. Every step is kept in ``--out`` and taken up again: images by `augment` itself (one
folder per recipe and model), features as .npz, and what was found as TASK.json, from which report.py writes the tables.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from learners import LIGHT, Learner, features, network, pixels, probe
from report import span
from tasks import TASKS, Item, Task, digest

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.encoders.efficientnet_lite import EfficientNetLiteEncoder
from ssl_tilegen.encoders.texture import TextureEncoder
from ssl_tilegen.metrics.probes import pick_groups
from ssl_tilegen.metrics.usefulness import LabelledSet, Outcome, made_from
from ssl_tilegen.metrics.votes import class_votes

RECIPES: dict[str, tuple[str, ...]] = {
    "light": ("--strength", "0.3"),
    "blend": ("--strength", "0.7", "--mix", "0.4"),
    "fresh": ("--mix", "0.5"),
    "repaint": ("--strength", "0.5"),
    "free": ("--layout", "free", "--mix", "0.3"),
}
"""What is handed to `augment`; a recipe without --strength starts from noise."""
PLAIN = ("real", "synthetic", "both", "gated")
ARMS = (*PLAIN, "real+", "both+")
GAINS = (("both", "real"), ("gated", "real"), ("both+", "real+"), ("both+", "real"), ("real+", "real"))
ROUNDS = 1000


@dataclass(frozen=True)
class TaskData:
    """What one learner draws from and is tested on. ``vote`` (features of the gate), and the groups whose images have
    no vote on a synthetic one (N, 2); None where there is no gate."""

    real: LabelledSet
    made: LabelledSet
    test: LabelledSet
    vote: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("augment-study"))
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), help="chosen from, instead of a task's own")
    parser.add_argument("--scale", type=int, help="images made of each image, instead of a task's own number")
    parser.add_argument("--pool", type=int, default=60, help="lung fields per class that draws are made from")
    parser.add_argument("--seeds", type=int, default=40, help="draws of groups for the probes")
    parser.add_argument("--finetune", type=int, default=12, help="draws for the network from scratch; 0: none")
    parser.add_argument("--counts", type=int, nargs="+", help="groups per class, instead of a task's own")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.tasks:
        found = study(TASKS[name](options.data, options.out, options.pool), options)
        part = options.out / f".{name}.json"
        part.write_text(json.dumps(found, indent=1))
        part.replace(options.out / f"{name}.json")


def study(task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """Choose, then test: everything that report.py needs."""
    started, bundle = time.perf_counter(), ModelBundle.load(options.model)
    encoders: dict[str, Encoder] = {"texture": TextureEncoder(task.side_px), "bundle": BundleEncoder(bundle),
                                    "ImageNet": EfficientNetLiteEncoder(task.side_px)}  # fmt: skip
    folders = {recipe: make(task, recipe, bundle, options) for recipe in options.recipes or task.recipes}
    kinds = {kind: _of_ordinary(task, kind, encoders["texture"], options) for kind in LIGHT}
    kind = max(kinds, key=lambda name: kinds[name])
    gains = {recipe: _of_recipe(task, folder, encoders, options) for recipe, folder in folders.items()}
    recipe = max(gains, key=lambda name: gains[name])
    rows = test(task, folders[recipe], kind, encoders, options)
    facts = {name: json.loads((folder / "augment.json").read_text()) for name, folder in folders.items()}
    return {
        "task": task.name, "title": task.title, "seen": task.seen, "model": bundle.info.name, "hash": bundle.hash,
        "scale": _scale(task, options), "train": len(task.train), "held": len(task.held), "tested": len(task.test),
        "kinds": kinds, "kind": kind, "gains": gains, "recipe": recipe, "options": " ".join(RECIPES[recipe]),
        "cosine": {name: own["cosine"] for name, own in facts.items()},
        "in_class": {name: [own["in_class"], own["real_in_class"]] for name, own in facts.items()},
        "rows": rows, "seconds": round(time.perf_counter() - started),
    }  # fmt: skip


def make(task: Task, recipe: str, bundle: ModelBundle, options: argparse.Namespace) -> Path:
    """The synthetic images of a task by `ssl-tilegen augment`, made unless they are there."""
    scale = _scale(task, options)
    folder = options.out / f"{task.name}-{digest(task.train)}-{recipe}-x{scale}-{bundle.hash[:8]}"
    if not folder.exists():
        command = [sys.executable, "-m", "ssl_tilegen", "augment", str(task.csv(options.out)), "-o", str(folder),
                   "--per-image", str(scale), "--model", options.model, *RECIPES[recipe]]  # fmt: skip
        subprocess.run(command, check=True)
    return folder


def _of_ordinary(task: Task, kind: str, encoder: Encoder, options: argparse.Namespace) -> float:
    """What a kind of ordinary augmentation gains on the held-out groups, without any synthetic image."""
    real = features(task, task.train, kind, encoder, options.out)
    sets = TaskData(real, real, features(task, task.held, None, encoder, options.out), None)
    counts = _counts(task, options)[:2]
    drawn = [_draw(probe, sets, task, count, options.seeds, ("real", "real+")) for count in counts]
    return float(np.mean([_gain(outcome, "real+") for outcome in drawn]))


def _of_recipe(task: Task, folder: Path, encoders: Mapping[str, Encoder], options: argparse.Namespace) -> float:
    """What a recipe gains on the held-out groups: mean of `both - real` over all features and the small counts."""
    found = []
    for encoder in encoders.values():
        sets = TaskData(*(features(task, items, None, encoder, options.out)
                      for items in (task.train, read_made(folder), task.held)), None)  # fmt: skip
        found += [_gain(_draw(probe, sets, task, n, options.seeds, ("real", "both")), "both")
                  for n in _counts(task, options)[:2]]  # fmt: skip
    return float(np.mean(found))


def test(
    task: Task, folder: Path, kind: str, encoders: Mapping[str, Encoder], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """All arms by all learners, for every number of groups, tested on the test part."""
    made, rows = read_made(folder), []
    voting = _voting(task, folder, encoders["bundle"], options)
    for name, encoder in encoders.items():
        real, own = (features(task, items, kind, encoder, options.out) for items in (task.train, made))
        sets = TaskData(real, own, features(task, task.test, None, encoder, options.out), voting)
        rows += _rows(f"linear, {name}", probe, sets, task, _counts(task, options), options.seeds)
    if options.finetune:
        sets = TaskData(pixels(task, task.train), pixels(task, made), pixels(task, task.test), voting)
        arms = ("real", "both", "real+", "both+")
        few = _counts(task, options)[:2]
        rows += _rows("network from scratch", network(kind, options.out), sets, task, few, options.finetune, arms)
    return rows


def _rows(
    name: str, learn: Learner, sets: TaskData, task: Task, counts: tuple[int, ...], seeds: int,
    arms: tuple[str, ...] = ARMS,
) -> list[dict[str, Any]]:  # fmt: skip
    rows = []
    for count in counts:
        outcome = _draw(learn, sets, task, count, seeds, arms)
        known = [(arm, over) for arm, over in GAINS if {arm, over} <= set(arms)]
        gains = {f"{arm} - {over}": list(outcome.gain(arm, over, rounds=ROUNDS)) for arm, over in known}
        figures = {arm: list(outcome.score(arm, rounds=ROUNDS)) for arm in arms}
        rows.append({"learner": name, "groups": count, "draws": seeds, "figures": figures, "gains": gains,
                     "sizes": dict(outcome.sizes), "test_groups": len(np.unique(sets.test.groups))})  # fmt: skip
        said = "; ".join(f"{key} {span(gain)}" for key, gain in gains.items())
        print(f"{task.name}, {name}, {count} groups: {said}", flush=True)
    return rows


def _draw(learn: Learner, sets: TaskData, task: Task, count: int, seeds: int, arms: tuple[str, ...]) -> Outcome:
    """Every arm trained on the same draws of ``count`` groups per class."""
    said: dict[str, list[np.ndarray]] = {arm: [] for arm in arms}
    sizes: dict[str, list[int]] = {arm: [] for arm in arms}
    classes = len({item.label for item in task.train})
    for seed in range(seeds):
        own = np.flatnonzero(pick_groups(sets.real.groups, sets.real.y, count // task.block, seed))
        drawn = sets.real.take(own)
        made = np.flatnonzero(made_from(sets.made, sets.real, drawn))
        parts = {"real": drawn, "synthetic": sets.made.take(made), "both": balanced(drawn, sets.made.take(made))}
        if "gated" in arms:
            parts["gated"] = balanced(drawn, sets.made.take(made[_in_class(sets, own, made)]))
        for arm in arms:
            part = parts[arm.removesuffix("+")]
            said[arm].append(learn(arm.endswith("+"), part, sets.test.x, classes, seed))
            sizes[arm].append(len(part.y))
    return Outcome({arm: np.stack(p) for arm, p in said.items()}, {arm: float(np.mean(n)) for arm, n in sizes.items()},
                   sets.test.y, sets.test.groups)  # fmt: skip


def balanced(real: LabelledSet, made: LabelledSet) -> LabelledSet:
    """Both, the real images repeated so that they count about as much as the synthetic ones together."""
    times = max(1, round(len(made.y) / len(real.y)))
    return real.take(np.tile(np.arange(len(real.y)), times)).join(made)


def _gain(outcome: Outcome, arm: str) -> float:
    return float(outcome.gain(arm, "real", rounds=2).value)


def _voting(
    task: Task, folder: Path, encoder: Encoder, options: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For the gate: features and groups of the real images, features and kin (N, 2) of the synthetic ones."""
    made = read_made(folder)
    kin = [[f"{row['label']}/{group}" for group in (row["group"], row["mixed_group"] or row["group"])]
           for row in _manifest(folder)]  # fmt: skip
    real, own = (features(task, items, None, encoder, options.out).x[:, 0] for items in (task.train, made))
    return real, np.array([f"{item.label}/{item.group}" for item in task.train]), own, np.array(kin)


def _in_class(sets: TaskData, own: np.ndarray, made: np.ndarray) -> np.ndarray:
    """`augment`'s gate with the draw's own images as the only voters: which synthetic ones (M,) stay.

    One that was made of all groups of its class in the draw stays: nobody is left to vote for it.
    """
    assert sets.vote is not None
    real, groups, vectors, kin = sets.vote
    votes = class_votes(vectors[made], sets.made.y[made], kin[made], real[own], sets.real.y[own], groups[own])
    alike = sets.made.y[made][:, None] == sets.real.y[own]
    foreign = alike & ~(kin[made][:, :, None] == groups[own]).any(1)
    return (votes.label == sets.made.y[made]) | ~foreign.any(1)


def read_made(folder: Path) -> list[Item]:
    """The synthetic images of a folder of `augment`."""
    return [Item(folder / row["path"], row["label"], row["group"]) for row in _manifest(folder)]


def _manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _scale(task: Task, options: argparse.Namespace) -> int:
    return int(options.scale or task.scale)


def _counts(task: Task, options: argparse.Namespace) -> tuple[int, ...]:
    return tuple(options.counts or task.counts)


if __name__ == "__main__":
    main()
