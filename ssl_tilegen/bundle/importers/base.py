"""The input and output of every importer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from ssl_tilegen.bundle.importers.checkpoint import read_checkpoint
from ssl_tilegen.bundle.importers.mapped import read_safetensors
from ssl_tilegen.bundle.importers.weights import Component
from ssl_tilegen.errors import FormatError, InputError
from ssl_tilegen.geometry import Resolution

NO_LICENCE = "none stated"
"""The first words of the licence of weights that their authors did not allow to be passed on."""


@dataclass(frozen=True)
class ImportOptions:
    """Facts that the files do not state and the user may give.

    Args:
        vae: Folder of the autoencoder, where the source does not have its weights.
        config: The training configuration (YAML) of a checkpoint.
        encoder: Name of the encoder whose embeddings condition the model.
        encoder_weights: Weights of that encoder, a file or a folder, to be kept in the bundle.
        resolution: The resolution that it paints at.
        magnification: Which of its magnifications a multi-scale model is to paint at, as ``20x``.
        name: The bundle's name.
        origin: Where the source was fetched from, ``hf-hub:ORG/NAME``.
    """

    vae: Path | None = None
    config: Path | None = None
    encoder: str | None = None
    encoder_weights: Path | None = None
    resolution: Resolution | None = None
    magnification: str | None = None
    name: str | None = None
    origin: str | None = None


@dataclass(frozen=True)
class Imported:
    """A published model in our terms, its weights still in the files they came from.

    ``info`` are fields of ``bundle.json``, ``left_out`` the tensors that were not taken, each with the reason.
    """

    family: str
    info: dict[str, Any]
    scheduler: dict[str, Any]
    components: dict[str, Component]
    licence: str
    origin: str
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def checked(self) -> Imported:
        """This model, when all weights fit their networks by name and shape. Raises FormatError where one does not."""
        for name, component in self.components.items():
            component.check(f"{self.family} {name}")
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(component.nbytes for component in self.components.values())


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a component's folder in diffusers layout (safetensors, else ``.bin``), memory-mapped.

    Raises InputError where there are none, FormatError where a file is broken.
    """
    files = _weight_files(folder)
    tensors: dict[str, Tensor] = {}
    for path in files:
        if path.suffix == ".safetensors":
            tensors |= dict(read_safetensors(path))
        else:
            tensors |= read_checkpoint(path)
    return tensors


def has_weights(folder: Path) -> bool:
    """Whether a component's folder has weights that can be read."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises InputError where there is no file, FormatError where it holds no object."""
    return _mapping(path, lambda text: json.loads(text), "JSON")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping of plain values from a file. Raises as ``read_json``."""
    return _mapping(path, yaml.safe_load, "YAML")


def constant_latents(scale: float, shift: float, channels: int) -> dict[str, Any]:
    """``latent_scale`` and ``latent_mean`` of a bundle where all channels share one scale and shift."""
    return {"latent_mean": [shift] * channels, "latent_scale": [scale] * channels}


def _mapping(path: Path, parse: Any, kind: str) -> dict[str, Any]:
    try:
        facts = parse(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); the source is incomplete") from None
    except (ValueError, yaml.YAMLError):
        raise FormatError(f"{path}: not valid {kind}") from None
    if not isinstance(facts, Mapping):
        raise FormatError(f"{path}: not a {kind} mapping")
    return dict(facts)


def _weight_files(folder: Path) -> list[Path]:
    """The files of one copy of the weights: those that an index names, or all of the one plain variant."""
    for index in sorted(folder.glob("*.index.json")):
        if "fp16" not in index.name:
            names = sorted(set(read_json(index).get("weight_map", {}).values()))
            return [folder / Path(name).name for name in names]
    plain = [path for path in sorted(folder.glob("*.safetensors")) if ".fp16" not in path.name]
    files = plain or sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not files:
        raise InputError(f"{folder}: no weights (*.safetensors or *.bin); fetch the whole folder")
    return files[:1] if len(files) > 1 and not any("-of-" in path.name for path in files) else files
