"""Write the table that the prior of models/tiny learns from: path, label, captions, region of every training image.

    python examples/train_tiny/prior_table.py ../shared/data prior.csv

Captions come from wordings of each label (../text/wordings.json; its held-out wordings are not used), the place where
there is one, and what is measured in the pixels: stained nuclei, empty space, green, bare or built ground. What stays
unseen for measuring (tiles/he/val, oam_area3.tif, neon_bart.tif) is not in the table.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.geometry import Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.view import view_at

WORDINGS = Path(__file__).parents[1] / "text" / "wordings.json"
REGION_PX, STEP_PX, THUMB = 640, 512, 4
CAPTIONS = 24
HE = {"benign": "benign lung", "adenocarcinoma": "lung adenocarcinoma", "squamous": "lung squamous carcinoma"}
NEON = {"HARV": "forest", "TEAK": "mountain forest", "OSBS": "pine woodland", "SJER": "savanna"}
RASTERS = {"oam_area1_half.tif": "village", "oam_area4_a.tif": "coastal village", "oam_area4_b.tif": "coastal village",
           "oam_sample2_rgba.tif": "town", "more/oam_area1b_half.tif": "village",
           "more/oam_sample2b_rgba.tif": "town"}  # fmt: skip
LEVELS = {
    "nuclei": ["few nuclei", "a moderate number of nuclei", "densely packed nuclei"],
    "space": ["hardly any empty space", "some empty space", "wide empty spaces"],
    "stain": ["pale staining", "pink staining", "deep purple staining"],
    "green": ["hardly any green", "some green", "mostly green"],
    "rough": ["smooth open ground", "a mixed texture", "many small structures"],
    "light": ["dark", "evenly lit", "bright"],
}
FRAMES = ["{0}", "{0}, {1}", "{0} with {1}", "{0}; {1}, {2}", "{1}: {0}", "an image of {0}, {1}"]


def main(data: Path, out: Path) -> None:
    rows = [*tiles(data), *neon(data), *rasters(data), *photos(data), *slides(data)]
    measured: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row["measured"].items():
            measured.setdefault(f"{row['domain']} {name}", []).append(value)
    wordings, rng = json.loads(WORDINGS.read_text()), np.random.default_rng(0)
    fields = ("path", "label", "caption", "group", "domain", "region", "shrink", "mpp", "gsd", "turns")
    with out.open("w", newline="") as file:
        table = csv.DictWriter(file, fields, extrasaction="ignore")
        table.writeheader()
        for row in rows:
            told = captions(row, measured, wordings[row["label"]]["train"], rng)
            table.writerow(row | {"path": str(row["path"].absolute()), "caption": " | ".join(told)})
    print(f"{out}: {len(rows)} rows, {len({row['label'] for row in rows})} labels")


def captions(row: dict[str, Any], measured: dict[str, list[float]], names: list[str], rng: Any) -> list[str]:
    """Wordings of what a row shows: a name of its label, and one or two measured facts in words."""
    facts = []
    for name, value in row["measured"].items():
        low, high = np.quantile(measured[f"{row['domain']} {name}"], [1 / 3, 2 / 3])
        facts.append(LEVELS[name][int(value > low) + int(value > high)])
    told = []
    for _ in range(CAPTIONS):
        first, second = rng.permutation(facts)[:2]
        told.append(str(rng.choice(FRAMES)).format(rng.choice(names), first, second))
    return sorted(set(told))


def tiles(data: Path) -> Iterator[dict[str, Any]]:
    for folder, label in HE.items():
        for path in sorted((data / "tiles/he/train" / folder).glob("*.jpg")):
            group = f"{folder}-{path.stem.split('_')[0]}"
            yield {"path": path, "label": label, "group": group, "domain": "he", "mpp": 0.499, "turns": 1,
                   "measured": of_tissue(pixels(path, mpp=0.499))}  # fmt: skip


def neon(data: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((data / "rasters/neon").glob("*.tif")):
        yield {"path": path, "label": NEON[path.name[:4]], "group": path.stem, "domain": "aerial", "turns": 8,
               "measured": of_ground(pixels(path))}  # fmt: skip


def rasters(data: Path) -> Iterator[dict[str, Any]]:
    for name, label in RASTERS.items():
        yield from parts(data / "rasters" / name, {"label": label, "domain": "aerial", "turns": 8}, of_ground)


def photos(data: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((data / "photos").glob("*.JPG")):
        yield from parts(path, {"label": "shore", "domain": "aerial", "gsd": 0.05, "shrink": 2, "turns": 8}, of_ground)


def slides(data: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((data / "slides").glob("*.svs")):
        yield from parts(path, {"label": "skin", "domain": "he", "turns": 8}, of_tissue)


def parts(path: Path, facts: dict[str, Any], measure: Any) -> Iterator[dict[str, Any]]:
    """Overlapping regions of a large image."""
    known = {key: facts[key] for key in ("mpp", "gsd") if key in facts}
    rgb = pixels(path, shrink=facts.get("shrink", 1), **known)
    rows, cols = rgb.shape[:2]
    for y in starts(rows):
        for x in starts(cols):
            part = rgb[y : y + REGION_PX, x : x + REGION_PX]
            region = f"{x},{y},{part.shape[1]},{part.shape[0]}"
            yield facts | {"path": path, "group": path.stem, "region": region, "measured": measure(part)}


def starts(length: int) -> list[int]:
    return sorted({min(start, max(0, length - REGION_PX)) for start in range(0, max(1, length - 128), STEP_PX)})


def pixels(path: Path, shrink: int = 1, **known: float) -> np.ndarray:
    """All of an image as a prior is trained on it: uint8 (H, W, 3)."""
    with open_raster(path, **known) as raster:
        assert raster.resolution is not None
        view = view_at(raster, type(raster.resolution)(raster.resolution.value * shrink, raster.resolution.unit))
        return view.read(Window.of(view.size)).rgb


def of_tissue(rgb: np.ndarray) -> dict[str, float]:
    r, g, b = small(rgb)
    return {
        "nuclei": float(((r < 135) & (b > r) & (g < 110)).mean()),
        "space": float((g > 200).mean()),
        "stain": float(255 - np.minimum(r, b).mean()),
    }


def of_ground(rgb: np.ndarray) -> dict[str, float]:
    r, g, b = small(rgb)
    grey = (r + g + b) / 3
    return {
        "green": float(((g > 1.05 * r) & (g > 1.05 * b)).mean()),
        "rough": float(np.abs(np.diff(grey, axis=0)).mean()),
        "light": float(grey.mean()),
    }


def small(rgb: np.ndarray) -> np.ndarray:
    rows, cols = (length // THUMB * THUMB for length in rgb.shape[:2])
    blocks = rgb[:rows, :cols].reshape(rows // THUMB, THUMB, cols // THUMB, THUMB, 3)
    return blocks.mean((1, 3)).transpose(2, 0, 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
