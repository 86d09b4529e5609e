"""How well an encoder tells labelled images apart: a linear probe and nearest neighbours, as validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssl_tilegen.config.train import ProbeSettings
from ssl_tilegen.errors import InputError
from ssl_tilegen.io.image_files import PLAIN_SUFFIXES
from ssl_tilegen.metrics.probes import knn_probe, linear_probe, scores
from ssl_tilegen.training.data.corpus import to_signed

_SUFFIXES = PLAIN_SUFFIXES | {".tif", ".tiff"}
_BATCH = 512


@dataclass(frozen=True, eq=False)
class Probe:
    """Tiles (N, T, S, S, 3) uint8 of N images and their labels (N,), to learn from and to be tested on."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int

    def scores(self, net: Any, device: torch.device) -> dict[str, float]:
        """Balanced accuracies of images, each embedded as the mean of its tiles."""
        (x, y), (test, labels) = ((_embedded(net, tiles, device), labels) for tiles, labels in (self.train, self.test))
        return {
            "linear_probe": round(scores(linear_probe(x, y, test, self.classes), labels).balanced, 4),
            "knn_probe": round(scores(knn_probe(x, y, test, self.classes), labels).balanced, 4),
        }


def load_probe(settings: ProbeSettings, tile_px: int) -> Probe:
    """The images of two folders with one subfolder per class. InputError where they do not fit."""
    classes = sorted(p.name for p in Path(settings.train).glob("*") if p.is_dir())
    if len(classes) < 2:
        raise InputError(f"probe.train {settings.train}: needs a subfolder for each of two classes or more")
    train, test = (_read(Path(f), classes, settings.per_class, tile_px) for f in (settings.train, settings.test))
    return Probe(train, test, len(classes))


def _read(folder: Path, classes: list[str], per_class: int, tile_px: int) -> tuple[np.ndarray, np.ndarray]:
    """As many images of each class, spread evenly over the sorted names."""
    tiles, labels = [], []
    for label, name in enumerate(classes):
        files = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in _SUFFIXES)
        if not files:
            raise InputError(f"probe: no image of '{name}' in {folder}; it needs the classes {', '.join(classes)}")
        for path in files[:: max(1, -(-len(files) // per_class))]:
            tiles.append(_tiles(path, tile_px))
            labels.append(label)
    fewest = min(map(len, tiles))
    return np.stack([t[:: max(1, len(t) // fewest)][:fewest] for t in tiles]), np.array(labels)


def _tiles(path: Path, tile_px: int) -> np.ndarray:
    """The whole tiles (T, S, S, 3) of an image, at most 16 of them."""
    with Image.open(path) as image:
        rgb = np.asarray(image.convert("RGB"))
    rows, cols = (min(4, length // tile_px) for length in rgb.shape[:2])
    if not rows or not cols:
        raise InputError(f"probe: {path} is smaller than a tile of {tile_px} px")
    part = rgb[: rows * tile_px, : cols * tile_px].reshape(rows, tile_px, cols, tile_px, 3)
    return part.swapaxes(1, 2).reshape(-1, tile_px, tile_px, 3)


@torch.no_grad()
def _embedded(net: Any, tiles: np.ndarray, device: torch.device) -> np.ndarray:
    flat = tiles.reshape(-1, *tiles.shape[2:])
    parts = [flat[i : i + _BATCH] for i in range(0, len(flat), _BATCH)]
    vectors = [net(torch.from_numpy(to_signed(part)).to(device)).float().cpu() for part in parts]
    return torch.cat(vectors).numpy().reshape(*tiles.shape[:2], -1).mean(1)
