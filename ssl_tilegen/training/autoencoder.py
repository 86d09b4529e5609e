"""Stage `autoencoder`: L1 + gradient + KL on random crops, from a principal-component start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_tilegen.nets.autoencoder import FACTOR, LinearStartAutoencoder
from ssl_tilegen.training.data import Corpus, to_signed
from ssl_tilegen.training.batches import Batch
from ssl_tilegen.training.settings import AutoencoderSettings

_START_CROPS = 600
_SHOWN = 6


class AutoencoderStage:
    """Trains LinearStartAutoencoder on windows of the corpus."""

    def __init__(self, settings: AutoencoderSettings, corpus: Corpus) -> None:
        self.settings, self.corpus = settings, corpus
        torch.manual_seed(settings.run.seed)
        self.module = LinearStartAutoencoder(**settings.net)
        self.module.start_from_blocks(self._blocks())
        shown = np.random.default_rng([settings.run.seed, 1])
        self._fixed = np.stack([corpus.crop(shown, settings.window_px) for _ in range(_SHOWN)])

    def _blocks(self) -> Tensor:
        rng = np.random.default_rng([self.settings.run.seed, 0])
        crops = torch.from_numpy(to_signed(np.stack([self.corpus.crop(rng, 64) for _ in range(_START_CROPS)])))
        return crops.unfold(2, FACTOR, FACTOR).unfold(3, FACTOR, FACTOR).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)

    def item(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        side, latents = self.settings.window_px, self.settings.window_px // FACTOR
        noise = rng.standard_normal((self.module.config.latent_channels, latents, latents), np.float32)
        return {"image": to_signed(self.corpus.crop(rng, side)), "noise": noise}

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        image = batch["image"]
        mean, logvar = module.moments_of(image)
        restored = module.decode(mean + batch["noise"] * (0.5 * logvar).exp())
        pixel = (restored - image).abs().mean()
        edge = gradient_difference(restored, image)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = pixel + self.settings.gradient_weight * edge + self.settings.kl_weight * kl
        with torch.no_grad():
            parts = {"l1": pixel.detach(), "kl": kl.detach(), "psnr": psnr(restored, image).mean()}
        return loss, parts

    @torch.no_grad()
    def sample(self, module: Any, path: Path) -> dict[str, float]:
        device = next(module.parameters()).device
        image = torch.from_numpy(to_signed(self._fixed)).to(device)
        restored = module.decode(module.encode(image)).clamp(-1, 1)
        strip = torch.cat([image, restored], 2).movedim(0, 2).flatten(2, 3)
        pixels = ((strip + 1) * 127.5).round().clamp(0, 255).byte().movedim(0, -1).cpu().numpy()
        Image.fromarray(pixels).save(path)
        return {"fixed_psnr": round(float(psnr(restored, image).mean()), 3)}


def gradient_difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical gradients."""
    error = a - b
    return error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB per image, for (N, 3, H, W) in [-1, 1]."""
    return 10 * torch.log10(4 / (a.clamp(-1, 1) - b).square().flatten(1).mean(1).clamp(min=1e-10))
