"""A small classifier: a pretrained backbone with a new head, fine-tuned on a few labelled images.

Every training set gets the same number of steps, so a larger one is not trained longer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ssl_tilegen.encoders.module_encoder import NetworkEncoder, pool
from ssl_tilegen.system.device import fast_dtype

_TEST_BATCH = 256


@dataclass(frozen=True)
class ClassifierSettings:
    """``steps`` of ``batch`` images; ``lr`` of the head, the backbone has ``backbone_lr``; ``augment``: 'none',
    'flips' (flips and quarter turns) or 'full' (also shifts, scale and stain or light)."""

    steps: int = 120
    batch: int = 32
    lr: float = 2e-3
    backbone_lr: float = 3e-4
    weight_decay: float = 0.05
    augment: Literal["none", "flips", "full"] = "flips"


class EncoderBackbone(nn.Module):
    """An encoder's network as a backbone: images (N, 3, H, W) in [-1, 1], of the side that the network takes, get the
    encoder's own channel statistics; its tokens are pooled as the encoder pools them."""

    gain: Tensor
    shift: Tensor

    def __init__(self, encoder: NetworkEncoder) -> None:
        super().__init__()
        self.module, self.pooling = encoder.module, encoder.pooling
        mean, std = (torch.tensor(v, device=encoder.device).view(3, 1, 1) for v in encoder.normalisation)
        self.register_buffer("gain", 0.5 / std)
        self.register_buffer("shift", (0.5 - mean) / std)

    def forward(self, x: Tensor) -> Tensor:
        """The pooled vectors (N, D)."""
        return pool(self.module, x * self.gain + self.shift, self.pooling)


def fine_tuned(
    backbone: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    classes: int,
    seed: int,
    settings: ClassifierSettings = ClassifierSettings(),
    device: torch.device | str = "cpu",
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a copy of ``backbone`` and a head to uint8 (N, H, W, 3) and labels (N,); returns images -> (M, classes). The
    backbone gets them as (N, 3, H, W) in [-1, 1]."""
    device = torch.device(device)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    body = copy.deepcopy(backbone).to(device).requires_grad_(True).train()
    with torch.no_grad():
        width = body(torch.zeros(2, 3, *images.shape[1:3], device=device)).shape[1]
    head = nn.Linear(width, classes).to(device)
    nn.init.zeros_(head.weight)
    model = nn.Sequential(body, nn.LayerNorm(width, elementwise_affine=False).to(device), head)
    groups: list[dict[str, Any]] = [{"params": body.parameters(), "lr": settings.backbone_lr}]
    groups += [{"params": head.parameters()}]
    optimiser = torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [settings.backbone_lr, settings.lr], total_steps=settings.steps, pct_start=0.15
    )
    for index in _draws(labels, settings, rng):
        image = _augmented(_pixels(images[index], device), settings.augment, rng)
        with _autocast(device):
            said = model(image)
        loss = nn.functional.cross_entropy(
            said.float(), torch.from_numpy(labels[index]).long().to(device), label_smoothing=0.05
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return lambda tested: _predict(model.eval(), tested, device)


def _draws(labels: np.ndarray, settings: ClassifierSettings, rng: np.random.Generator) -> list[np.ndarray]:
    """Indices (batch,) of every step: classes equally often, each class's images in turn."""
    present = np.unique(labels)
    each = -(-settings.steps * settings.batch // len(present))
    turns = []
    for label in present:
        own = np.flatnonzero(labels == label)
        turns.append(np.concatenate([rng.permutation(own) for _ in range(-(-each // len(own)))])[:each])
    order = np.stack(turns, axis=1).ravel()
    return np.array_split(order[: settings.steps * settings.batch], settings.steps)


def _pixels(images: np.ndarray, device: torch.device) -> Tensor:
    pixels = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def _augmented(x: Tensor, kind: str, rng: np.random.Generator) -> Tensor:
    """(N, 3, H, W) in [-1, 1], changed image by image."""
    if kind == "none":
        return x
    square = x.shape[2] == x.shape[3]
    apply_d4 = [torch.rot90(p, int(rng.integers(4)) if square else 2 * int(rng.integers(2)), (1, 2)) for p in x]
    x = torch.stack([p.flip(2) if rng.random() < 0.5 else p for p in apply_d4])
    if kind == "full":
        x = _placed(x, rng)
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(x), 3, 1, 1)).astype(np.float32)).to(x.device)
        shift = torch.from_numpy(rng.uniform(-0.12, 0.12, (len(x), 3, 1, 1)).astype(np.float32)).to(x.device)
        x = ((x + 1) * gain - 1 + shift).clamp(-1, 1)
    return x


def _placed(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Every image shifted by up to a tenth and scaled by up to a fifth, mirrored at its border."""
    scale = rng.uniform(0.8, 1.2, len(x))
    theta = np.zeros((len(x), 2, 3), np.float32)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = rng.uniform(-0.2, 0.2, (len(x), 2))
    grid = nn.functional.affine_grid(torch.from_numpy(theta).to(x.device), list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


@torch.no_grad()
def _predict(model: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    said = []
    for start in range(0, len(images), _TEST_BATCH):
        with _autocast(device):
            said.append(model(_pixels(images[start : start + _TEST_BATCH], device)).float().softmax(1).cpu())
    return torch.cat(said).numpy()


def _autocast(device: torch.device) -> Any:
    kind = fast_dtype(device)
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)
