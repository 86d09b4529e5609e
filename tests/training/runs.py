"""Small training runs for tests: configurations on images drawn here, and the training of them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssl_tilegen.training.data.latent_cache import LatentScene, SceneOrigin
from ssl_tilegen.workflows.train import train

DATA = '[data]\n[[data.sources]]\npaths = ["*.png"]\nmpp = 0.5\nturns = 2\n'
RUN = '[run]\nsteps = 4\nbatch = 4\nlog_every = 1\nsave_every = 2\nsample_every = 4\nwarmup = 2\nprecision = "no"\n'
ENCODER = (
    "tile_px = 32\nfeatures = 12\ndim = 12\nlayout_dim = 6\nlocal_px = 16\nfit_tiles = 200\n"
    "[arch_args]\npatch_size = 8\ndepth = 1\nembed_dim = 24\nnum_heads = 2\n"
)
DINO = 'loss = "dino"\nprototypes = 32\nhead_width = 32\n' + ENCODER
AUTOENCODER = (
    "window_px = 32\n[net]\nlatent_channels = 4\nfine_width = 16\nencoder_width = 16\ndecoder_width = 16\n"
    "encoder_blocks = 1\ndecoder_blocks = 1\ndecoder_fine_blocks = 1\n"
)
DENOISER = (
    "window_lat = 8\nmargin_lat = 1\n"
    "[net]\nwidths = [16, 16, 32]\ndown_blocks = [1, 1, 1]\nup_blocks = [1, 1]\nhidden = 16\n"
)
TEXTS = {"encoder": ENCODER, "autoencoder": AUTOENCODER, "denoiser": DENOISER}


def draw_images(folder: Path, count: int = 3) -> None:
    """Images with some structure, as PNG."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 255, (20, 20, 3), np.uint8)
        Image.fromarray(coarse).resize((160, 136), Image.Resampling.BICUBIC).save(folder / f"p{number}.png")


def write_config(folder: Path, stage: str, text: str | None = None, name: str = "", data: str = DATA) -> Path:
    """The configuration of a small run of ``stage``."""
    path = folder / f"{name or stage}.toml"
    path.write_text(f"{text or TEXTS[stage]}{RUN}{data}")
    return path


def losses(folder: Path) -> list[float]:
    """The losses in a run's log."""
    records: list[dict[str, Any]] = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def main(out: Path, configs: list[Path], backend: str = "inductor") -> None:
    """Train what each configuration says; ``backend`` is what compiles networks where one wants that."""
    if backend != "inductor":
        torch.compile = functools.partial(torch.compile, backend=backend)
    for config in configs:
        train(config.stem.split("-")[0], config, out / config.stem if "-" in config.stem else out, device="cpu")


def scene(image: int, chance: float) -> LatentScene:
    """A scene without content, of an image of the corpus."""
    nothing = np.zeros((2, 2), bool)
    return LatentScene(
        np.zeros((1, 2, 2), np.float16), nothing, ~nothing, [], SceneOrigin(image, 0, 0, 0, 16, 16), chance
    )
