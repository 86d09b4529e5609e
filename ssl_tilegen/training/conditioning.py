"""The conditioning of a denoiser in training: the object that the sampler uses, for the network that is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.diffusion.coarse_latents import LocalCondition
from ssl_tilegen.diffusion.conditioning import Conditioning, ConditioningSpec, FieldConditioning, TokenConditioning
from ssl_tilegen.errors import SettingError
from ssl_tilegen.nets.conditioner import TokenConditioner
from ssl_tilegen.nets.window import is_local


def conditioning_of(module: Any, bundle: ModelBundle, window_lat: int) -> Conditioning:
    """The conditioning of ``module`` for windows of ``window_lat`` latents; a copy that reading threads may use."""
    if is_local(module):
        side = module.sketch_side
        decode_cells = _cell_decoder(module) if side else None
        return FieldConditioning(
            LocalCondition(module.field_stride, bundle.info.encoder.layout_dim, side, decode_cells), module.field_stride
        )
    spec = bundle.info.conditioning if brings_conditioner(bundle) else None
    if spec and spec.landing == "cells" and window_lat * bundle.factor != spec.cells * bundle.info.encoder.tile_px:
        k, side = spec.cells, spec.cells * bundle.info.encoder.tile_px // bundle.factor
        raise SettingError(f"window_lat = {window_lat}: windows of {bundle.info.name} are {k} x {k} cells; set {side}")
    return TokenConditioning.of(spec or ConditioningSpec(), window_lat)


def conditioner_of(bundle: ModelBundle, *, unit_length: bool) -> Any:
    """The module that turns conditions into tokens: the bundle's own, unchanged, or one token per window."""
    if brings_conditioner(bundle):
        return bundle.conditioner
    return TokenConditioner(bundle.info.encoder.dim, scaling="unit_length" if unit_length else "none")


def token_dim(bundle: ModelBundle) -> int:
    """Length of the tokens that a denoiser of windows gets."""
    if not brings_conditioner(bundle):
        return bundle.info.encoder.dim
    config: Any = bundle.conditioner.config
    return config.out_dim if "out_dim" in config else config.dim + config.constant_tokens


def brings_conditioner(bundle: ModelBundle) -> bool:
    """Whether the bundle was made with a conditioner of its own, as imported ones are."""
    return bundle.has("conditioner")


def _cell_decoder(module: Any) -> Callable[[Tensor], Tensor]:
    """The network's own ``decode_cells``, from a copy on the CPU that reading threads may use."""
    weight, bias, side = module.sketch.weight.clone(), module.sketch.bias.clone(), module.sketch_side
    return lambda vectors: nn.functional.linear(vectors, weight, bias).unflatten(-1, (-1, side, side))
