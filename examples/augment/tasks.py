"""The tasks of the study: labelled pictures as `augment` takes them (a CSV), and pictures to test on."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from PIL import Image


class Item(NamedTuple):
    """A labelled picture and the field, footprint or block it belongs to."""

    path: Path
    label: str
    group: str


def digest(items: Sequence[Item]) -> str:
    """A mark that says which pictures these are."""
    return hashlib.sha256("\n".join(str(item) for item in items).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Task:
    """``train`` and ``test`` share no group; ``side_px``: what the classifiers see; ``counts``: how many groups per
    class are drawn; ``seen``: whether the built-in model was trained on these pictures or their like.

    Groups are drawn by blocks of ``block``, and `augment` mixes within a block alone (it is the CSV's split), so that
    no synthetic picture knows of a group that its draw has not.
    """

    name: str
    title: str
    train: list[Item]
    test: list[Item]
    side_px: int
    counts: tuple[int, ...]
    seen: bool
    block: int = 1

    def blocks(self) -> dict[tuple[str, str], str]:
        """(label, group) -> the block that it is in."""
        found: dict[tuple[str, str], str] = {}
        for label in sorted({item.label for item in self.train}):
            own = sorted({item.group for item in self.train if item.label == label})
            found |= {(label, group): f"{index // self.block:03d}" for index, group in enumerate(own)}
        return found

    def csv(self, out: Path) -> Path:
        """The training pictures as the CSV that `augment` takes."""
        path, blocks = out / f"{self.name}-{digest(self.train)}.csv", self.blocks()
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("path", "label", "group", "split"))
            for item in self.train:
                table.writerow((item.path.absolute(), item.label, item.group, blocks[item.label, item.group]))
        return path


def lung(data: Path, out: Path, pool: int) -> Task:
    """LC25000 lung: one tile of each of the first ``pool`` fields per class; tested on all of `val`."""
    fields: dict[tuple[str, str], Path] = {}
    for path in sorted((data / "tiles/he/train").glob("*/*.jpg")):
        fields.setdefault((path.parent.name, path.name[:4]), path)
    every = [Item(path, label, group) for (label, group), path in fields.items()]
    labels = sorted({item.label for item in every})
    kept = [item for label in labels for item in [i for i in every if i.label == label][:pool]]
    test = [Item(p, p.parent.name, p.name[:4]) for p in sorted((data / "tiles/he/val").glob("*/*.jpg"))]
    return Task("lung", "Lung H&E, three classes (LC25000)", kept, test, 224, (5, 10, 20, 40), True, 5)


def sites(data: Path, out: Path, pool: int) -> Task:
    """NEON: which of four sites? Two 192 px crops of each footprint; a site's last eight footprints are tested."""
    train: list[Item] = []
    test: list[Item] = []
    paths = sorted((data / "rasters/neon").glob("*.tif"))
    for site in sorted({path.name[:4] for path in paths}):
        own = [path for path in paths if path.name.startswith(site)]
        for path in own:
            part = test if path in own[-8:] else train
            part += [Item(crop, site, path.stem) for crop in _crops(path, out / "sites" / site, 192)]
    return Task("sites", "Aerial, four sites (NEON) by footprint", train, test, 192, (1, 2, 4, 8), True)


def green(data: Path, out: Path, pool: int) -> Task:
    """NAIP at 5 m/px, a scale the model never saw: green or bare? The label is the near-infrared band's word (the
    highest and the lowest third of NDVI), which the classifiers do not see. Every other block of 128 px is tested."""
    source = data / "rasters/naip_rgbn_5m.tif"
    with rasterio.open(source) as file:
        red, near, bare = file.read(1).astype(float), file.read(4).astype(float), file.read().max(0) == 0
    index = (near - red) / (near + red + 1e-6)
    places = [(r, c) for r in range(0, red.shape[0] - 63, 64) for c in range(0, red.shape[1] - 63, 64)]
    places = [(r, c) for r, c in places if bare[r : r + 64, c : c + 64].mean() < 0.01]
    values = np.array([index[r : r + 64, c : c + 64].mean() for r, c in places])
    low, high = np.quantile(values, (1 / 3, 2 / 3))
    train: list[Item] = []
    test: list[Item] = []
    for (r, c), value in zip(places, values, strict=True):
        if value < low or value > high:
            label = "green" if value > high else "bare"
            path = _cut(source, out / "green" / label / f"b{r // 128}x{c // 128}_{r}-{c}.png", r, c, 64)
            part = test if (r // 128 + c // 128) % 2 else train
            part.append(Item(path, label, f"b{r // 128}x{c // 128}"))
    return Task("green", "Transfer: satellite-like 5 m/px (NAIP), green or bare", train, test, 64, (1, 2, 4, 8), False)


def _crops(path: Path, folder: Path, side: int) -> Iterable[Path]:
    with rasterio.open(path) as file:
        rows, cols = file.shape
    for row, col in ((0, 0), (rows - side, cols - side)):
        yield _cut(path, folder / f"{path.stem}_{row}-{col}.png", row, col, side)


def _cut(source: Path, path: Path, row: int, col: int, side: int) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(source) as file:
            rgb = file.read((1, 2, 3), window=((row, row + side), (col, col + side)))
        Image.fromarray(np.moveaxis(rgb, 0, 2)).save(path)
    return path


def unseen(data: Path, out: Path, pool: int) -> Task:
    """LC25000 lung again, of fields the model never saw: the first twenty `val` fields of a class to draw from, the
    others to test on."""
    paths = sorted((data / "tiles/he/val").glob("*/*.jpg"))
    train: dict[tuple[str, str], Item] = {}
    test: list[Item] = []
    for label in sorted({path.parent.name for path in paths}):
        own = [Item(path, label, path.name[:4]) for path in paths if path.parent.name == label]
        first = set(sorted({item.group for item in own})[:20])
        train |= {(label, item.group): item for item in reversed(own) if item.group in first}
        test += [item for item in own if item.group not in first]
    title = "Transfer: lung H&E of fields the model never saw"
    return Task("unseen", title, sorted(train.values()), test, 224, (2, 4, 10), False, 2)


TASKS: dict[str, Callable[[Path, Path, int], Task]] = {"lung": lung, "sites": sites, "unseen": unseen, "green": green}
