"""Weights of ViT and DINOv2 models in the layout of transformers, renamed for timm's vision transformer."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_NAMES = (
    (r"^(vit|dinov2|model)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
    (r"\.(layernorm_before|norm1)\.", ".norm1."),
    (r"\.(layernorm_after|norm2)\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)
_UNUSED = re.compile(r"mask_token|pooler|classifier|decoder|^head\.")
_GATED = re.compile(r"^(blocks\.\d+)\.mlp\.(gate|up)_proj\.(weight|bias)$")
_QKV = re.compile(r"^(blocks\.\d+)\.attention\.(?:attention\.)?(query|key|value|q_proj|k_proj|v_proj)\.(weight|bias)$")


def to_timm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by transformers' names -> by timm's; query, key and value are stacked into one matrix, and so are the
    gate and what it gates."""
    renamed: dict[str, Tensor] = {}
    stacks: dict[str, dict[str, Tensor]] = {}
    gated: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        if match := _QKV.match(name):
            stacks.setdefault(f"{match[1]}.attn.qkv.{match[3]}", {})[match[2][0]] = tensor
        elif match := _GATED.match(name):
            gated.setdefault(f"{match[1]}.mlp.fc1.{match[3]}", {})[match[2]] = tensor
        elif not _UNUSED.search(name):
            renamed[name] = tensor
    stacked = {name: torch.cat([parts[letter] for letter in "qkv"]) for name, parts in stacks.items()}
    stacked |= {name: torch.cat([parts["gate"], parts["up"]]) for name, parts in gated.items()}
    return _fold_class_position(renamed | stacked) if "reg_token" in renamed else renamed | stacked


def _fold_class_position(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With register tokens timm keeps positions of patches only: the class token's own is added to it once for all."""
    position = weights["pos_embed"]
    return weights | {"cls_token": weights["cls_token"] + position[:, :1], "pos_embed": position[:, 1:]}
