"""Does the prior listen? Run with `python -m benchmarks.listens --bundle FOLDER --data ../shared/data`.

A linear classifier learns the H&E classes from real training tiles alone. It then judges drawn grids (`--level grid`),
or images painted from them and embedded again (`--level image`): N per class from labels, and N per class from
wordings that the prior has never seen. Prints one JSON line per figure: accuracy, confusion matrix, and the ratio of
the Vendi score (Friedman & Dieng 2023) of drawn to that of real ones; and what the classifier makes of held-out tiles.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssl_tilegen.bundle import SCHEDULER, ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.guidance import guided
from ssl_tilegen.diffusion.schedule import Schedule
from ssl_tilegen.diffusion.steppers import stepper_named
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.prior.prompt_encoder import PromptEncoder, prior_of
from ssl_tilegen.prior.sampling import clean_of_grid, first_noise
from ssl_tilegen.prior.scene import Region
from ssl_tilegen.prior.spec import PriorSampling
from ssl_tilegen.workflows.augment.paint_stack import develop_stack, paint_stack
from ssl_tilegen.workflows.generate.placement import Placement
from ssl_tilegen.workflows.generate.sampling import sampling

CLASSES = {"benign": "benign lung", "adenocarcinoma": "lung adenocarcinoma", "squamous": "lung squamous carcinoma"}
WORDINGS = Path(__file__).parents[1] / "examples" / "text" / "wordings.json"
CELLS, BLEED, STACK = 3, 3, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--count", type=int, default=100, help="grids or images per class and kind of condition")
    parser.add_argument("--level", choices=["grid", "image"], default="grid")
    parser.add_argument("--guidance", type=float, help="of the prior; its own default otherwise")
    parser.add_argument("--steps", type=int, help="of the prior; its own default otherwise")
    parser.add_argument("--features", type=Path, help="file in which the vectors of the real tiles are kept")
    parser.add_argument("--layout", choices=["auto", "exact", "loose", "free"], default="auto", help="of the painter")
    parser.add_argument("--paint-steps", type=int, help="of the painter; its own default otherwise")
    parser.add_argument("--out", type=Path, help="folder for a sheet of images per class (--level image)")
    options = parser.parse_args()
    bundle = ModelBundle.load(options.bundle)
    real = features(options, bundle)
    judge = Judge(real["train"], real["train_class"])
    say(figure="real tiles held out", **judge.report(real["val"], real["val_class"]))
    for kind in ("label", "text"):
        judge_drawn(kind, judge, real, bundle, options)


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def judge_drawn(kind: str, judge: Judge, real: Any, bundle: ModelBundle, options: argparse.Namespace) -> None:
    found, classes, ratios = [], [], []
    for index, cells in enumerate(drawn(kind, bundle, options)):
        if options.level == "image":
            cells = painted(cells, bundle, options, f"{kind}-{list(CLASSES)[index]}", index * options.count)
        found.append(summary(cells))
        classes += [index] * len(cells)
        own = spread(real["train"][real["train_class"] == index], real["train_group"][real["train_class"] == index],
                     len(cells))  # fmt: skip
        ratios.append(vendi(judge.scaled(found[-1])) / vendi(judge.scaled(own)))
    vectors = np.concatenate(found)
    say(figure=f"{options.level}s from {kind}", **judge.report(vectors, np.array(classes)),
        vendi_ratio=[round(float(r), 3) for r in ratios])  # fmt: skip


def drawn(kind: str, bundle: ModelBundle, options: argparse.Namespace) -> Iterator[np.ndarray]:
    """For each class N grids (N, 3, 3, D), grid k of seed k."""
    info = prior_of(bundle)
    prompt_encoder, wordings = PromptEncoder(bundle, info), json.loads(WORDINGS.read_text())
    changes = {"guidance": options.guidance, "steps": options.steps}
    how = info.sampling.model_copy(update={k: v for k, v in changes.items() if v is not None})
    for place, label in enumerate(CLASSES.values()):
        unseen = wordings[label]["held_out"]
        regions = [Region(label=label) if kind == "label" else Region(text=unseen[k % len(unseen)])
                   for k in range(options.count)]  # fmt: skip
        condition = np.stack([prompt_encoder(region)[0] for region in regions])
        yield draw_many(bundle.prior, condition, how, first_seed=place * options.count)


@torch.no_grad()
def draw_many(prior: Any, condition: np.ndarray, how: PriorSampling, first_seed: int) -> np.ndarray:
    """What ``sample_prior`` does for one small grid, for many at once: conditions (N, C) -> (N, 3, 3, D)."""
    side = CELLS + 2 * BLEED
    before = (side - CELLS) // 2
    window = Window(-before, -before, side, side)
    x, previous = torch.stack([first_noise(prior, window, first_seed + k) for k in range(len(condition))]), None
    field = torch.from_numpy(condition)[:, :, None, None].expand(-1, -1, side, side)
    clean_of, update = guided(clean_of_grid(prior), how.guidance, how.guidance_interval), stepper_named(how.update)
    for step in Schedule.from_config(SCHEDULER, how.steps).steps():
        clean = clean_of(x, field, step)
        x, previous = update.rule(x, clean, previous, step), clean
    core = x[:, :, before : before + CELLS, before : before + CELLS].movedim(1, -1)
    return prior.restored(core)[..., :-1].numpy()


def painted(
    grids: np.ndarray, bundle: ModelBundle, options: argparse.Namespace, name: str, first_seed: int
) -> np.ndarray:
    """Grids (N, 3, 3, D) painted as `generate` paints drawn grids, a stack at a time, and the cells of the images
    embedded again."""
    tile, encoder = bundle.info.encoder.tile_px, BundleEncoder(bundle)
    size = Size(CELLS * tile, CELLS * tile)
    asked = GenerateSettings(label=name, layout=options.layout, steps=options.paint_steps)
    how = sampling(asked, bundle, Placement("whole", size, Window.of(size)))
    shown: list[np.ndarray] = []
    for first in range(0, len(grids), STACK):
        fields = [ConditionField.of_grid(cells, tile_px=tile, stride_px=tile, factor=bundle.factor)
                  for cells in grids[first : first + STACK]]  # fmt: skip
        seeds = [first_seed + first + k for k in range(len(fields))]
        shown += list(develop_stack(bundle, paint_stack(bundle, fields, size, seeds, how), size, how))
        print(f"{name}: {len(shown)} of {len(grids)} painted", file=sys.stderr)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        rows = [np.concatenate(shown[k : k + 8], 1) for k in range(0, min(len(shown), 16) // 8 * 8, 8)]
        if rows:
            Image.fromarray(np.concatenate(rows)).save(options.out / f"{name}.png")
    return np.stack([cells_of(rgb, encoder) for rgb in shown])


def cells_of(rgb: np.ndarray, encoder: BundleEncoder) -> np.ndarray:
    """The middle 3 x 3 cells of an image (H, W, 3), embedded: (3, 3, D)."""
    tile = encoder.tile_px
    side = CELLS * tile
    top, left = ((length - side) // 2 for length in rgb.shape[:2])
    part = rgb[top : top + side, left : left + side]
    tiles = part.reshape(CELLS, tile, CELLS, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    return encoder.embed(tiles).reshape(CELLS, CELLS, -1)


def summary(grids: np.ndarray) -> np.ndarray:
    """What a classifier sees of grids (N, 3, 3, D): mean and deviation of the content of their cells (N, 2 D')."""
    flat = grids.reshape(len(grids), -1, grids.shape[-1]).astype(np.float32)
    return np.concatenate([flat.mean(1), flat.std(1)], 1)


def features(options: argparse.Namespace, bundle: ModelBundle) -> dict[str, np.ndarray]:
    """Summaries, classes and groups of the real tiles, train and val; kept in ``--features``."""
    key = bundle.component_hash("encoder")[:12]
    file = options.features.with_suffix(f".{key}.npz") if options.features else None
    if file and file.exists():
        with np.load(file) as kept:
            return dict(kept)
    encoder = BundleEncoder(bundle)
    found: dict[str, np.ndarray] = {}
    for split in ("train", "val"):
        vectors, classes, groups = [], [], []
        for index, folder in enumerate(CLASSES):
            for path in sorted((options.data / "tiles/he" / split / folder).glob("*.jpg")):
                vectors.append(summary(cells_of(np.asarray(Image.open(path).convert("RGB")), encoder)[None])[0])
                classes.append(index)
                groups.append(number_of(path.stem.split("_")[0]))
        found |= {split: np.stack(vectors), f"{split}_class": np.array(classes), f"{split}_group": np.array(groups)}
    if file:
        np.savez(file, **found)  # type: ignore[arg-type]
    return found


def number_of(group: str) -> int:
    """The number of a group gNNN."""
    return int(group.removeprefix("g"))


class Judge:
    """Multinomial logistic regression on standardised summaries (N, F), classes 0 to 2."""

    def __init__(self, vectors: np.ndarray, classes: np.ndarray, weight: float = 1e-3) -> None:
        self.mean, self.std = vectors.mean(0), vectors.std(0).clip(1e-6)
        x, y = torch.from_numpy(self.scaled(vectors)), torch.from_numpy(classes)
        self.layer = torch.nn.Linear(x.shape[1], len(CLASSES))
        torch.nn.init.zeros_(self.layer.weight)
        optimiser = torch.optim.LBFGS(self.layer.parameters(), max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            value = torch.nn.functional.cross_entropy(self.layer(x), y) + weight * self.layer.weight.square().sum()
            value.backward()
            return value

        optimiser.step(loss)

    def scaled(self, vectors: np.ndarray) -> np.ndarray:
        return ((vectors - self.mean) / self.std).astype(np.float32)

    @torch.no_grad()
    def report(self, vectors: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
        """Accuracy, and rows of true against columns of found classes."""
        guess = self.layer(torch.from_numpy(self.scaled(vectors))).argmax(1).numpy()
        table = np.zeros((len(CLASSES),) * 2, int)
        np.add.at(table, (classes, guess), 1)
        return {"n": len(classes), "accuracy": round(float((guess == classes).mean()), 4), "confusion": table.tolist()}


def spread(vectors: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of real vectors, one of each group before any second one."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(vectors))
    seen: dict[int, int] = {}
    turn = np.array([_turn(seen, int(g)) for g in groups[order]])
    return vectors[order[np.argsort(turn, kind="stable")][:count]]


def _turn(seen: dict[int, int], group: int) -> int:
    """How many of this group came before."""
    seen[group] = seen.get(group, 0) + 1
    return seen[group] - 1


def vendi(vectors: np.ndarray) -> float:
    """The effective number of different vectors (N, F): exp of the entropy of the eigenvalues of their cosines / N."""
    x = np.asarray(vectors, np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
    values = np.linalg.eigvalsh(x @ x.T / len(x)).clip(1e-12)
    return float(np.exp(-(values * np.log(values)).sum()))


if __name__ == "__main__":
    main()
