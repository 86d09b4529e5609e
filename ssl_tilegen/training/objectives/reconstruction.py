"""One call for every kind of autoencoder: ours, diffusers' AutoencoderKL and VQModel."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_tilegen.nets.autoencoder import LinearStartAutoencoder


class Reconstruction(NamedTuple):
    """``image`` (N, 3, H, W) in about [-1, 1]; ``prior``: the cost of the latents (a divergence, or a commitment)."""

    image: Tensor
    prior: Tensor


def reconstruct(module: Any, image: Tensor, noise: Tensor | None, *, frozen: bool = False) -> Reconstruction:
    """Encode and decode (N, 3, H, W) in [-1, 1]; ``noise`` (N, C, h, w) draws from the posterior, None is its mean.

    ``frozen``: the encoder does not learn, so it keeps nothing for a backward pass.
    """
    with torch.no_grad() if frozen else nullcontext():
        latents, prior = _latents(module, image, noise)
    if hasattr(module, "quantize"):
        decoded = module.decode(latents)
        return Reconstruction(decoded.sample, decoded.commit_loss.mean())
    decoded = module.decode(latents)
    return Reconstruction(getattr(decoded, "sample", decoded), prior)


def _latents(module: Any, image: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """Latents, and their divergence from a normal distribution (none for codes, which decoding commits to)."""
    if hasattr(module, "quantize"):
        return module.encode(image).latents, image.new_zeros(())
    mean, logvar = _moments(module, image)
    latents = mean if noise is None else mean + noise * (0.5 * logvar).exp()
    return latents, 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def _moments(module: Any, image: Tensor) -> tuple[Tensor, Tensor]:
    if hasattr(module, "moments_of"):
        return module.moments_of(image)
    posterior = module.encode(image).latent_dist
    return posterior.mean, posterior.logvar


def latent_side(module: Any, side_px: int) -> int:
    """Latents along a side of an image."""
    return side_px // downscale(module)


def downscale(module: Any) -> int:
    """Pixels per latent."""
    if isinstance(module, LinearStartAutoencoder):
        return module.factor
    return 2 ** (len(module.config.block_out_channels) - 1)


def gradient_difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical gradients."""
    error = a - b
    return error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()


def opponent_colours(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 2, H, W): red less green, and yellow less blue, which lightness leaves alone."""
    red, green, blue = images.unbind(1)
    return torch.stack([(red - green) / 2, (red + green) / 4 - blue / 2], 1)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB per image, for (N, 3, H, W) in [-1, 1]."""
    return 10 * torch.log10(4 / (a.clamp(-1, 1) - b).square().flatten(1).mean(1).clamp(min=1e-10))
