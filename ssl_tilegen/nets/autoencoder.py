"""A KL autoencoder that starts from the best linear one.

Analysis and synthesis of 8 x 8 px blocks are a linear map, initialised with the principal components of the training
blocks. They are the optimum among linear maps, so training starts at 28 to 32 dB instead of at noise. Small residual
convolutions on both sides learn the rest. All of it is local: ``decoder_halo`` latents of margin make
a decoded piece equal to the same piece of the whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_tilegen.nets.configurable import ConfigurableNetwork, register_to_config
from ssl_tilegen.nets.layers import PlainBlock, zeroed

FACTOR = 8
_LOGVAR_RANGE = (-14.0, 4.0)
_FROM_LATENTS = ("synthesis.0.weight", "decoder.0.weight")
_TO_LATENTS = ("analysis.1.weight", "analysis.1.bias")
_TO_MOMENTS = ("moments.weight", "moments.bias")


class LinearStartAutoencoder(ConfigurableNetwork):
    """KL autoencoder (Kingma & Welling 2014; Rombach et al. 2022) with 8x downscale and a principal-component start.

    Images are (N, 3, H, W) in [-1, 1] with H and W multiples of 8; latents are (N, C, H/8, W/8).
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        fine_width: int = 64,
        encoder_width: int = 128,
        encoder_blocks: int = 2,
        decoder_width: int = 160,
        decoder_blocks: int = 3,
        decoder_fine_blocks: int = 2,
    ) -> None:
        super().__init__()
        c = self.latent_channels = latent_channels
        self._encoder_reach = 2 + 2 * encoder_blocks
        self._decoder_reach = (2 + 2 * decoder_blocks, 2 * decoder_fine_blocks + 1)
        self.analysis: Any = nn.Sequential(nn.PixelUnshuffle(FACTOR), nn.Conv2d(3 * FACTOR**2, c, 1))
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, fine_width, 3, padding=1),
            PlainBlock(fine_width),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * fine_width, encoder_width, 1),
            *[PlainBlock(encoder_width) for _ in range(encoder_blocks)],
            nn.SiLU(),
        )
        self.moments: Any = zeroed(nn.Conv2d(encoder_width, 2 * c, 1))
        self.synthesis: Any = nn.Sequential(nn.Conv2d(c, 3 * FACTOR**2, 1), nn.PixelShuffle(FACTOR))
        self.decoder = nn.Sequential(
            nn.Conv2d(c, decoder_width, 3, padding=1),
            *[PlainBlock(decoder_width) for _ in range(decoder_blocks)],
            nn.Conv2d(decoder_width, 4 * fine_width, 3, padding=1),
            nn.PixelShuffle(2),
            *[PlainBlock(fine_width) for _ in range(decoder_fine_blocks)],
            nn.SiLU(),
        )
        self.to_pixels = zeroed(nn.Conv2d(fine_width, 48, 3, padding=1))
        self.shuffle = nn.PixelShuffle(4)
        nn.init.constant_(self.moments.bias[c:], -6.0)  # type: ignore[index]

    @property
    def factor(self) -> int:
        """Pixels per latent on each axis."""
        return FACTOR

    @property
    def decoder_halo(self) -> int:
        """Latents of context to each side that make a decoded piece exact."""
        coarse, fine = self._decoder_reach
        return coarse + -(-fine // 2)

    @property
    def encoder_halo(self) -> int:
        """Latents of context to each side that make an encoded piece exact."""
        return self._encoder_reach

    def moments_of(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, each (N, C, H/8, W/8)."""
        correction, logvar = self.moments(self.encoder(images)).chunk(2, 1)
        return self.analysis(images) + correction, logvar.clamp(*_LOGVAR_RANGE)

    def encode(self, images: Tensor) -> Tensor:
        """Posterior mean of (N, 3, H, W) in [-1, 1]."""
        return self.moments_of(images)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, 3, 8h, 8w), about [-1, 1] (not clamped)."""
        return self.synthesis(latents) + self.shuffle(self.to_pixels(self.decoder(latents)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction from a posterior sample, mean, log-variance."""
        mean, logvar = self.moments_of(images)
        sample = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        return self.decode(sample), mean, logvar

    @torch.no_grad()
    def start_from_blocks(self, blocks: Tensor, kept: int = 0) -> None:
        """Set the linear parts to the principal components of (N, 3, 8, 8) training blocks in [-1, 1], whitened.

        The first ``kept`` latents stay as they are. The others become the components of the remainder.
        """
        analysis, synthesis = self.analysis[1], self.synthesis[0]
        flat = blocks.flatten(1).double()
        inward, outward = analysis.weight[:kept].double().flatten(1), synthesis.weight[:, :kept].double().flatten(1)
        restored = outward @ inward
        left = flat - flat @ restored.T if kept else flat
        mean = left.mean(0)
        variance, vectors = torch.linalg.eigh(torch.cov((left - mean).T))
        order = variance.argsort(descending=True)[: self.latent_channels - kept]
        deviation, basis = variance[order].clamp(min=1e-8).sqrt(), vectors[:, order].T
        whiten, colour = basis / deviation[:, None], (basis * deviation[:, None]).T
        analysis.weight[kept:] = (whiten - whiten @ restored)[:, :, None, None].float()
        analysis.bias[kept:] = -(whiten @ mean).float()
        synthesis.weight[:, kept:] = colour[:, :, None, None].float()
        synthesis.bias.copy_(mean - outward @ analysis.bias[:kept].double())

    def widened(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of one with fewer latents in the shapes of this one: its latents come first, the others are of no
        effect until `start_from_blocks` or training gives them one."""
        kept = len(weights.get("analysis.1.bias", self.analysis[1].bias))
        if kept >= self.latent_channels:
            return weights
        own = self.state_dict()
        wide = {name: own[name].clone() for name in _FROM_LATENTS + _TO_LATENTS + _TO_MOMENTS}
        for name in _FROM_LATENTS:
            wide[name].zero_()[:, :kept] = weights[name]
        for name in _TO_LATENTS:
            wide[name][:kept] = weights[name]
        for name in _TO_MOMENTS:
            wide[name].unflatten(0, (2, -1))[:, :kept] = weights[name].unflatten(0, (2, -1))
        return {**weights, **wide}
