"""Large-Image-Diffusion (Graikos et al., CVPR 2024): the published models of the method that this package grew from.

A folder has ``configs/*-project.yaml`` (the newest counts) and ``checkpoints/last.ckpt``. Its conditioner is a linear
layer on vectors of unit length, which diffusers' U-Net has as ``encoder_hid_proj``. The unconditional token is that of
the zero vector. BRCA at 20x was trained with a second token of which only the bias was ever used: here a constant
token, in one linear layer of one more input.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_tilegen.bundle.importers import ldm
from ssl_tilegen.bundle.importers.base import NO_LICENCE, Imported, ImportOptions, constant_latents, read_yaml
from ssl_tilegen.bundle.importers.weights import Component, Ledger
from ssl_tilegen.diffusion.recipe import PAPER, PATCHES
from ssl_tilegen.errors import FormatError, InputError

FAMILY = "Large-Image-Diffusion"
ORIGIN = "https://github.com/cvlab-stonybrook/Large-Image-Diffusion (Graikos et al., CVPR 2024, arXiv 2312.07330)"
LICENCE = f"{NO_LICENCE} by the authors: use the converted weights yourself, do not pass them on"

_UNET, _CONDITIONER = "model.diffusion_model.", "cond_stage_model."
_VARIANTS: dict[str, dict[str, Any]] = {
    "brca_20x": {"encoder": "hipt-vit256", "tile_px": 256, "input_px": 256, "he": (0.5, "um")},
    "crc_20x": {"encoder": "phikon", "tile_px": 256, "input_px": 224, "he": (0.5, "um")},
    "brca_5x": {"encoder": "ctranspath", "tile_px": 256, "input_px": 224, "he": (2.0, "um")},
    "naip": {"encoder": "unknown", "tile_px": 256, "input_px": 224, "aerial": (1.0, "m")},
}


def matches(names: set[str]) -> bool:
    """Whether a checkpoint with tensors of these names is of this family."""
    return f"{_CONDITIONER}patch_fc.weight" in names and f"{_UNET}time_embed.0.weight" in names


def convert(source: Path, checkpoint: Path, tensors: dict[str, Tensor], options: ImportOptions) -> Imported:
    """The model of a checkpoint in our terms. Raises FormatError and InputError with one line."""
    params, data = _configuration(source, checkpoint, options)
    ledger = Ledger(checkpoint, tensors)
    network = dict(params.get("unet_config", {}).get("params", {}))
    denoiser = ldm.unet(
        ledger,
        _UNET,
        heads=int(network.get("num_heads", -1)),
        head_channels=int(network.get("num_head_channels", -1)),
        sample_size=int(params.get("image_size", 64)),
    )
    denoiser, conditioner = _conditioned(ledger, denoiser, unit_length=_is_normalised(params))
    autoencoder = ldm.vq_autoencoder(ledger)
    scale = float(ledger.take("scale_factor")) if "scale_factor" in ledger else float(params.get("scale_factor", 1.0))
    ldm.leave_training_state(ledger)
    ledger.close()
    variant = _variant(ledger, data)
    return Imported(
        family=FAMILY,
        info=_info(variant, denoiser, conditioner, scale, options),
        scheduler=ldm.scheduler(
            float(params.get("linear_start", 0.0015)),
            float(params.get("linear_end", 0.0195)),
            int(params.get("timesteps", 1000)),
        ),
        components={"denoiser": denoiser, "autoencoder": autoencoder, "conditioner": conditioner},
        licence=LICENCE,
        origin=ORIGIN,
        left_out=ledger.left_out,
        notes=_notes(variant, options),
    )


def _configuration(source: Path, checkpoint: Path, options: ImportOptions) -> tuple[dict[str, Any], str]:
    """The model's parameters from the training configuration, and the class that read its data."""
    path = options.config or _newest_config(source, checkpoint)
    if path is None:
        raise InputError(
            f"{checkpoint}: no training configuration beside it (configs/*-project.yaml), which says how "
            "many attention heads there are; give it with --config FILE.yaml"
        )
    facts = read_yaml(path)
    params = facts.get("model", {}).get("params")
    if not isinstance(params, dict):
        raise FormatError(f"{path}: no model.params; give the *-project.yaml of the training run")
    if params.get("parameterization", "eps") != "eps":
        raise FormatError(f"{path}: parameterization {params['parameterization']}, expected eps")
    train = facts.get("data", {}).get("params", {}).get("train", {})
    return params, f"{train.get('target', '')} {path.name} {source.name}".lower()


