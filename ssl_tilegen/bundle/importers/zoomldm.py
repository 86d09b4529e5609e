"""ZoomLDM (Yellapragada et al., CVPR 2025): one denoiser for many magnifications, with a small conditioner network.

``weights.ckpt`` is a bare state dict with averaged weights (``model_ema.*``, whose names have lost their dots) and
``config.yaml`` beside it. A bundle paints at one magnification, the finest unless another is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_tilegen.bundle.importers import ldm
from ssl_tilegen.bundle.importers.base import Imported, ImportOptions, constant_latents, read_yaml
from ssl_tilegen.bundle.importers.weights import Component, Ledger
from ssl_tilegen.diffusion.recipe import PATCHES
from ssl_tilegen.errors import FormatError, SettingError

FAMILY = "ZoomLDM"
ORIGIN = "https://github.com/cvlab-stonybrook/ZoomLDM (Yellapragada et al., CVPR 2025, arXiv 2411.16969)"
LICENCE = "MIT (code and weights); the encoder UNI that it needs is CC-BY-NC-ND-4.0"
LICENCE_NAIP = "MIT (code and weights); the encoder DINOv2-L-reg that it needs is Apache-2.0"

_UNET, _CONDITIONER, _EMA = "model.diffusion_model.", "cond_stage_model.", "model_ema."
_MAGNIFICATIONS = ("20x", "10x", "5x", "2.5x", "1.25x", "0.625x", "0.3125x", "0.15625x")
_FINEST_UM, _FINEST_M = 0.5, 1.0
_HEADS = 8
_WINDOW_PX = 256
_MOST_CELLS = 8


def matches(names: set[str]) -> bool:
    """Whether a checkpoint with tensors of these names is of this family."""
    return f"{_CONDITIONER}mag_embedding.weight" in names


def convert(source: Path, checkpoint: Path, tensors: dict[str, Tensor], options: ImportOptions) -> Imported:
    """The model of a checkpoint in our terms. Raises FormatError, InputError and SettingError with one line."""
    ledger = Ledger(checkpoint, tensors)
    path = options.config or checkpoint.with_name("config.yaml")
    params = read_yaml(path).get("model", {}).get("params", {}) if path.is_file() else {}
    network = params.get("unet_config", {}).get("params", {})
    averaged = _averaged(ledger)
    denoiser = ldm.unet(
        averaged, _UNET, heads=int(network.get("num_heads", 1)), sample_size=int(params.get("image_size", 64))
    )
    averaged.close()
    levels, dim = (
        len(ledger.peek(f"{_CONDITIONER}mag_embedding.weight")),
        ledger.peek(f"{_CONDITIONER}dim_reduce.weight").shape[1],
    )
    level = _level(options.magnification, levels)
    conditioner = _conditioner(ledger, level)
    autoencoder = ldm.vq_autoencoder(ledger)
    scale = float(ledger.take("scale_factor")) if "scale_factor" in ledger else 1.0
    ldm.leave_training_state(ledger)
    ledger.close()
    return Imported(
        family=FAMILY,
        info=_info(levels, level, dim, denoiser, scale, options),
        scheduler=ldm.scheduler(
            float(params.get("linear_start", 0.0015)),
            float(params.get("linear_end", 0.0195)),
            int(params.get("timesteps", 1000)),
        ),
        components={"denoiser": denoiser, "autoencoder": autoencoder, "conditioner": conditioner},
        licence=LICENCE_NAIP if levels == 4 else LICENCE,
        origin=ORIGIN,
        left_out=ledger.left_out,
        notes=() if path.is_file() else (f"no {path.name} beside the weights: took one attention head, as published",),
    )


def _averaged(ledger: Ledger) -> Ledger:
    """The U-Net's averaged weights under their own names; the last ones of training where there is no average."""
    plain = ledger.names(_UNET)
    averages = {_EMA + name.removeprefix("model.").replace(".", ""): name for name in plain}
    there = [name for name in averages if name in ledger]
    if not there:
        return Ledger(ledger.source, {name: ledger.take(name) for name in plain})
    if len(there) != len(averages):
        raise FormatError(
            f"{ledger.source}: {len(averages) - len(there)} of the averaged weights (model_ema) are "
            "missing; the checkpoint is incomplete"
        )
    taken = {averages[name]: ledger.take(name) for name in there}
    ledger.leave(plain, "the averaged weights (model_ema) are used")
    ledger.leave([f"{_EMA}decay", f"{_EMA}num_updates"], "counters of the average")
    return Ledger(ledger.source, taken)


