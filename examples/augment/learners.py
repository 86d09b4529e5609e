"""What the study trains: linear probes on three kinds of features, and a small network from scratch on pixels.

A learner is ``learn(ordinary, train, test_x, classes, seed)`` -> probabilities (M, C); ``ordinary``: with ordinary
augmentation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tasks import Item, Task, digest
from torch import nn

from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.metrics.probes import linear_probe
from ssl_tilegen.metrics.usefulness import LabelledSet
from ssl_tilegen.training.classifier import ClassifierSettings, fine_tuned
from ssl_tilegen.workflows.augment.inputs import read_pixels
from ssl_tilegen.workflows.evaluate.features import describe_windows

Learner = Callable[[bool, LabelledSet, np.ndarray, int, int], np.ndarray]
VIEWS = 2
LIGHT = {"turned": (0.0, 0.0), "mild": (0.04, 4.0)}
"""Ordinary augmentation: quarter turns and mirrors always; gain and shift of light and stain up to so much."""
NET_PX = 64
NET = ClassifierSettings(steps=150, batch=16, lr=5e-3, backbone_lr=5e-3)
_AT_ONCE = 64


def probe(ordinary: bool, train: LabelledSet, test: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Softmax regression over features (N, V, D): of the images alone (view 0), or of their views too."""
    used = train.x if ordinary else train.x[:, :1]
    return linear_probe(used.reshape(-1, used.shape[2]), np.repeat(train.y, used.shape[1]), test[:, 0], classes)


def network(kind: str, cache: Path) -> Learner:
    """A small convolutional network from scratch over pixels (N, S, S, 3); ``kind`` of its ordinary augmentation.

    What it said is kept in ``cache`` by the pixels, labels and settings that it came from.
    """

    def learn(ordinary: bool, train: LabelledSet, test: np.ndarray, classes: int, seed: int) -> np.ndarray:
        augment = "none" if not ordinary else "flips" if kind == "turned" else "full"
        settings = replace(NET, augment=augment)
        mark = hashlib.sha256(repr((settings, classes, seed, train.x.shape)).encode())
        for array in (train.x, train.y, test):
            mark.update(np.ascontiguousarray(array).data)
        path = cache / f"network-{mark.hexdigest()[:16]}.npy"
        if not path.exists():
            torch.manual_seed(seed)
            said = fine_tuned(convnet(), train.x, train.y, classes, seed, settings)(test)
            part = path.with_name(f".{path.name}")
            np.save(part, said)
            part.replace(path)
        return np.asarray(np.load(path))

    return learn


def convnet(widths: Sequence[int] = (24, 48), patch_px: int = 4) -> nn.Module:
    """(N, 3, H, W) -> (N, widths[-1]): patches of ``patch_px``, a 3 x 3 layer, and for every further width a halving of
    the sides and a 3 x 3 layer."""
    layers: list[nn.Module] = []
    before = 3
    for width in widths:
        first = nn.Conv2d(3, width, patch_px, stride=patch_px) if before == 3 else nn.Conv2d(before, width, 3, 2, 1)
        for layer in (first, nn.Conv2d(width, width, 3, padding=1)):
            layers += [layer, nn.GroupNorm(8, width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def features(task: Task, items: Sequence[Item], kind: str | None, encoder: Encoder, cache: Path) -> LabelledSet:
    """Features (N, 1 + VIEWS, D) of images and their views of ``kind`` (None: (N, 1, D), of the images alone), kept
    in ``cache``."""
    x = [_kept(task, items, each, encoder, cache) for each in dict.fromkeys((None, kind))]
    return labelled(task, items, np.concatenate(x, axis=1))


def _kept(task: Task, items: Sequence[Item], kind: str | None, encoder: Encoder, cache: Path) -> np.ndarray:
    path = cache / f"{task.name}-{digest(items)}-{kind or 'plain'}-{encoder.weights_sha256[:8]}.npz"
    if not path.exists():
        parts = [_described(items[i : i + _AT_ONCE], i, kind, encoder) for i in range(0, len(items), _AT_ONCE)]
        part = path.with_name(f".{path.name}")
        np.savez(part, x=np.concatenate(parts).astype(np.float32))
        part.replace(path)
    return np.asarray(np.load(path)["x"])


def pixels(task: Task, items: Sequence[Item]) -> LabelledSet:
    """Pictures (N, S, S, 3), `NET_PX` wide."""
    small = [Image.fromarray(read_pixels(item.path)).resize((NET_PX, NET_PX), Image.Resampling.BOX) for item in items]
    return labelled(task, items, np.stack([np.asarray(picture) for picture in small]))


def labelled(task: Task, items: Sequence[Item], x: np.ndarray) -> LabelledSet:
    """With blocks as groups where groups are drawn, and with their own groups where they are tested."""
    names, blocks = sorted({item.label for item in task.train}), task.blocks()
    labels = np.array([names.index(item.label) for item in items])
    groups = [f"{item.label}/{blocks.get((item.label, item.group), item.group)}" for item in items]
    return LabelledSet(x, labels, np.array(groups))


def _described(items: Sequence[Item], first: int, kind: str | None, encoder: Encoder) -> np.ndarray:
    views = np.stack([_views(read_pixels(item.path), kind, first + i) for i, item in enumerate(items)])
    return np.stack([describe_windows(encoder, views[:, v]) for v in range(views.shape[1])], axis=1)


def _views(rgb: np.ndarray, kind: str | None, seed: int) -> np.ndarray:
    """An image (H, W, 3) as it is, or VIEWS of it that are turned, mirrored, and changed in light and stain."""
    if kind is None:
        return rgb[None]
    rng, views = np.random.default_rng(seed), []
    for _ in range(VIEWS):
        view = np.rot90(rgb, int(rng.integers(4)))
        view = view[:, ::-1] if rng.random() < 0.5 else view
        gain, shift = LIGHT[kind]
        changed = view * (1 + rng.uniform(-gain, gain, 3)) + rng.uniform(-shift, shift, 3)
        views.append(changed.clip(0, 255).astype(np.uint8))
    return np.stack(views)
