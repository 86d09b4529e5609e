"""The name of a cache of latents: a fingerprint of all that the latents and the embeddings depend on.

Options that say which files are read, or how often windows of them are drawn, are not part of it: ``weight``, ``role``,
``domain``, ``flat_keep`` and their like. The files themselves are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config.train import WindowSettings
from ssl_tilegen.encoders.bundle_encoder import encoder_key
from ssl_tilegen.system.hashing import file_state
from ssl_tilegen.training.data.images import TrainingImage
from ssl_tilegen.training.data.paired_grids import paired_grid_path


def cache_folder(folder: Path, images: Sequence[TrainingImage], bundle: ModelBundle, settings: WindowSettings) -> Path:
    """The folder in ``folder`` for the latents of ``images``. Where there is one of an earlier version, that one."""
    found, earlier = (folder / f"latents-{key(images, bundle, settings)}" for key in (_key, _earlier_key))
    return earlier if earlier.is_dir() and not found.is_dir() else found


def _key(images: Sequence[TrainingImage], bundle: ModelBundle, settings: WindowSettings) -> str:
    data = settings.data
    in_parts = not all(image.in_memory for image in images)
    facts = [
        [_image_facts(image, settings) for image in images],
        [data.stain, data.brightness, data.memory_mib if in_parts else None],
        [settings.offsets, settings.run.seed, encoder_key(bundle), bundle.component_hash("autoencoder")],
    ]
    return _digest(facts)


def _image_facts(image: TrainingImage, settings: WindowSettings) -> list[Any]:
    source = settings.data.sources[image.source]
    size, resolution = image.size, image.resolution
    grid = file_state(paired_grid_path(image, source.grids) / "zarr.json") if source.grids else None
    return [image.path.name, file_state(image.path), [size.rows, size.cols], [resolution.value, resolution.unit],
            source.shrink, image.in_memory, ["grid", grid] if source.grids else source.turns]  # fmt: skip


def _earlier_key(images: Sequence[TrainingImage], bundle: ModelBundle, settings: WindowSettings) -> str:
    """The key up to version 0.1.0, of which ``role``, ``domain`` and ``memory_mib`` were always a part."""
    sources = settings.data.sources
    grids = [(image, sources[image.source].grids) for image in images]
    of_sources = {"__all__": {"paths", "exclude", "weight"}}
    options = settings.data.model_dump(exclude={"sources": of_sources, "flat_keep": True, "group": True,
                                                "validation_share": True})  # fmt: skip
    facts = [
        [(p.path.name, file_state(p.path), (p.size.rows, p.size.cols), p.source) for p in images],
        [file_state(paired_grid_path(image, pattern) / "zarr.json") for image, pattern in grids if pattern],
        options,
        [settings.offsets, settings.run.seed, encoder_key(bundle), bundle.component_hash("autoencoder")],
    ]
    return _digest(facts)


def _digest(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
