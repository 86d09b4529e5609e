"""The network that a denoiser stage trains: its configuration from the start, the bundle and the user's options."""

from __future__ import annotations

from typing import Any

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.training.conditioning import token_dim
from ssl_tilegen.training.objectives.targets import Target
from ssl_tilegen.training.start import Start


def network_config(settings: Any, bundle: ModelBundle, start: Start | None, target: Target) -> dict[str, Any]:
    """The configuration of the network: that of the start, the bundle's arguments, and the user's on top."""
    theirs = start.net(settings.net) if start else {}
    name = settings.net.get("_class_name", theirs.get("_class_name", "FieldUNet"))
    info = bundle.info.encoder
    cell_side = info.tile_px // bundle.factor if info.layout_dim else 0
    ours: dict[str, Any] = {"latent_channels": bundle.latent_channels, "condition_dim": info.dim}
    known: dict[str, dict[str, Any]] = {
        "FieldUNet": {**ours, "sketch_side": cell_side, "colour_rounds": cell_side and settings.colour_rounds},
        "WindowDiT": {**ours, "sample_size": settings.window_lat},
    }
    follows = known.get(name) or _window_network(settings, bundle, start, theirs)
    config = {**theirs, "_class_name": name, **follows, **settings.net}
    if name == "FieldUNet" and target.prediction != "flow":
        config |= {"prediction_type": target.prediction, "scheduler": target.scheduler}
    return config


def _window_network(settings: Any, bundle: ModelBundle, start: Start | None, theirs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a network of diffusers that follow from the bundle; one that goes on as it was keeps its own."""
    channels, tokens = bundle.latent_channels, token_dim(bundle)
    if theirs.get("in_channels") == channels and start and token_dim(start.theirs) == tokens:
        return {}
    return {"in_channels": channels, "out_channels": channels, "sample_size": settings.window_lat,
            "encoder_hid_dim": tokens, "encoder_hid_dim_type": "text_proj"}  # fmt: skip
