"""The stages of `train`: one file of options each, and the table by which they are found.

A new stage is a file of options here, a file with its `TrainingStage`, and a line in ``STAGES``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ssl_tilegen.config.loading import load_settings
from ssl_tilegen.config.train.autoencoder import AutoencoderSettings
from ssl_tilegen.config.train.common import DataSettings, RunSettings, SourceSettings, StageSettings
from ssl_tilegen.config.train.denoiser import DenoiserSettings, WindowSettings
from ssl_tilegen.config.train.encoder import EncoderSettings, ProbeSettings
from ssl_tilegen.config.train.painter import PainterSettings
from ssl_tilegen.config.train.prior import PriorSettings
from ssl_tilegen.errors import SettingError

__all__ = [
    "STAGES",
    "AutoencoderSettings",
    "DataSettings",
    "DenoiserSettings",
    "EncoderSettings",
    "PainterSettings",
    "PriorSettings",
    "ProbeSettings",
    "RunSettings",
    "SourceSettings",
    "StageEntry",
    "StageSettings",
    "WindowSettings",
    "load_stage_settings",
]


class StageEntry(NamedTuple):
    """A stage: its options, and ``module:Class`` of its `TrainingStage` (imported when it is trained)."""

    settings: type[StageSettings]
    implementation: str


STAGES: dict[str, StageEntry] = {
    "encoder": StageEntry(EncoderSettings, "ssl_tilegen.training.encoder:EncoderStage"),
    "autoencoder": StageEntry(AutoencoderSettings, "ssl_tilegen.training.autoencoder:AutoencoderStage"),
    "denoiser": StageEntry(DenoiserSettings, "ssl_tilegen.training.denoiser:DenoiserStage"),
    "painter": StageEntry(PainterSettings, "ssl_tilegen.training.painter:PainterStage"),
    "prior": StageEntry(PriorSettings, "ssl_tilegen.training.prior:PriorStage"),
}


def load_stage_settings(stage: str, file: Path, overrides: Iterable[str] = ()) -> Any:
    """The settings of a stage from a TOML file, with ``a.b=value`` overrides on top.

    Relative paths are resolved against the file's folder; those of a bundle, of a text encoder and of a
    pretrained encoder (``local-dir:FOLDER``) only where such a folder lies there, else they are names. Raises
    SettingError or InputError with one line.
    """
    if stage not in STAGES:
        raise SettingError(f"unknown stage '{stage}': use one of {', '.join(STAGES)}")
    return load_settings(STAGES[stage].settings, file, overrides=overrides).anchored(file.parent)
