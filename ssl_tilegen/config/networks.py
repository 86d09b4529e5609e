"""Limits of the networks that a file may name: classes and arguments from lists, values within bounds.

A bundle comes from anywhere. Its configuration names a class and its arguments, and some that timm takes read files or
fetch from the network (``checkpoint_path``, ``pretrained``, ``hf-hub:``): none of those is in the lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ssl_tilegen.errors import FormatError

DIFFUSERS = frozenset({
    "AsymmetricAutoencoderKL", "AutoencoderDC", "AutoencoderKL", "AutoencoderKLFlux2", "AutoencoderTiny",
    "DiTTransformer2DModel", "PixArtTransformer2DModel", "SD3Transformer2DModel", "Transformer2DModel",
    "UNet2DConditionModel", "UNet2DModel", "VQModel",
})  # fmt: skip
"""Classes of diffusers that may be a component of a bundle."""

TIMM_ARGUMENTS = frozenset({
    "act_layer", "attn_drop_rate", "attn_pool_mlp_ratio", "attn_pool_num_heads", "attn_type", "avg_down", "base_width",
    "block_reduce_first", "cardinality", "channels", "class_token", "conv_bias", "conv_mlp", "depth", "depths", "dims",
    "down_kernel_size", "drop_path_rate", "drop_rate", "dynamic_img_pad", "dynamic_img_size", "embed_dim", "fc_norm",
    "features_only",
    "final_norm", "fix_init", "global_pool", "head_dim", "head_hidden_size", "head_init_scale", "head_norm_first",
    "img_size", "in_chans", "init_values", "kernel_sizes", "layers", "ls_init_value", "mlp_layer", "mlp_ratio",
    "no_embed_class", "norm_eps", "norm_layer", "num_heads", "num_reg_tokens", "out_indices", "output_stride",
    "patch_drop_rate",
    "patch_size", "pos_drop_rate", "pos_embed", "pre_norm", "proj_bias", "proj_drop_rate", "qk_norm", "qkv_bias",
    "qkv_fused", "ref_feat_shape", "reg_tokens", "rope_temperature", "rope_type", "scale_attn_inner", "scale_attn_norm",
    "scale_mlp", "scale_mlp_norm", "stem_type", "stem_width", "strict_img_size", "swiglu_align_to", "swiglu_mlp",
    "use_abs_pos_emb", "use_fc_norm", "use_grn", "use_post_norm", "use_rot_pos_emb", "weight_init", "window_size",
    "zero_init_last",
})  # fmt: skip
"""Arguments of timm's networks that say how they are built; none reads a file or fetches anything."""

TIMM_LAYERS = {"mlp_layer": frozenset({"GluMlp", "Mlp", "SwiGLU", "SwiGLUPacked"}),
               "act_layer": frozenset({"GELU", "ReLU", "SiLU"})}  # fmt: skip
"""Layers that are named by their class: argument -> names."""

_LARGEST, _LONGEST, _DEEPEST, _TEXT = 1_000_000, 1_000, 4, 200
_REPEATED = ("depth", "layers", "blocks")


def check_timm(arch: Any, arguments: Any) -> None:
    """FormatError unless ``arch`` is a network of timm by its plain name and all ``arguments`` are allowed."""
    import timm

    if not isinstance(arch, str) or not timm.is_model(arch):
        raise FormatError(f"unknown network {str(arch)[:_TEXT]!r}: use the name of a model of timm")
    if not isinstance(arguments, Mapping):
        raise FormatError(f"the arguments of network {arch} are {type(arguments).__name__}, not a table")
    for name, value in arguments.items():
        if name not in TIMM_ARGUMENTS:
            raise FormatError(
                f"network argument {str(name)[:_TEXT]!r} of {arch}: not one that is allowed; leave it out"
            )
        if isinstance(value, str) and name in TIMM_LAYERS and value not in TIMM_LAYERS[name]:
            raise FormatError(
                f"network argument {name} = {value[:_TEXT]!r}: use {', '.join(sorted(TIMM_LAYERS[name]))}"
            )
    check_values(arguments)


def check_values(arguments: Mapping[str, Any]) -> None:
    """FormatError where an argument is beyond that of any network, so that building it would take the machine."""
    for name, value in arguments.items():
        most = _LONGEST if any(word in str(name) for word in _REPEATED) else _LARGEST
        if not _within(value, most, _DEEPEST):
            shown = repr(value)[:60]
            raise FormatError(f"network argument {str(name)[:_TEXT]!r} = {shown}: out of bounds; the file is broken")


def _within(value: Any, most: float, depth: int) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return math.isfinite(value) and abs(value) <= most
    if isinstance(value, str):
        return len(value) <= _TEXT
    if isinstance(value, Mapping):
        value = [*value.values(), *map(str, value)]
    return isinstance(value, list | tuple) and depth > 0 and len(value) <= _LONGEST and all(
        _within(item, most, depth - 1) for item in value
    )  # fmt: skip
