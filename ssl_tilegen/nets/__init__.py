"""Networks: our own, and diffusers' by class name."""

from __future__ import annotations

from typing import Any

from ssl_tilegen.errors import FormatError


def build_component(config: dict[str, Any]) -> Any:
    """A network from its ``config.json``: ours or any diffusers model named by ``_class_name``; weights are random."""
    import diffusers

    from ssl_tilegen.nets.autoencoder import LinearStartAutoencoder
    from ssl_tilegen.nets.field_unet import FieldUNet

    ours: dict[str, Any] = {"LinearStartAutoencoder": LinearStartAutoencoder, "FieldUNet": FieldUNet}
    name = config.get("_class_name", "")
    kind = ours.get(name) or getattr(diffusers, name, None)
    if kind is None:
        raise FormatError(f"unknown network class '{name}': use {', '.join(ours)} or a model class of diffusers")
    return kind.from_config(config)


def build_encoder(arch: str, tile_px: int, dim: int, arch_args: dict[str, Any]) -> Any:
    """A timm network whose head is the embedding: (N, 3, tile_px, tile_px) -> (N, dim). Other sizes work too."""
    import timm

    of_vit: dict[str, Any] = {"img_size": tile_px, "dynamic_img_size": True} if arch.startswith("vit") else {}
    return timm.create_model(arch, num_classes=dim, **of_vit, **arch_args)
