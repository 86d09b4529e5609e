"""Latent diffusion models in diffusers layout: a UNet2DConditionModel with a VQModel or AutoencoderKL.

Their cross-attention takes one token, the embedding of the window's centre; the null is the zero vector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ssl_tilegen.bundle.importers.base import (
    Imported,
    ImportOptions,
    constant_latents,
    has_weights,
    read_json,
    read_weights,
)
from ssl_tilegen.bundle.importers.weights import Component, Ledger
from ssl_tilegen.errors import FormatError, InputError, SettingError

FAMILY = "diffusers"
_AUTOENCODERS = ("VQModel", "AutoencoderKL")


def matches(source: Path) -> bool:
    """Whether a folder holds a conditional U-Net of diffusers."""
    path = source / "unet" / "config.json"
    return path.is_file() and read_json(path).get("_class_name") == "UNet2DConditionModel"


def convert(source: Path, options: ImportOptions) -> Imported:
    """The model of a folder in our terms. Raises FormatError, InputError and SettingError with one line."""
    denoiser = _component(source / "unet")
    config = denoiser.config
    if (
        config.get("addition_embed_type")
        or config.get("class_embed_type")
        or config["in_channels"] > config["out_channels"]
    ):
        raise FormatError(
            f"{source}: its U-Net takes more than latents, a time and tokens; it cannot paint from embeddings alone"
        )
    dim = config.get("encoder_hid_dim") or config.get("cross_attention_dim")
    if not isinstance(dim, int):
        raise FormatError(f"{source}: its U-Net has no one size of tokens (cross_attention_dim {dim})")
    if options.encoder is None:
        raise SettingError(
            f"{source}: nothing here says which encoder its tokens ({dim} numbers) come from; give "
            "--encoder NAME, and --mpp or --gsd"
        )
    autoencoder = _autoencoder(source, options)
    scheduler = read_json(source / "scheduler" / "scheduler_config.json")
    conditioner = {
        "_class_name": "TokenConditioner",
        "dim": dim,
        "cells": 1,
        "scaling": "none",
        "constant_tokens": 0,
        "has_table": False,
    }
    return Imported(
        family=FAMILY,
        info=_info(source, denoiser, autoencoder, scheduler, dim, options),
        scheduler=scheduler,
        components={
            "denoiser": denoiser,
            "autoencoder": autoencoder,
            "conditioner": Component(conditioner, {"null": torch.zeros(1, dim)}),
        },
        licence="that of the source; none is in its files",
        origin=options.origin or source.name,
    )


def _component(folder: Path) -> Component:
    ledger = Ledger(folder, read_weights(folder))
    component = Component(read_json(folder / "config.json"), ledger.renamed((n, n) for n in ledger.names()))
    ledger.close()
    return component


def _autoencoder(source: Path, options: ImportOptions) -> Component:
    given, own = options.vae, [source / name for name in ("vae", "vqvae", "first_stage_model")]
    folder = next((place for place in ([given, given / "vae"] if given else own) if has_weights(place)), None)
    if folder is None:
        where = f"{given}: no autoencoder here" if given else f"{source}: no autoencoder (vae/ or vqvae/)"
        raise InputError(f"{where}; give its folder with --vae FOLDER")
    component = _component(folder)
    if component.config.get("_class_name") not in _AUTOENCODERS:
        raise FormatError(
            f"{folder}: an autoencoder of class {component.config.get('_class_name')}; known: "
            f"{', '.join(_AUTOENCODERS)}"
        )
    return component


def _info(
    source: Path,
    denoiser: Component,
    autoencoder: Component,
    scheduler: dict[str, Any],
    dim: int,
    options: ImportOptions,
) -> dict[str, Any]:
    vae, side = autoencoder.config, int(denoiser.config.get("sample_size") or 64)
    window_px = side * 2 ** (len(vae["block_out_channels"]) - 1)
    resolution = options.resolution
    domain = "aerial" if resolution and resolution.unit == "m" else "he"
    return {
        "name": options.name or (options.origin or source.name).partition("@")[0].rpartition("/")[2],
        "encoder": {"id": options.encoder, "dim": dim, "tile_px": window_px},
        "window_px": window_px,
        "stride_px": [window_px],
        "resolutions": {domain: (resolution.value, resolution.unit)} if resolution else {},
        "prediction_type": scheduler.get("prediction_type", "epsilon"),
        "conditioning": {"kind": "tokens", "cells": 1, "landing": "anywhere"},
        "sampling": {"steps": 24, "update": "dpmpp_2m", "guidance": 2.0, "guidance_interval": (0.2, 0.8)},
        "exact_autoencoder": vae["_class_name"] == "VQModel",
        **constant_latents(
            float(vae.get("scaling_factor", 1.0)), float(vae.get("shift_factor") or 0.0), denoiser.config["in_channels"]
        ),
    }