def _newest_config(source: Path, checkpoint: Path) -> Path | None:
    folders = [source / "configs", checkpoint.parent.parent / "configs", checkpoint.parent]
    for folder in folders:
        found = sorted(folder.glob("*-project.yaml")) or sorted(folder.glob("*.yaml"))
        if found:
            return found[-1]
    return None


def _is_normalised(params: dict[str, Any]) -> bool:
    """Whether embeddings were brought to unit length, as in all published models; off where their code is not told."""
    embedder = params.get("cond_stage_config", {}).get("params")
    return embedder is None or bool(embedder.get("normalize_ssl", False))


def _conditioned(ledger: Ledger, unet: Component, *, unit_length: bool) -> tuple[Component, Component]:
    """The U-Net with the linear layer that makes its tokens, and the conditioner before it."""
    weight, bias = (ledger.take(f"{_CONDITIONER}patch_fc.{part}") for part in ("weight", "bias"))
    dim, constant = weight.shape[1], f"{_CONDITIONER}region_fc.bias" in ledger
    if constant:
        own = ledger.take(f"{_CONDITIONER}region_fc.bias")
        weight = torch.cat([weight, (own - bias)[:, None]], 1)
        ledger.leave([f"{_CONDITIONER}region_fc.weight"], "multiplied by the zero vector in training and sampling")
    config = unet.config | {"encoder_hid_dim": dim + constant, "encoder_hid_dim_type": "text_proj"}
    projection = {"encoder_hid_proj.weight": weight, "encoder_hid_proj.bias": bias}
    conditioner = {
        "_class_name": "TokenConditioner",
        "dim": dim,
        "cells": 1,
        "scaling": "unit_length" if unit_length else "none",
        "constant_tokens": int(constant),
        "has_table": False,
    }
    return Component(config, unet.weights | projection), Component(conditioner, {"null": torch.zeros(1, dim)})


def _variant(ledger: Ledger, data: str) -> str:
    """Which of the published four it is, or is most like."""
    if f"{_CONDITIONER}region_fc.bias" in ledger:
        return "brca_20x"
    if "naip" in data:
        return "naip"
    return "brca_5x" if "brca" in data or "5x" in data else "crc_20x"


def _info(
    variant: str, denoiser: Component, conditioner: Component, scale: float, options: ImportOptions
) -> dict[str, Any]:
    facts, side = _VARIANTS[variant], denoiser.config["sample_size"]
    domain = "aerial" if "aerial" in facts else "he"
    resolution = (options.resolution.value, options.resolution.unit) if options.resolution else facts[domain]
    encoder = {
        "id": options.encoder or facts["encoder"],
        "dim": conditioner.config["dim"],
        "tile_px": facts["tile_px"],
        "input_px": facts["input_px"],
    }
    return {
        "name": options.name or f"large-image-diffusion-{variant.replace('_', '-')}",
        "encoder": encoder,
        "window_px": side * 4,
        "stride_px": [facts["tile_px"]],
        "resolutions": {domain: resolution},
        "prediction_type": "epsilon",
        "conditioning": {"kind": "tokens", "cells": 1, "landing": "anywhere"},
        "sampling": {"steps": 24, "update": "dpmpp_2m", "guidance": 2.0, "guidance_interval": (0.2, 0.8)},
        "recipes": {"paper": PAPER, "patches": PATCHES},
        "exact_autoencoder": True,
        **constant_latents(scale, 0.0, denoiser.config["in_channels"]),
    }


def _notes(variant: str, options: ImportOptions) -> tuple[str, ...]:
    if options.encoder is None and _VARIANTS[variant]["encoder"] == "unknown":
        return (
            "the authors name no weights for this model's encoder (a ViT-B/16 of DINO): give it with --encoder NAME",
        )
    return ()
