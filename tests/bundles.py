"""A tiny model bundle with random weights, built through the public interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from ssl_tilegen.bundle import (
    SCHEDULER,
    BundleInfo,
    EncoderInfo,
    ModelBundle,
    Sampling,
    save_component,
    save_prior,
    update_info,
    write_info,
)
from ssl_tilegen.nets import build_encoder
from ssl_tilegen.nets.autoencoder import LinearStartAutoencoder
from ssl_tilegen.nets.field_unet import FieldUNet
from ssl_tilegen.nets.grid_prior import GridPrior
from ssl_tilegen.prior.spec import LabelFacts, PriorInfo, PriorSampling

TILE_PX, DIM = 64, 16
LATENTS, WINDOW_PX = 4, 64
ARGS = {"patch_size": 16, "depth": 1, "embed_dim": 48, "num_heads": 3}


def encoder_bundle(folder: Path, seed: int = 0) -> Path:
    """A bundle that can embed (it has no autoencoder and no denoiser), trained "at" 0.5 um/px and 0.15 m/px."""
    torch.manual_seed(seed)
    config: dict[str, Any] = {"arch": "vit_tiny_patch16_224", "tile_px": TILE_PX, "dim": DIM, "arch_args": ARGS}
    save_component(build_encoder(config), folder / "encoder", config)
    facts = EncoderInfo(id=f"stub-{seed}", tile_px=TILE_PX, dim=DIM)
    resolutions: dict[str, tuple[float, Literal["um", "m"]]] = {"he": (0.5, "um"), "aerial": (0.15, "m")}
    write_info(folder, BundleInfo(name="stub", encoder=facts, resolutions=resolutions), SCHEDULER)
    return folder


def painting_bundle(folder: Path, *, window: bool = False, sampling: Sampling | None = None) -> Path:
    """A bundle that can embed and paint: a local denoiser of halo 32, or diffusers' cross-attention network."""
    encoder_bundle(folder)
    torch.manual_seed(1)
    blocks = {"encoder_blocks": 1, "decoder_blocks": 1, "decoder_fine_blocks": 1}
    autoencoder = LinearStartAutoencoder(LATENTS, fine_width=8, encoder_width=8, decoder_width=8, **blocks)
    autoencoder.start_from_blocks(0.4 * torch.randn(500, 3, 1, 1) + 0.1 * torch.randn(500, 3, 8, 8))
    save_component(autoencoder, folder / "autoencoder")
    save_component(_window_denoiser() if window else _local_denoiser(), folder / "denoiser")
    update_info(
        folder,
        locality="window" if window else "local",
        window_px=WINDOW_PX,
        latent_mean=[0.0] * LATENTS,
        latent_scale=[1.0] * LATENTS,
        sampling=sampling or Sampling(steps=3),
    )
    return folder


def prior_bundle(folder: Path) -> Path:
    """A painting bundle with a prior of random weights that knows three labels and no text."""
    painting_bundle(folder)
    torch.manual_seed(2)
    labels = {"rock": ("aerial", 0.15, "m"), "sand": ("aerial", 0.15, "m"), "gland": ("he", 0.5, "um")}
    info = PriorInfo(
        encoder_sha256=ModelBundle.load(folder).component_hash("encoder"),
        stride_px=TILE_PX,
        labels={name: LabelFacts(domain=domain, resolution=(value, unit)) for name, (domain, value, unit) in
                labels.items()},
        sampling=PriorSampling(steps=4),
    )  # fmt: skip
    net = GridPrior(DIM, 3, 3, width=16, blocks=1, hidden=8)
    net.scale.fill_(50)  # about the scale of what the random encoder gives
    save_prior(_shaken(net), info, folder)
    return folder


def _local_denoiser() -> torch.nn.Module:
    model = FieldUNet(LATENTS, DIM, widths=(8, 8, 8), down_blocks=(1, 1, 1), up_blocks=(1, 1), hidden=16)
    model.condition_std.fill_(0.01)  # a random encoder hardly tells tiles apart
    return _shaken(model)


def _window_denoiser() -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=WINDOW_PX // 8,
        in_channels=LATENTS,
        out_channels=LATENTS,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        encoder_hid_dim=DIM,
        encoder_hid_dim_type="text_proj",
    )
    with torch.no_grad():
        model.encoder_hid_proj.weight.mul_(100)
        model.conv_out.weight.mul_(5)
    return model


def _shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Layers that start at zero given something to say, so that every part matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model
