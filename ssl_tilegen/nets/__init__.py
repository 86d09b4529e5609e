"""Networks: our own, and diffusers' by class name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from typing import Any

from ssl_tilegen.config.networks import DIFFUSERS, check_timm, check_values
from ssl_tilegen.errors import FormatError

_MISFITS = (TypeError, ValueError, ArithmeticError, RuntimeError, AssertionError, AttributeError, LookupError)
_OURS = {
    "LinearStartAutoencoder": "autoencoder",
    "FieldUNet": "field_unet",
    "WindowDiT": "window_dit",
    "GridPrior": "grid_prior",
    "GridUNet": "grid_unet",
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
    with _as_configured(name):
        return kind.from_config(config)


def build_encoder(config: dict[str, Any]) -> Any:
    """A tile encoder from its ``config.json``: (N, 3, tile_px, tile_px) -> (N, dim); weights are random.

    A timm network (``arch``, ``arch_args``) whose head is the embedding; with ``layout_dim`` a TileEncoder around it.
    Networks that we have ourselves are made without timm, whose import takes longer than all else that `embed` does.
    """
    check_values({key: value for key, value in config.items() if key != "arch_args"})
    layout, arch, arch_args = config.get("layout_dim", 0), config["arch"], config["arch_args"]
    features = config["features"] if layout else config["dim"]
    net = own_network(arch, features, arch_args) or timm_network(arch, config["tile_px"], features, arch_args)
    if not layout:
        return net
    from ssl_tilegen.nets.tile_encoder import TileEncoder

    return TileEncoder(net, features, config["dim"] - layout, config["layout_px"], layout)


def own_network(arch: Any, features: int, arch_args: Any) -> Any:
    """Our edition of a timm network, with the same state dict and the same numbers; None where we have none."""
    if not isinstance(arch, str) or not isinstance(arch_args, Mapping):
        return None
    variant, levels = arch.removeprefix("tf_efficientnet_lite"), arch_args.get("out_indices", ())
    if variant in ("0", "1", "2", "3", "4") and set(arch_args) == {"features_only", "out_indices"} and _rises(levels):
        from ssl_tilegen.nets.efficientnet_lite import EfficientNetLite
        from ssl_tilegen.nets.layers import PooledMaps

        body = EfficientNetLite(int(variant), levels)
        return PooledMaps(body, body.channels)
    return None


def _rises(levels: Any) -> bool:
    """Whether these are levels of a pyramid, 0 to 4, each above the one before."""
    return isinstance(levels, list | tuple) and bool(levels) and all(level in range(5) for level in levels) and all(
        a < b for a, b in pairwise(levels))  # fmt: skip


def timm_network(arch: str, tile_px: int, features: int, arch_args: dict[str, Any]) -> Any:
    """A timm network (N, 3, tile_px, tile_px) -> (N, features). Other sizes work too, but for networks of windows
    (Swin and its like)."""
    import timm

    check_timm(arch, arch_args)
    if arch_args.get("features_only"):
        from ssl_tilegen.nets.backbones import pooled_stages

        try:
            return pooled_stages(arch, **arch_args)
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0][:120]
            raise FormatError(f"network {arch}: has no such features ({reason}); use other out_indices") from None
    known = timm.get_pretrained_cfg(arch, allow_unregistered=True) if timm.is_model(arch) else None
    with _as_configured(arch):
        if not (known and known.fixed_input_size):
            return timm.create_model(arch, num_classes=features, **arch_args)
        try:
            return timm.create_model(arch, num_classes=features, img_size=tile_px, dynamic_img_size=True, **arch_args)
        except TypeError:
            return timm.create_model(arch, num_classes=features, img_size=tile_px, **arch_args)


@contextmanager
def _as_configured(name: str) -> Iterator[None]:
    """FormatError where the library cannot build a network of the arguments it was given."""
    try:
        yield
    except _MISFITS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FormatError(f"network {name[:100]}: cannot be built of its configuration ({reason})") from error
