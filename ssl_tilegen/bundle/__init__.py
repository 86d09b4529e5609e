"""Model bundles: one folder in diffusers layout with all it takes to embed and to generate."""

from ssl_tilegen.bundle.components import save_component, save_prior, weight_files
from ssl_tilegen.bundle.find import BUILT_IN, find_bundle
from ssl_tilegen.bundle.info import (
    SCHEDULER,
    BundleInfo,
    EncoderInfo,
    Origin,
    Sampling,
    read_json,
    read_prior_info,
    resolutions_of,
    update_info,
    write_info,
)
from ssl_tilegen.bundle.model_bundle import ModelBundle

__all__ = [
    "BUILT_IN",
    "SCHEDULER",
    "BundleInfo",
    "EncoderInfo",
    "ModelBundle",
    "Origin",
    "Sampling",
    "find_bundle",
    "read_json",
    "read_prior_info",
    "resolutions_of",
    "save_component",
    "save_prior",
    "update_info",
    "weight_files",
    "write_info",
]
