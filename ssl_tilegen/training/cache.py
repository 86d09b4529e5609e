"""What the denoiser trains on, computed once: latents of whole images and the embeddings of their cells.

Each image is kept in several turns (flips and rotations), each turn with the cells of several lattice offsets, so
that training windows fall anywhere between the cells, as windows of a generated canvas do. Kept in one ``.npz`` file
named after a fingerprint of everything that went in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Window
from ssl_tilegen.runtime import autocast
from ssl_tilegen.training.data import Corpus, to_signed, turned
from ssl_tilegen.training.settings import DenoiserSettings

_EMBED_BATCH = 512


@dataclass(frozen=True)
class Grid:
    """Cells (R, K, D) float16 of a lattice without gaps whose first tile starts at ``corner_px`` (row, col)."""

    corner_px: tuple[int, int]
    cells: np.ndarray


@dataclass(frozen=True)
class Scene:
    """One turned image: raw ``latents`` (C, h, w) float16, ``dull`` and ``valid`` (h, w) bool, and its grids."""

    latents: np.ndarray
    dull: np.ndarray
    valid: np.ndarray
    grids: list[Grid]
    chance: float


def scenes_of(
    corpus: Corpus, bundle: ModelBundle, settings: DenoiserSettings, folder: Path, progress: Callable[[str], None]
) -> list[Scene]:
    """The scenes of a corpus, from the cache file in ``folder`` or freshly computed and kept there."""
    path = folder / f"latents-{_fingerprint(corpus, bundle, settings)}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scenes = list(_compute(corpus, bundle, settings, progress))
        _save(path, scenes)
    return _load(path)


def _fingerprint(corpus: Corpus, bundle: ModelBundle, settings: DenoiserSettings) -> str:
    facts = [
        [(p.name, p.rgb.shape, p.source) for p in corpus.pictures],
        settings.data.model_dump(exclude={"sources": {"__all__": {"paths", "weight"}}}),
        [settings.offsets, settings.run.seed, bundle.component_hash("encoder"), bundle.component_hash("autoencoder")],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _compute(
    corpus: Corpus, bundle: ModelBundle, settings: DenoiserSettings, progress: Callable[[str], None]
) -> Iterator[Scene]:
    rng = np.random.default_rng([settings.run.seed, 3])
    for number, (picture, chance) in enumerate(zip(corpus.pictures, corpus.chances, strict=True)):
        turns = rng.permutation(8)[: settings.data.sources[picture.source].turns]
        for turn in turns if len(turns) > 1 else [0]:
            rgb = np.ascontiguousarray(turned(picture.rgb, int(turn)))
            valid = None if picture.valid is None else turned(picture.valid, int(turn))
            yield _scene(rgb, valid, bundle, settings.offsets, rng, chance / len(turns))
        if number % 100 == 0:
            progress(f"caching latents: image {number + 1} of {len(corpus.pictures)}")


def _scene(
    rgb: np.ndarray,
    valid: np.ndarray | None,
    bundle: ModelBundle,
    offsets: int,
    rng: np.random.Generator,
    chance: float,
) -> Scene:
    factor = bundle.factor
    rows, cols = rgb.shape[0] // factor * factor, rgb.shape[1] // factor * factor
    rgb = rgb[:rows, :cols]
    blocks = rgb.reshape(rows // factor, factor, cols // factor, factor, 3).astype(np.float32)
    whole = np.ones(rgb.shape[:2], bool) if valid is None else valid[:rows, :cols]
    return Scene(
        latents=bundle.encode_raw(rgb).astype(np.float16),
        dull=blocks.std((1, 3)).max(-1) < 4,
        valid=np.asarray(whole.reshape(rows // factor, factor, cols // factor, factor).all((1, 3))),
        grids=[_grid(rgb, bundle, rng) for _ in range(offsets)],
        chance=chance,
    )


def _grid(rgb: np.ndarray, bundle: ModelBundle, rng: np.random.Generator) -> Grid:
    """Cells at a random lattice offset; small images keep as many whole cells as fit."""
    tile, step = bundle.info.encoder.tile_px, bundle.factor
    corner = []
    for length in rgb.shape[:2]:
        spare = length % tile if length < 8 * tile else tile - 1
        corner.append(int(rng.integers(spare // step + 1)) * step)
    rows, cols = ((length - start) // tile for length, start in zip(rgb.shape[:2], corner, strict=True))
    part = rgb[corner[0] : corner[0] + rows * tile, corner[1] : corner[1] + cols * tile]
    tiles = part.reshape(rows, tile, cols, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    return Grid((corner[0], corner[1]), embed_tiles(bundle, tiles).reshape(rows, cols, -1).astype(np.float16))


def embed_tiles(bundle: ModelBundle, tiles: np.ndarray) -> np.ndarray:
    """uint8 tiles (N, S, S, 3) -> embeddings (N, D) float32."""
    encoder = bundle.encoder
    device = next(encoder.parameters()).device
    parts = [tiles[start : start + _EMBED_BATCH] for start in range(0, len(tiles), _EMBED_BATCH)]
    with autocast(device):
        vectors = [encoder(torch.from_numpy(to_signed(part)).to(device)).float().cpu() for part in parts]
    return torch.cat(vectors).numpy()


def _save(path: Path, scenes: list[Scene]) -> None:
    arrays: dict[str, np.ndarray] = {"chances": np.array([scene.chance for scene in scenes])}
    for number, scene in enumerate(scenes):
        arrays |= {f"{number}/latents": scene.latents, f"{number}/dull": scene.dull, f"{number}/valid": scene.valid}
        for k, grid in enumerate(scene.grids):
            arrays |= {f"{number}/cells{k}": grid.cells, f"{number}/corner{k}": np.array(grid.corner_px)}
    temporary = path.with_name(f"{path.name}.part.npz")
    np.savez(temporary, **arrays)  # type: ignore[arg-type]
    temporary.replace(path)


def _load(path: Path) -> list[Scene]:
    with np.load(path) as file:
        grids = sum(name.startswith("0/cells") for name in file.files)
        return [_scene_at(file, number, grids, float(chance)) for number, chance in enumerate(file["chances"])]


def _scene_at(file: Any, number: int, grids: int, chance: float) -> Scene:
    corners = [tuple(int(v) for v in file[f"{number}/corner{k}"]) for k in range(grids)]
    return Scene(
        file[f"{number}/latents"],
        file[f"{number}/dull"],
        file[f"{number}/valid"],
        [Grid((row, col), file[f"{number}/cells{k}"]) for k, (row, col) in enumerate(corners)],
        chance,
    )


class WindowDraw:
    """Draws random valid windows from scenes; ones without content are kept with the chance ``dull_keep``."""

    def __init__(self, scenes: list[Scene], side: int, dull_keep: float) -> None:
        self.scenes, self.side, self.dull_keep = scenes, side, dull_keep
        chances = np.array([scene.chance if min(scene.dull.shape) >= side else 0.0 for scene in scenes])
        if not chances.any():
            raise InputError(f"no training image is {side} latents wide and high: lower window_lat")
        self.until = np.cumsum(chances / chances.sum())

    def __call__(self, rng: np.random.Generator) -> tuple[int, Window]:
        """The index of a scene, and a window in it."""
        while True:
            index = min(int(np.searchsorted(self.until, rng.random(), side="right")), len(self.scenes) - 1)
            scene, side = self.scenes[index], self.side
            rows, cols = scene.dull.shape
            window = Window(int(rng.integers(rows - side + 1)), int(rng.integers(cols - side + 1)), side, side)
            dull = scene.dull[window.slices].mean() > 0.97
            if scene.valid[window.slices].all() and (not dull or rng.random() < self.dull_keep):
                return index, window
