"""Vectors of windows: which encoders are asked, and how a window of any side becomes one vector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ssl_tilegen import __version__
from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.bundle_encoder import encoder_of
from ssl_tilegen.encoders.efficientnet_lite import NAME as EFFICIENTNET
from ssl_tilegen.encoders.efficientnet_lite import EfficientNetLiteEncoder
from ssl_tilegen.encoders.texture import NAME as TEXTURE
from ssl_tilegen.encoders.texture import TextureEncoder
from ssl_tilegen.errors import FormatError, InputError
from ssl_tilegen.geometry import Resolution, starts
from ssl_tilegen.grids import EmbeddingGrid, Validity, shards
from ssl_tilegen.system.device import pick_device
from ssl_tilegen.system.progress import Progress, silent
from ssl_tilegen.workflows.evaluate.feature_cache import FeatureCache
from ssl_tilegen.workflows.evaluate.image_sets import ImageSet, same_encoder
from ssl_tilegen.workflows.evaluate.windows import Place, common_resolution, places, windows

BUNDLE, INCEPTION = "bundle", "inception"
_AT_ONCE = 64  # windows
_ONE_CROP = 1.5  # a window this much larger than the encoder's tile is still seen by one tile in its middle


class Features(NamedTuple):
    """``x`` (N, D) float32, ``groups`` (N,) text, and where each vector comes from (empty for grids)."""

    x: np.ndarray
    groups: np.ndarray
    places: tuple[Place, ...] = ()

    def take(self, index: np.ndarray) -> Features:
        """The vectors of ``index`` and their groups."""
        return Features(self.x[index], self.groups[index])


def load_encoders(settings: EvaluateSettings, window_px: int, own: Encoder | None = None) -> dict[str, Encoder]:
    """The encoders of ``settings`` by name: ``efficientnet-lite1``, ``texture``, ``bundle`` (that of --model; ``own``
    where it is loaded already), ``inception`` (with --weights), or any that `embed` takes."""
    device = pick_device(settings.device)
    return {name: own if own and name == BUNDLE else _load(name, settings, window_px, device)
            for name in settings.encoder}  # fmt: skip


def _load(name: str, settings: EvaluateSettings, window_px: int, device: torch.device) -> Encoder:
    """Libraries that take seconds to import are imported for the encoder that needs them."""
    if name == TEXTURE:
        return TextureEncoder(window_px, device=device)
    if name == EFFICIENTNET:
        return EfficientNetLiteEncoder(window_px, device=device, batch=settings.batch)
    if name == BUNDLE:
        return encoder_of(ModelBundle.load(settings.model, device), batch=settings.batch)
    if name == INCEPTION:
        from ssl_tilegen.encoders.inception import InceptionEncoder

        return InceptionEncoder(window_px, settings.weights, device=device, batch=settings.batch)
    from ssl_tilegen.encoders.timm_encoder import load_timm_encoder

    return load_timm_encoder(name, weights=settings.weights, device=device, batch=settings.batch)


def describe_windows(encoder: Encoder, tiles: np.ndarray) -> np.ndarray:
    """uint8 (N, S, S, 3) windows of any side -> float32 (N, D).

    An encoder that has a resolution sees the window at its own scale: one tile in the middle, or the mean over tiles
    that cover it. One that has none sees it resized, as it was trained on whole images.
    """
    side, tile = tiles.shape[1], encoder.tile_px
    if side == tile:
        return _batched(encoder, tiles)
    if side < tile or encoder.resolution is None:
        return _batched(encoder, np.stack([_resized(t, tile) for t in tiles]))
    if side < _ONE_CROP * tile:
        lead = (side - tile) // 2
        return _batched(encoder, tiles[:, lead : lead + tile, lead : lead + tile])
    at = starts(side, tile, tile)
    cells = np.concatenate([tiles[:, r : r + tile, c : c + tile] for r in at for c in at])
    return _batched(encoder, cells).reshape(len(at) ** 2, len(tiles), -1).mean(0)


def features_of(
    encoders: dict[str, Encoder],
    found: Sequence[Place],
    groups: Sequence[str],
    threads: int,
    stage: str,
    progress: Progress = silent,
    cache: FeatureCache | None = None,
    if_unknown: Resolution | None = None,
) -> dict[str, Features]:
    """The vectors of all windows by every encoder, each window read once; those that ``cache`` has are not read again.

    InputError where nothing could be used.
    """
    cached = (cache or FeatureCache()).cached(key_of(encoders, found, if_unknown), list(encoders))
    waiting: list[tuple[int, np.ndarray]] = []

    def describe() -> None:
        index, tiles = np.array([i for i, _ in waiting]), np.stack([rgb for _, rgb in waiting])
        cached.add(index, {name: describe_windows(encoder, tiles) for name, encoder in encoders.items()})
        waiting.clear()

    for index, rgb in windows(found, threads, after=cached.last, if_unknown=if_unknown):
        waiting.append((index, rgb))
        if len(waiting) == _AT_ONCE:
            describe()
            progress(stage, index + 1, len(found))
    if waiting:
        describe()
    progress(stage, len(found), len(found))
    kept, vectors = cached.read()
    if not len(kept):
        raise InputError(f"{found[0].image.path if found else stage}: shows nothing but background or missing data")
    places, own = tuple(found[i] for i in kept), np.array([groups[i] for i in kept])
    return {name: Features(x, own, places) for name, x in vectors.items()}


def key_of(encoders: Mapping[str, Encoder], found: Sequence[Place], if_unknown: Resolution | None) -> str:
    """The same for the same windows of unchanged files, seen by the same encoders of this version."""
    files = dict.fromkeys(place.image.path for place in found)
    facts = [
        __version__,
        [(name, own.weights_sha256, own.tile_px, own.pooling) for name, own in encoders.items()],
        [(str(path.absolute()), *_state(path)) for path in files],
        [(str(place.image.path), str(place.window), place.factor) for place in found],
        str(if_unknown),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _state(path: Path) -> tuple[int, int]:
    """Bytes and time of the newest change; of a folder (.zarr), those of all files in it."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    facts = [file.stat() for file in files]
    return sum(own.st_size for own in facts), max((own.st_mtime_ns for own in facts), default=0)


