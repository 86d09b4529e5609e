"""The part of a denoiser that ``start_from`` provides: network, window, target, statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config.train import WindowSettings
from ssl_tilegen.encoders.bundle_encoder import encoder_key
from ssl_tilegen.errors import SettingError
from ssl_tilegen.training.warm_start import fill_what_fits, said_of_start

_TARGETS = {"flow": "flow", "v_prediction": "v", "epsilon": "epsilon"}
_STATISTICS = {"condition_mean": "encoder", "condition_std": "encoder", "latent_std": "autoencoder",
               "colour": "autoencoder"}  # fmt: skip
"""Buffers that were measured on images, and the component whose output they describe."""
_NOT_OF_THE_NET = ("_diffusers_version", "prediction_type", "scheduler")


@dataclass(frozen=True)
class Start:
    """The bundle that a denoiser begins as, beside the one whose encoder and autoencoder are used."""

    name: str
    theirs: ModelBundle
    ours: ModelBundle

    @classmethod
    def of(cls, settings: WindowSettings, bundle: ModelBundle) -> Start | None:
        """The start of a run; None where it begins with random weights."""
        if not settings.start_from:
            return None
        return cls(settings.start_from, ModelBundle.load(settings.start_from), bundle)

    def completed(self, settings: WindowSettings) -> WindowSettings:
        """The settings; a window and a target that the user left out are the bundle's."""
        info, given = self.theirs.info, settings.model_fields_set
        changes: dict[str, Any] = {}
        if "window_lat" not in given and info.window_px:
            changes["window_lat"] = info.window_px // self.theirs.factor
        if "target" not in given and info.prediction_type in _TARGETS:
            changes["target"] = _TARGETS[info.prediction_type]
            if changes["target"] != "flow" and "scheduler" not in given:
                changes["scheduler"] = self.theirs.scheduler_config
        return settings.model_copy(update=changes)

    def net(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """The configuration of its network, unless ``[net]`` asks for another class."""
        config = {k: v for k, v in self.theirs.denoiser.config.items() if k not in _NOT_OF_THE_NET}
        name = type(self.theirs.denoiser).__name__
        return {**config, "_class_name": name} if wanted.get("_class_name", name) == name else {}

    def latent_statistics(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and scale of its latents, where both have one autoencoder; None where they must be measured."""
        mean, scale = self.theirs.info.latent_mean, self.theirs.info.latent_scale
        if not mean or not scale or not self._same("autoencoder"):
            return None
        return np.array(mean, np.float32), np.array(scale, np.float32)

    @property
    def needs_translation(self) -> bool:
        """Whether another encoder, for tiles of the same side, conditioned it (a local network)."""
        same_side = self.theirs.info.encoder.tile_px == self.ours.info.encoder.tile_px
        return same_side and hasattr(self.theirs.denoiser, "condition_in") and not self._same("encoder")

    def fill(self, module: Any, *, statistics: bool, weights: dict[str, Tensor] | None = None) -> str:
        """Put its weights (or ``weights`` instead) into ``module`` as far as they fit; ``statistics``: and the buffers
        that were measured on its images. Returns how many were taken. SettingError where nothing fits."""
        weights = weights or self.theirs.denoiser.state_dict()
        left = fill_what_fits(module, weights)
        if len(left) == len(list(module.named_parameters())):
            kind = type(module).__name__
            raise SettingError(f"start_from {self.name}: nothing of its denoiser fits this {kind}; leave start_from "
                               "out or take the [net] it was trained with")  # fmt: skip
        for name, buffer in module.named_buffers() if statistics and self._same("autoencoder") else ():
            part = _STATISTICS.get(name)
            if part and self._same(part) and name in weights and weights[name].shape == buffer.shape:
                buffer.copy_(weights[name])
        return said_of_start(self.name, module, left)

    def _same(self, component: str) -> bool:
        if component == "encoder":
            return encoder_key(self.theirs) == encoder_key(self.ours)
        return self.theirs.component_hash(component) == self.ours.component_hash(component)
