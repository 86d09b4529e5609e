"""PixCell-256 and PixCell-1024 (Yellapragada et al. 2025): folders in diffusers layout.

The transformer is diffusers' PixArtTransformer2DModel with two tensors more, which belong to the conditioner here: the
null, and for 1024 px the positions of the 4 x 4 cells. Half of its output channels are a variance that is dropped. The
folder has only the configuration of its autoencoder, that of Stable Diffusion 3.5, so its weights are given beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_tilegen.bundle.importers.base import (
    Imported,
    ImportOptions,
    constant_latents,
    has_weights,
    read_json,
    read_weights,
)
from ssl_tilegen.bundle.importers.weights import Component, Ledger
from ssl_tilegen.diffusion.recipe import PIXCELL
from ssl_tilegen.errors import FormatError, InputError

FAMILY = "PixCell"
ORIGIN = "https://huggingface.co/StonyBrook-CVLab (PixCell, arXiv 2506.05127)"
LICENCE = (
    "weights Apache-2.0 or CC-BY-NC-ND-4.0 (the authors' cards differ by date: read yours), code CC-BY-NC-4.0; "
    "autoencoder Stability AI Community License; the encoder UNI2-h that it needs is CC-BY-NC-ND-4.0"
)

_NULL, _TABLE = "caption_projection.uncond_embedding", "y_pos_embed.y_pos_embed"
_DROPPED = ("caption_num_tokens", "_class_name", "_diffusers_version", "_name_or_path")
_SCHEDULER = {
    "_class_name": "DPMSolverMultistepScheduler",
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",  # the default of this class, not of all
}
_CELL_PX = 256


def matches(source: Path) -> bool:
    """Whether a folder is of this family: a transformer that has PixCell's tokens in its configuration or weights."""
    path = source / "transformer" / "config.json"
    if not path.is_file():
        return False
    facts = read_json(path)
    if "pixcell" in str(facts.get("_class_name", "")).lower() or "caption_num_tokens" in facts:
        return True
    return facts.get("caption_channels") is not None and _NULL in read_weights(source / "transformer")


def convert(source: Path, options: ImportOptions) -> Imported:
    """The model of a folder in our terms. Raises FormatError and InputError with one line."""
    facts = read_json(source / "transformer" / "config.json")
    ledger = Ledger(source / "transformer", read_weights(source / "transformer"))
    null = ledger.take(_NULL)
    null = null.reshape(-1, null.shape[-1])
    table = ledger.take(_TABLE)[0] if _TABLE in ledger else None
    conditioner = _conditioner(ledger, null, table)
    config = {key: value for key, value in facts.items() if key not in _DROPPED}
    config |= {"_class_name": "PixArtTransformer2DModel", "use_additional_conditions": False}
    denoiser = Component(config, ledger.renamed((name, name) for name in ledger.names() if name not in (_NULL, _TABLE)))
    ledger.close()
    autoencoder = _autoencoder(source, options)
    return Imported(
        family=FAMILY,
        info=_info(denoiser, conditioner, autoencoder, options),
        scheduler=_scheduler(source),
        components={"denoiser": denoiser, "autoencoder": autoencoder, "conditioner": conditioner},
        licence=LICENCE,
        origin=ORIGIN,
        left_out=ledger.left_out,
    )


def _conditioner(ledger: Ledger, null: Tensor, table: Tensor | None) -> Component:
    cells, dim = null.shape
    if round(cells**0.5) ** 2 != cells or (table is not None and table.shape != null.shape):
        raise FormatError(
            f"{ledger.source}: null of shape {tuple(null.shape)} and positions of shape "
            f"{None if table is None else tuple(table.shape)} belong to no square of cells"
        )
    config = {
        "_class_name": "TokenConditioner",
        "dim": dim,
        "cells": cells,
        "scaling": "none",
        "constant_tokens": 0,
        "has_table": table is not None,
    }
    return Component(config, {"null": null} | ({} if table is None else {"table": table}))


def _autoencoder(source: Path, options: ImportOptions) -> Component:
    """The autoencoder from where its weights are, checked against the configuration that the model brings."""
    given, beside = options.vae, (source / "vae", source.parent / "vae")
    places = (given, given / "vae") if given else beside
    folder = next((place for place in places if (place / "config.json").is_file() and has_weights(place)), None)
    if folder is None:
        where = (
            f"{options.vae}: no autoencoder here" if options.vae else f"{source}: brings no weights of its autoencoder"
        )
        raise InputError(
            f"{where}; fetch the folder vae/ of stabilityai/stable-diffusion-3.5-large or "
            "stable-diffusion-3-medium-diffusers and give it with --vae FOLDER"
        )
    config = read_json(folder / "config.json")
    own = source / "vae" / "config.json"
    wanted = read_json(own) if own.is_file() else config
    for key in ("latent_channels", "scaling_factor", "shift_factor", "block_out_channels"):
        if wanted.get(key) != config.get(key):
            raise FormatError(
                f"{folder}: {key} is {config.get(key)}, {FAMILY} was trained with {wanted.get(key)}; "
                "take the autoencoder of Stable Diffusion 3.5"
            )
    ledger = Ledger(folder, read_weights(folder))
    component = Component(config, ledger.renamed((name, name) for name in ledger.names()))
    ledger.close()
    return component


def _scheduler(source: Path) -> dict[str, Any]:
    path = source / "scheduler" / "scheduler_config.json"
    facts = read_json(path) if path.is_file() else dict(_SCHEDULER)
    if facts.get("prediction_type", "epsilon") != "epsilon":
        raise FormatError(f"{path}: prediction_type {facts['prediction_type']}, expected epsilon")
    return facts


def _info(
    denoiser: Component, conditioner: Component, autoencoder: Component, options: ImportOptions
) -> dict[str, Any]:
    side, cells = denoiser.config["sample_size"], round(conditioner.config["cells"] ** 0.5)
    factor = 2 ** (len(autoencoder.config["block_out_channels"]) - 1)
    vae, resolution = autoencoder.config, options.resolution
    return {
        "name": options.name or f"pixcell-{side * factor}",
        "encoder": {
            "id": options.encoder or "uni2-h",
            "dim": conditioner.config["dim"],
            "tile_px": _CELL_PX,
            "input_px": 224,
        },
        "window_px": side * factor,
        "stride_px": [_CELL_PX],
        "resolutions": {"he": (resolution.value, resolution.unit) if resolution else (0.5, "um")},
        "prediction_type": "epsilon",
        "conditioning": {"kind": "tokens", "cells": cells, "landing": "cells" if cells > 1 else "anywhere"},
        "sampling": {"steps": 20, "update": "dpmpp_2m", "guidance": 2.0, "guidance_interval": (0.0, 1.0)},
        "recipes": {"pixcell": PIXCELL} if cells > 1 else {},
        **constant_latents(
            float(vae.get("scaling_factor", 1.0)), float(vae.get("shift_factor") or 0.0), denoiser.config["in_channels"]
        ),
    }