def _level(magnification: str | None, levels: int) -> int:
    known = _MAGNIFICATIONS[:levels]
    if magnification is None:
        return 0
    asked = magnification.lower().replace("_", ".")
    if asked not in known:
        raise SettingError(f"--magnification {magnification}: this model knows {', '.join(known)}")
    return known.index(asked)


def _conditioner(ledger: Ledger, level: int) -> Component:
    """The conditioner network as a GridConditioner."""
    at = f"{_CONDITIONER}encoder."
    layers = {name.removeprefix(f"{at}layers.").split(".")[0] for name in ledger.names(f"{at}layers.")}
    width, dim = ledger.peek(f"{_CONDITIONER}dim_reduce.weight").shape
    places = ledger.peek(f"{at}pos_embedding").shape[1] - 1
    config: dict[str, Any] = {
        "_class_name": "GridConditioner",
        "dim": dim,
        "cells": min(2**level, _MOST_CELLS) ** 2,
        "level": level,
        "levels": len(ledger.peek(f"{_CONDITIONER}mag_embedding.weight")),
        "width": width,
        "out_dim": ledger.peek(f"{_CONDITIONER}final_proj.weight").shape[0],
        "depth": len(layers),
        "heads": _HEADS,
        "hidden": ledger.peek(f"{at}layers.encoder_layer_0.ln_1.weight").shape[0],
        "side": round(places**0.5),
        "scaling": "standardised",
    }
    names = dict(_conditioner_names(ledger, len(layers)))
    config["hidden"] = next(ledger.peek(theirs).shape[0] for theirs, ours in names.items() if "mlp.0.bias" in ours)
    return Component(config, ledger.renamed(names.items()))


def _conditioner_names(ledger: Ledger, depth: int) -> list[tuple[str, str]]:
    at = f"{_CONDITIONER}encoder."
    pairs = [
        (f"{_CONDITIONER}{name}", name)
        for name in (
            "mag_embedding.weight",
            "pad_token",
            "dim_reduce.weight",
            "dim_reduce.bias",
            "final_proj.weight",
            "final_proj.bias",
            "layer_norm.weight",
            "layer_norm.bias",
        )
    ]
    pairs += [(f"{at}pos_embedding", "positions"), (f"{at}ln.weight", "norm.weight"), (f"{at}ln.bias", "norm.bias")]
    older = {"mlp.linear_1": "mlp.0", "mlp.linear_2": "mlp.3"}
    for layer in range(depth):
        theirs = f"{at}layers.encoder_layer_{layer}."
        for name in ledger.names(theirs):
            part = name.removeprefix(theirs)
            for before, after in older.items():
                part = part.replace(before, after)
            pairs.append((name, f"layers.{layer}.{part}"))
    return pairs


def _info(
    levels: int, level: int, dim: int, denoiser: Component, scale: float, options: ImportOptions
) -> dict[str, Any]:
    aerial, cells = levels == 4, min(2**level, _MOST_CELLS)
    domain, finest, unit = ("aerial", _FINEST_M, "m") if aerial else ("he", _FINEST_UM, "um")
    resolution = (
        (options.resolution.value, options.resolution.unit) if options.resolution else (finest * 2**level, unit)
    )
    tile_px = _WINDOW_PX // cells
    return {
        "name": options.name or f"zoomldm-{'naip' if aerial else 'brca'}-{_MAGNIFICATIONS[level]}",
        "encoder": {
            "id": options.encoder or ("dinov2-l-reg" if aerial else "uni"),
            "dim": dim,
            "tile_px": tile_px,
            "input_px": 224,
        },
        "window_px": denoiser.config["sample_size"] * 4,
        "stride_px": [tile_px],
        "resolutions": {domain: resolution},
        "prediction_type": "epsilon",
        "conditioning": {"kind": "tokens", "cells": cells, "landing": "cells" if cells > 1 else "anywhere"},
        "sampling": {"steps": 24, "update": "dpmpp_2m", "guidance": 2.0, "guidance_interval": (0.2, 0.8)},
        "recipes": {"patches": PATCHES},
        "exact_autoencoder": True,
        **constant_latents(scale, 0.0, denoiser.config["in_channels"]),
    }
