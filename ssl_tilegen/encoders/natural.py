"""Encoders of natural and aerial images, each with the settings of its authors; adding one is one entry.

Facts are the authors' own (model cards and reference code).
"""

from __future__ import annotations

from ssl_tilegen.encoders.base import HALF, Normalisation
from ssl_tilegen.encoders.card import EncoderCard

_SATELLITE = Normalisation((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
_AT_224 = {"img_size": 224}

NATURAL: tuple[EncoderCard, ...] = (
    EncoderCard(
        "dinov2-small",
        "vit_small_patch14_dinov2.lvd142m",
        "vit_small_patch14_dinov2",
        384,
        "Apache-2.0",
        _AT_224,
        mpp=None,
    ),
    EncoderCard(
        "dinov2-base",
        "vit_base_patch14_dinov2.lvd142m",
        "vit_base_patch14_dinov2",
        768,
        "Apache-2.0",
        _AT_224,
        mpp=None,
    ),
    EncoderCard(
        "dinov2-large",
        "vit_large_patch14_dinov2.lvd142m",
        "vit_large_patch14_dinov2",
        1024,
        "Apache-2.0",
        _AT_224,
        mpp=None,
    ),
    EncoderCard(
        "dinov2-l-reg",
        "vit_large_patch14_reg4_dinov2.lvd142m",
        "vit_large_patch14_reg4_dinov2",
        1024,
        "Apache-2.0",
        _AT_224,
        mpp=None,
    ),
    EncoderCard(
        "dinov3-small",
        "vit_small_patch16_dinov3.lvd1689m",
        "vit_small_patch16_dinov3",
        384,
        "DINOv3 License",
        tile_px=256,
        mpp=None,
    ),
    EncoderCard(
        "dinov3-base",
        "vit_base_patch16_dinov3.lvd1689m",
        "vit_base_patch16_dinov3",
        768,
        "DINOv3 License",
        tile_px=256,
        mpp=None,
    ),
    EncoderCard(
        "dinov3-large",
        "vit_large_patch16_dinov3.lvd1689m",
        "vit_large_patch16_dinov3",
        1024,
        "DINOv3 License",
        tile_px=256,
        mpp=None,
    ),
    EncoderCard(
        "dinov3-sat",
        "vit_large_patch16_dinov3.sat493m",
        "vit_large_patch16_dinov3",
        1024,
        "DINOv3 License",
        tile_px=256,
        mpp=None,
        normalisation=_SATELLITE,
    ),
    EncoderCard(
        "imagenet-vit-small",
        "vit_small_patch16_224.augreg_in21k_ft_in1k",
        "vit_small_patch16_224",
        384,
        "Apache-2.0",
        mpp=None,
        normalisation=HALF,
    ),
    EncoderCard(
        "imagenet-vit-base",
        "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "vit_base_patch16_224",
        768,
        "Apache-2.0",
        mpp=None,
        normalisation=HALF,
    ),
)
