"""A tiny model bundle with random weights, built through the public interface."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from ssl_tilegen.bundle import SCHEDULER, BundleInfo, EncoderInfo, save_component, write_info
from ssl_tilegen.nets import build_encoder

TILE_PX, DIM = 64, 16
ARGS = {"patch_size": 16, "depth": 1, "embed_dim": 48, "num_heads": 3}


def encoder_bundle(folder: Path, seed: int = 0) -> Path:
    """A bundle that can embed (it has no autoencoder and no denoiser), trained "at" 0.5 um/px and 0.15 m/px."""
    torch.manual_seed(seed)
    module = build_encoder("vit_tiny_patch16_224", TILE_PX, DIM, ARGS)
    config = {"arch": "vit_tiny_patch16_224", "tile_px": TILE_PX, "dim": DIM, "arch_args": ARGS}
    save_component(module, folder / "encoder", config)
    facts = EncoderInfo(id=f"stub-{seed}", tile_px=TILE_PX, dim=DIM)
    resolutions: dict[str, tuple[float, Literal["um", "m"]]] = {"he": (0.5, "um"), "aerial": (0.15, "m")}
    write_info(folder, BundleInfo(name="stub", encoder=facts, resolutions=resolutions), SCHEDULER)
    return folder
