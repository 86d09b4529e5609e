"""The tasks of the study: labelled images as `augment` takes them (a CSV), and images to test on."""

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
    """A labelled image and the field, footprint or block it belongs to."""

    path: Path
    label: str
    group: str


Parts = tuple[list[Item], list[Item], list[Item]]  # to train on, held out, to test on


def digest(items: Sequence[Item]) -> str:
    """A mark that says which images these are."""
    return hashlib.sha256("\n".join(str(item) for item in items).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Task:
    """``train`` (draws are made of it), ``held`` (recipes are chosen on it) and ``test`` share no group; ``side_px``:
    of an image; ``counts``: how many groups per class are drawn; ``seen``: whether the built-in model was trained on
    these images or their like; ``recipes`` (names of study.py's) are chosen from, and ``scale`` images are made of
    each.

    Groups are drawn by blocks of ``block``, and `augment` mixes within a block alone (it is the CSV's split), so that
    no synthetic image knows of a group that its draw has not.
    """

    name: str
    title: str
    train: list[Item]
    held: list[Item]
    test: list[Item]
    side_px: int
    counts: tuple[int, ...]
    seen: bool
    block: int = 1
    recipes: tuple[str, ...] = ("light",)
    scale: int = 2

    def blocks(self) -> dict[tuple[str, str], str]:
        """(label, group) -> the block that it is in."""
        found: dict[tuple[str, str], str] = {}
        for label in sorted({item.label for item in self.train}):
            own = sorted({item.group for item in self.train if item.label == label})
            found |= {(label, group): f"{index // self.block:03d}" for index, group in enumerate(own)}
        return found

    def csv(self, out: Path) -> Path:
        """The training images as the CSV that `augment` takes."""
        path, blocks = out / f"{self.name}-{digest(self.train)}.csv", self.blocks()
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("path", "label", "group", "split"))
            for item in self.train:
                table.writerow((item.path.absolute(), item.label, item.group, blocks[item.label, item.group]))
        return path


def lung(data: Path, out: Path, pool: int) -> Task:
    """LC25000 lung: one tile of each of the first ``pool`` fields per class, the next forty held out; tested on all of
    `val`."""
    fields: dict[tuple[str, str], Path] = {}
    for path in sorted((data / "tiles/he/train").glob("*/*.jpg")):
        fields.setdefault((path.parent.name, path.name[:4]), path)
    every = [Item(path, label, group) for (label, group), path in fields.items()]
    labels = sorted({item.label for item in every})
    own = {label: [item for item in every if item.label == label] for label in labels}
    kept = [item for label in labels for item in own[label][:pool]]
    held = [item for label in labels for item in own[label][pool : pool + 40]]
    test = [Item(p, p.parent.name, p.name[:4]) for p in sorted((data / "tiles/he/val").glob("*/*.jpg"))]
    title, counts = "Lung H&E, three classes (LC25000)", (5, 10, 20, 40)
    return Task("lung", title, kept, held, test, 224, counts, True, 5, ("fresh",))


def sites(data: Path, out: Path, pool: int) -> Task:
    """NEON: which of four sites? Two 192 px crops of each footprint; a site's last eight footprints are tested, the
    four before them held out."""
    train: list[Item] = []
    held: list[Item] = []
    test: list[Item] = []
    paths = sorted((data / "rasters/neon").glob("*.tif"))
    for site in sorted({path.name[:4] for path in paths}):
        own = [path for path in paths if path.name.startswith(site)]
        for path in own:
            part = test if path in own[-8:] else held if path in own[-12:-8] else train
            part += [Item(crop, site, path.stem) for crop in _crops(path, out / "sites" / site, 192)]
    return Task("sites", "Aerial, four sites (NEON) by footprint", train, held, test, 192, (2, 4, 6), True, 2)


def green(data: Path, out: Path, pool: int) -> Task:
    """NAIP at 5 m/px, a scale the model never saw: green or bare? The label is the near-infrared band's word (the
    highest and the lowest third of NDVI), which the classifiers do not see. Images lie
    within blocks of 128 px; every other block is tested, a third of the rest held out."""
    source = data / "rasters/naip_rgbn_5m.tif"
    with rasterio.open(source) as file:
        red, near, bare = file.read(1).astype(float), file.read(4).astype(float), file.read().max(0) == 0
    index = (near - red) / (near + red + 1e-6)
    places = [(r, c) for r in range(0, red.shape[0] - 63, 32) for c in range(0, red.shape[1] - 63, 32)]
    places = [(r, c) for r, c in places if r % 128 <= 64 and c % 128 <= 64 and not bare[r : r + 64, c : c + 64].any()]
    values = np.array([index[r : r + 64, c : c + 64].mean() for r, c in places])
    low, high = np.quantile(values, (1 / 3, 2 / 3))
    parts: Parts = ([], [], [])
    for (r, c), value in zip(places, values, strict=True):
        if value < low or value > high:
            label, row, col = "green" if value > high else "bare", r // 128, c // 128
            path = _cut(source, out / "green" / label / f"b{row}x{col}_{r}-{c}.png", r, c, 64)
            which = 2 if (row + col) % 2 else 1 if (row + col) % 6 == 4 else 0
            parts[which].append(Item(path, label, f"b{row}x{col}"))
    return Task("green", "Aerial at 5 m/px (NAIP), green or bare", *parts, 64, (2, 4), False, 2, ("blend",))


BUILT = {  # columns of windows; one between two parts is left out, so that parts do not touch
    "oam_area1_half.tif": ((0, 9), (10, 14), (15, 21)),
    "oam_sample2_rgba.tif": ((0, 7), (8, 11), (12, 16)),
    "oam_area4_a.tif": ((0, 0), (0, 5), (0, 0)),
    "oam_area4_b.tif": ((0, 0), (0, 0), (0, 10)),
    "oam_area3.tif": ((0, 0), (0, 0), (0, 10)),
}


def built(data: Path, out: Path, pool: int) -> Task:
    """OpenAerialMap: roofs or none? Windows of 192 px labelled by eye (built.csv: roofs cover a sixth or more; or there
    is none: trees, open ground, or both; windows between are left out). Groups are blocks of two by two windows; parts
    are strips of ground that do not touch; `oam_area3` is a town that nothing was ever trained on."""
    parts: Parts = ([], [], [])
    with Path(__file__).with_name("built.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for each in rows:
        name, row, col = each["file"], int(each["row"]), int(each["col"])
        label = "built" if each["label"] == "built" else "empty"
        for part, (first, end) in zip(parts, BUILT[name], strict=True):
            if first <= col < end:
                stem, source = Path(name).stem, data / "rasters" / name
                path = _cut(source, out / "built" / label / f"{stem}_{row}-{col}.png", row * 192, col * 192, 192)
                part.append(Item(path, label, f"{stem}_b{row // 2}x{(col - first) // 2}"))
    return Task("built", "Aerial, roofs or none (OpenAerialMap)", *parts, 192, (2, 4, 8), True, 2, ("blend",), 4)


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


TASKS: dict[str, Callable[[Path, Path, int], Task]] = {"lung": lung, "sites": sites, "built": built, "green": green}
