"""Stage `autoencoder`: pixels, gradients, optionally features and a discriminator, on random crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_tilegen.bundle import ModelBundle, find_bundle, save_component, update_info
from ssl_tilegen.config.train import AutoencoderSettings
from ssl_tilegen.errors import SettingError
from ssl_tilegen.metrics.fidelity import ssim
from ssl_tilegen.metrics.frechet import frechet_distance
from ssl_tilegen.nets import build_component
from ssl_tilegen.nets.autoencoder import FACTOR, LinearStartAutoencoder
from ssl_tilegen.nets.backbones import load_backbone
from ssl_tilegen.training.contact_sheet import save_contact_sheet
from ssl_tilegen.training.data.batches import Batch, Item
from ssl_tilegen.training.data.corpus import Corpus, to_signed
from ssl_tilegen.training.objectives.adversarial import PatchDiscriminator, adversarial_losses
from ssl_tilegen.training.objectives.image_differences import feature_difference
from ssl_tilegen.training.objectives.perceptual_loss import PerceptualLoss
from ssl_tilegen.training.objectives.reconstruction import (
    downscale,
    gradient_difference,
    latent_side,
    opponent_colours,
    psnr,
    reconstruct,
)
from ssl_tilegen.training.stage import Stage, StageContext
from ssl_tilegen.training.warm_start import fill_what_fits, freeze_encoder, said_of_start, still_module

_START_CROPS = 600
_SHOWN, _MEASURED, _MEASURED_BATCH = 6, 64, 8


class AutoencoderStage(Stage):
    """Trains an autoencoder on windows of the corpus; scores are of the validation images, where there are any.

    ``module`` is the network, or with a discriminator both (see `finished`).
    """

    def __init__(self, settings: AutoencoderSettings, corpus: Corpus) -> None:
        self.settings, self.corpus = settings, corpus
        torch.manual_seed(settings.run.seed)
        self.said_of_start = ""
        start: Any = ModelBundle.load(settings.start_from).autoencoder if settings.start_from else None
        network: Any = build_component(self._network(start))
        if settings.window_px % downscale(network):
            raise SettingError(f"window_px {settings.window_px}: must be a multiple of {downscale(network)}")
        if start is not None:
            self._start_from(start, network)
        elif isinstance(network, LinearStartAutoencoder):
            network.start_from_blocks(self._blocks())
        self.module: Any = network
        if settings.discriminator_weight:
            self.module = _WithDiscriminator(network, PatchDiscriminator(settings.discriminator_width))
        self._channels = network.config.latent_channels
        self._latents = latent_side(network, settings.window_px)
        self._space = PerceptualLoss(ModelBundle.load(settings.feature_bundle)) if settings.feature_bundle else None
        self._backbone = None
        if settings.backbone and settings.feature_weight:
            self._backbone = load_backbone(settings.backbone, settings.backbone_stages, settings.backbone_weights)
        if settings.feature_weight and self._backbone is None and self._space is None:
            raise SettingError("feature_weight: name the backbone, or the feature_bundle, that compares the images")
        shown = np.random.default_rng([settings.run.seed, 1])
        count = _MEASURED if corpus.validation or self._space else _SHOWN
        self._fixed = np.stack([corpus.held_out.crop(shown, settings.window_px) for _ in range(count)])

    @classmethod
    def prepare(cls, settings: AutoencoderSettings, data: Corpus, context: StageContext) -> AutoencoderStage:
        """The stage. With an encoder that stays as it is, the other parts of its bundle are kept, too."""
        if settings.train_only == "decoder" and settings.start_from:
            context.take_over(find_bundle(settings.start_from))
        stage = cls(settings, data)
        if stage.said_of_start:
            context.say(stage.said_of_start)
        return stage

    def export(self, module: Any, context: StageContext) -> None:
        """Save the averaged autoencoder into the bundle; one with codes in float32, for codes are nearest ones."""
        network = self.finished(module)
        save_component(network, context.bundle_folder / "autoencoder", exact=hasattr(network, "quantize"))
        update_info(context.bundle_folder)

    def _network(self, start: Any) -> dict[str, Any]:
        """The configuration of the network: that of the warm start, if any, and the user's on top."""
        known = {key: value for key, value in start.config.items() if key != "_diffusers_version"} if start else {}
        name = type(start).__name__ if start else "LinearStartAutoencoder"
        return {**known, "_class_name": name, **self.settings.net}

    def _start_from(self, start: Any, network: Any) -> None:
        """Take the weights of ``start``; latents that it lacks begin with the remainder of its own."""
        whole, kept = self.settings.train_only == "all", start.config.latent_channels
        left = fill_what_fits(network, start.state_dict(), widen=whole)
        self.said_of_start = said_of_start(str(self.settings.start_from), network, left)
        if whole and isinstance(network, LinearStartAutoencoder) and kept < network.latent_channels:
            network.start_from_blocks(self._blocks(), kept)
        if not whole:
            freeze_encoder(network, left)
            still_module(network)

    def _blocks(self) -> Tensor:
        rng = np.random.default_rng([self.settings.run.seed, 0])
        crops = torch.from_numpy(to_signed(np.stack([self.corpus.crop(rng, 64) for _ in range(_START_CROPS)])))
        return crops.unfold(2, FACTOR, FACTOR).unfold(3, FACTOR, FACTOR).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)

    def item(self, rng: np.random.Generator) -> Item:
        """A random crop, and the noise that samples its posterior."""
        image = to_signed(self.corpus.crop(rng, self.settings.window_px))
        noise = rng.standard_normal((self._channels, self._latents, self._latents), np.float32)
        return {"image": image, "noise": noise}

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction, perceptual and adversarial loss, and their terms by name."""
        s, image = self.settings, batch["image"]
        network = getattr(module, "network", module)
        noise = s.posterior_noise * batch["noise"] if s.posterior_noise else None
        restored, prior = reconstruct(network, image, noise, frozen=s.train_only == "decoder")
        pixel = (restored - image).abs().mean()
        edge = gradient_difference(restored, image)
        weight = 1.0 if hasattr(network, "quantize") else s.kl_weight
        loss = pixel + s.gradient_weight * edge + weight * prior
        if s.chroma_weight:
            loss = loss + s.chroma_weight * gradient_difference(opponent_colours(restored), opponent_colours(image))
        if s.square_weight:
            loss = loss + s.square_weight * (restored - image).square().mean()
        parts = {"l1": pixel.detach(), "kl": prior.detach(), "psnr": psnr(restored, image).mean().detach()}
        if s.feature_weight:
            features = self._features_apart(restored, image)
            loss, parts["features"] = loss + s.feature_weight * features, features.detach()
        if s.discriminator_weight:
            generator_loss, discriminator_loss = adversarial_losses(module.discriminator, restored, image)
            has_say = float(int(module.parts) >= s.discriminator_from * s.run.accumulate)
            loss = loss + has_say * s.discriminator_weight * generator_loss + discriminator_loss
            parts |= {"generator": generator_loss.detach(), "discriminator": discriminator_loss.detach()}
            module.parts.add_(1)
        return loss, parts

    def _features_apart(self, restored: Tensor, image: Tensor) -> Tensor:
        if self._backbone is None:
            assert self._space is not None  # one of the two is there
            return self._space.to(image.device).difference(restored, image)
        backbone = self._backbone.to(image.device)
        with torch.no_grad():
            wanted = backbone(image)
        return feature_difference(backbone(restored), wanted)

    def compiled(self, module: Any) -> Any:
        """``module`` with its heavy halves compiled in place (its other methods are called by name)."""
        network = self.finished(module)
        network.encoder.compile()
        network.decoder.compile()
        return module

    def finished(self, module: Any) -> Any:
        """The network to keep."""
        return getattr(module, "network", module)

    @torch.no_grad()
    def sample(self, module: Any, path: Path) -> dict[str, float]:
        """Rows: source windows and their reconstructions; PSNR, SSIM and, with a feature bundle, rFD of the fixed
        windows."""
        network = self.finished(module)
        device = next(network.parameters()).device
        images = torch.from_numpy(to_signed(self._fixed)).to(device)
        parts = images.split(_MEASURED_BATCH)
        restored = torch.cat([reconstruct(network, part, None).image for part in parts]).clamp(-1, 1)
        pixels = ((restored + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        save_contact_sheet(path, [self._fixed[:_SHOWN], pixels[:_SHOWN]])
        scores = {"fixed_psnr": round(float(psnr(restored, images).mean()), 3)}
        scores["fixed_ssim"] = round(float(np.mean([ssim(a, b) for a, b in zip(self._fixed, pixels, strict=True)])), 4)
        return scores | self._feature_distance(images, restored)

    def _feature_distance(self, images: Tensor, restored: Tensor) -> dict[str, float]:
        """rFD: Frechet distance of the windows to their reconstructions in the feature bundle's encoder."""
        if self._space is None:
            return {}
        space = self._space.to(images.device)
        a, b = (
            torch.cat([space.vectors(part) for part in batch.split(_MEASURED_BATCH)]).cpu().numpy()
            for batch in (images, restored)
        )
        return {"rfd": round(frechet_distance(a, b), 5)}


class _WithDiscriminator(nn.Module):
    """An autoencoder and the discriminator of its reconstructions, trained as one; ``parts`` of batches seen so far."""

    def __init__(self, network: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.network, self.discriminator = network, discriminator
        self.register_buffer("parts", torch.zeros((), dtype=torch.long))

    def forward(self, image: Tensor) -> Tensor:
        return reconstruct(self.network, image, None).image