def features_of_grids(grids: Sequence[EmbeddingGrid]) -> Features:
    """The vectors of all cells of foreground, in blocks of 8 x 8 cells as groups."""
    same_encoder(grids)
    parts, groups = [], []
    for grid in grids:
        for window in shards(grid.shape):
            cells = grid.read(window)
            rows, cols = np.nonzero(cells.valid == Validity.OK)
            parts.append(cells.embedding[rows, cols].astype(np.float32))
            blocks = zip((rows + window.row) // 8, (cols + window.col) // 8, strict=True)
            groups += [f"{grid.path.name}@{r},{c}" for r, c in blocks]
    if not groups:
        raise InputError(f"{grids[0].path}: no cell of foreground in it; embed another image")
    return Features(np.concatenate(parts), np.array(groups))


def _batched(encoder: Encoder, tiles: np.ndarray) -> np.ndarray:
    parts = [encoder.embed(tiles[i : i + encoder.batch]) for i in range(0, len(tiles), encoder.batch)]
    return np.concatenate(parts).astype(np.float32)


def _resized(tile: np.ndarray, side: int) -> np.ndarray:
    from skimage.transform import resize

    smaller = side < tile.shape[0]
    return (resize(tile, (side, side), order=1, anti_aliasing=smaller, preserve_range=True) + 0.5).astype(np.uint8)


def describe_paired_grids(
    sets: Mapping[str, ImageSet],
    encoders: dict[str, Encoder],
    settings: EvaluateSettings,
    progress: Progress,
    cache: FeatureCache | None = None,
) -> dict[str, dict[str, Features]]:
    """Grids against images: images are cut into the grids' own tiles. FormatError where the encoders differ."""
    grids = [grid for part in sets.values() for grid in part.grids]
    same_encoder(grids)
    facts, encoder = grids[0].spec.encoder, encoders[BUNDLE]
    if facts.weights_sha256 != encoder.weights_sha256:
        raise FormatError(
            f"{grids[0].path}: made by {facts.id}, the encoder of --model is {encoder.id}; give the bundle "
            "that made the grid, or compare grids of one encoder"
        )
    found: dict[str, dict[str, Features]] = {}
    for name, part in sets.items():
        if part.grids:
            found[name] = {BUNDLE: features_of_grids(part.grids)}
            continue
        resolution = common_resolution([part], settings.resolution or grids[0].spec.resolution)
        at, groups = places(part, encoder.tile_px, resolution, limit=settings.limit)
        found[name] = features_of({BUNDLE: encoder}, at, groups, settings.reading_threads, f"describe {name}", progress,
                                  cache, settings.resolution)  # fmt: skip
    return found
