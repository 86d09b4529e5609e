"""Networks: our own, and diffusers' by class name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ssl_tilegen.config.networks import DIFFUSERS, check_timm, check_values
from ssl_tilegen.errors import FormatError

_OURS = {
    "LinearStartAutoencoder": "autoencoder",
    "FieldUNet": "field_unet",
    "WindowDiT": "window_dit",
    "GridPrior": "grid_prior",
    "GridTransformer": "grid_transformer",
    "TokenConditioner": "conditioner",
    "GridConditioner": "conditioner",
}
"""Class -> its module here; only the one that is asked for is imported."""


def is_ours(name: str) -> bool:
    """Whether a network class is one of this package."""
    return name in _OURS or name == "TileEncoder"


def build_component(config: dict[str, Any]) -> Any:
    """A network from its ``config.json``: ours, or one in ``config.networks.DIFFUSERS``, by ``_class_name``;
    weights are random. FormatError for other classes and for arguments out of bounds."""
    name = str(config.get("_class_name", ""))
    if name in _OURS:
        kind = getattr(import_module(f"{__name__}.{_OURS[name]}"), name)
    else:
        kind = getattr(import_module("diffusers"), name, None) if name in DIFFUSERS else None
    if kind is None:
        known = ", ".join([*_OURS, *sorted(DIFFUSERS)])
        raise FormatError(f"unknown network class '{name[:100]}': use one of {known}")
    check_values({key: value for key, value in config.items() if key != "scheduler"})
    return kind.from_config(config)


def build_encoder(config: dict[str, Any]) -> Any:
    """A tile encoder from its ``config.json``: (N, 3, tile_px, tile_px) -> (N, dim); weights are random.

    A timm network (``arch``, ``arch_args``) whose head is the embedding; with ``layout_dim`` a TileEncoder around it.
    """
    check_values({key: value for key, value in config.items() if key != "arch_args"})
    layout = config.get("layout_dim", 0)
    if not layout:
        return timm_network(config["arch"], config["tile_px"], config["dim"], config["arch_args"])
    from ssl_tilegen.nets.tile_encoder import TileEncoder

    features = config["features"]
    net = timm_network(config["arch"], config["tile_px"], features, config["arch_args"])
    return TileEncoder(net, features, config["dim"] - layout, config["layout_px"], layout)


def timm_network(arch: str, tile_px: int, features: int, arch_args: dict[str, Any]) -> Any:
    """A timm network (N, 3, tile_px, tile_px) -> (N, features). Other sizes work too, but for networks of windows
    (Swin and its like)."""
    import timm

    check_timm(arch, arch_args)
    known = timm.get_pretrained_cfg(arch, allow_unregistered=True) if timm.is_model(arch) else None
    if not (known and known.fixed_input_size):
        return timm.create_model(arch, num_classes=features, **arch_args)
    try:
        return timm.create_model(arch, num_classes=features, img_size=tile_px, dynamic_img_size=True, **arch_args)
    except TypeError:
        return timm.create_model(arch, num_classes=features, img_size=tile_px, **arch_args)
