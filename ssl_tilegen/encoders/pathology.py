"""Encoders of pathology, each with the settings of its authors; adding one is one entry.

Facts are the authors' own (model cards and reference code).
"""

from __future__ import annotations

from ssl_tilegen.encoders.base import HALF, Normalisation
from ssl_tilegen.encoders.card import EncoderCard

_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
_HOPTIMUS = Normalisation((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
_HIBOU = Normalisation((0.7068, 0.5755, 0.7220), (0.1950, 0.2316, 0.1816))
_VIRCHOW = {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", "dynamic_img_size": True} | _SWIGLU
_UNI2 = {
    "patch_size": 14,
    "depth": 24,
    "num_heads": 24,
    "init_values": 1e-5,
    "embed_dim": 1536,
    "img_size": 224,
    "mlp_ratio": 2.66667 * 2,
    "no_embed_class": True,
    "reg_tokens": 8,
    "dynamic_img_size": True,
} | _SWIGLU
_GIGAPATH = {
    "img_size": 224,
    "patch_size": 16,
    "embed_dim": 1536,
    "depth": 40,
    "num_heads": 24,
    "init_values": 1e-5,
    "mlp_ratio": 5.33334,
}
_AT_224 = {"img_size": 224}
_NC = "CC-BY-NC-ND-4.0"
_KAIKO_NC = "Kaiko Non-Commercial"
_KAIKO = "kaiko_ai_towards_large_pathology_fms"

PATHOLOGY: tuple[EncoderCard, ...] = (
    EncoderCard(
        "uni",
        "hf-hub:MahmoodLab/UNI",
        "vit_large_patch16_224",
        1024,
        _NC,
        {"init_values": 1e-5, "dynamic_img_size": True},
        gated=True,
    ),
    EncoderCard("uni2-h", "hf-hub:MahmoodLab/UNI2-h", "vit_giant_patch14_224", 1536, _NC, _UNI2, gated=True),
    EncoderCard(
        "virchow",
        "hf-hub:paige-ai/Virchow",
        "vit_huge_patch14_224",
        2560,
        "Apache-2.0",
        _VIRCHOW,
        pooling="cls+mean",
        gated=True,
    ),
    EncoderCard(
        "virchow2",
        "hf-hub:paige-ai/Virchow2",
        "vit_huge_patch14_224",
        2560,
        _NC,
        _VIRCHOW | {"reg_tokens": 4},
        pooling="cls+mean",
        gated=True,
    ),
    EncoderCard(
        "h-optimus-0",
        "hf-hub:bioptimus/H-optimus-0",
        "vit_giant_patch14_reg4_dinov2",
        1536,
        "Apache-2.0",
        _AT_224 | {"init_values": 1e-5, "dynamic_img_size": False},
        normalisation=_HOPTIMUS,
        gated=True,
    ),
    EncoderCard(
        "h-optimus-1",
        "hf-hub:bioptimus/H-optimus-1",
        "vit_giant_patch14_reg4_dinov2",
        1536,
        _NC,
        _AT_224 | {"init_values": 1e-5, "dynamic_img_size": False},
        normalisation=_HOPTIMUS,
        gated=True,
    ),
    EncoderCard(
        "prov-gigapath",
        "hf-hub:prov-gigapath/prov-gigapath",
        "vit_giant_patch14_dinov2",
        1536,
        "Apache-2.0",
        _GIGAPATH,
        gated=True,
    ),
    EncoderCard("phikon", "owkin/phikon", "vit_base_patch16_224", 768, "Owkin non-commercial", layout="transformers"),
    EncoderCard(
        "phikon-v2",
        "owkin/phikon-v2",
        "vit_large_patch16_224",
        1024,
        "Owkin non-commercial",
        {"init_values": 1.0},
        layout="transformers",
    ),
    EncoderCard(
        "hibou-b",
        "histai/hibou-b",
        "vit_base_patch14_reg4_dinov2",
        768,
        "Apache-2.0",
        _AT_224,
        normalisation=_HIBOU,
        layout="transformers",
    ),
    EncoderCard(
        "hibou-l",
        "histai/hibou-L",
        "vit_large_patch14_reg4_dinov2",
        1024,
        "Apache-2.0",
        _AT_224,
        normalisation=_HIBOU,
        layout="transformers",
        gated=True,
        position="bicubic",
    ),
    EncoderCard(
        "midnight",
        "kaiko-ai/midnight",
        "vit_giant_patch14_dinov2",
        3072,
        "MIT",
        _AT_224,
        normalisation=HALF,
        pooling="cls+mean",
        layout="transformers",
        position="bicubic",
    ),
    EncoderCard(
        "openmidnight",
        "SophontAI/OpenMidnight",
        "vit_giant_patch14_reg4_dinov2",
        1536,
        "Apache-2.0",
        _AT_224,
        layout="hub",
        file="teacher_checkpoint_load.pt",
    ),
    EncoderCard(
        "h0-mini",
        "hf-hub:bioptimus/H0-mini",
        "vit_base_patch14_reg4_dinov2",
        768,
        _NC,
        _AT_224 | {"init_values": 1e-5, "mlp_ratio": 2.66667 * 2} | _SWIGLU,
        normalisation=_HOPTIMUS,
        gated=True,
    ),
    EncoderCard(
        "hipt-vit256",
        "https://github.com/mahmoodlab/HIPT (vit256_small_dino.pth)",
        "vit_small_patch16_224",
        384,
        "Apache-2.0 with Commons Clause (non-commercial)",
        {"img_size": 256},
        tile_px=256,
        normalisation=HALF,
        layout="file",
        position="dino",
    ),
    EncoderCard(
        "ctranspath",
        "https://github.com/Xiyue-Wang/TransPath (ctranspath.pth)",
        "ssl_tilegen.encoders.conv_stem:build_ctranspath",
        768,
        "GPL-3.0",
        pooling="pool",
        layout="file",
    ),
    EncoderCard(
        "kaiko-vits16",
        f"hf-hub:1aurent/vit_small_patch16_224.{_KAIKO}",
        "vit_small_patch16_224",
        384,
        _KAIKO_NC,
        normalisation=HALF,
    ),
    EncoderCard(
        "kaiko-vitb16",
        f"hf-hub:1aurent/vit_base_patch16_224.{_KAIKO}",
        "vit_base_patch16_224",
        768,
        _KAIKO_NC,
        normalisation=HALF,
    ),
)
