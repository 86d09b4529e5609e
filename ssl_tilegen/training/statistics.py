"""Closed-form fits to the cached scenes before a denoiser trains: scales of the latents, the decoder of cells, the
colours of latents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.training.data.latent_cache import LatentScene

STATISTICS_SCENES, _DECODER_SCENES = 400, 4000
_CROP_LAT, _CHANGED_CROPS, _COLOUR_EVERY = 16, 16, 4


def some_of(scenes: list[LatentScene]) -> list[LatentScene]:
    """As many of the scenes as statistics need."""
    return scenes[:: max(1, len(scenes) // STATISTICS_SCENES)]


def condition_statistics(scenes: list[LatentScene]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (D,) of the embeddings."""
    grids = [scene.grids[0].cells for scene in some_of(scenes)]
    cells = np.concatenate([cells.reshape(-1, cells.shape[-1]) for cells in grids]).astype(np.float32)
    return cells.mean(0), cells.std(0).clip(1e-4)


def latent_deviation(scenes: list[LatentScene], scale: np.ndarray) -> np.ndarray:
    """Deviation of each normalised latent channel (C,)."""
    raw = np.concatenate([s.latents.reshape(len(s.latents), -1)[:, ::7] for s in some_of(scenes)], 1)
    return (raw.astype(np.float32).std(1) * scale).astype(np.float32)


def fitted_cell_decoder(
    scenes: list[LatentScene], side: int, factor: int, normalised: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The linear map from a cell's vector (D,) to its clean latents (C * side * side,) of least square error:
    weight (C * side * side, D) and bias."""
    dim, out = scenes[0].grids[0].cells.shape[-1] + 1, len(scenes[0].latents) * side**2
    gram, cross, seen = np.zeros((dim, dim)), np.zeros((dim, out)), 0
    for scene in scenes[:: max(1, len(scenes) // _DECODER_SCENES)]:
        cells, images = _cells_and_images(scene, side, factor)
        vectors = np.concatenate([cells, np.ones((len(cells), 1), np.float32)], 1)
        targets = normalised(images.swapaxes(0, 1)).swapaxes(0, 1).reshape(len(cells), -1)
        gram += vectors.T @ vectors
        cross += vectors.T @ targets
        seen += len(cells)
    ridge = np.diag(np.r_[1e-4 * np.diag(gram)[:-1].mean() * np.ones(dim - 1), 0.0])
    solution = np.linalg.solve(gram + ridge, cross).astype(np.float32)
    return np.ascontiguousarray(solution[:-1].T), solution[-1]


def fitted_colour(
    scenes: list[LatentScene], bundle: ModelBundle, normalised: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The linear map (3, C), of least square error, from normalised latents to the mean colours in [-1, 1] of their
    pixels, without its constant."""
    raw = _crops(some_of(scenes)[::_COLOUR_EVERY])
    images = torch.cat([bundle.decode_raw(part.to(bundle.device)).cpu() for part in raw.split(_CHANGED_CROPS)])
    colours = torch.nn.functional.avg_pool2d(images, bundle.factor).movedim(1, -1).reshape(-1, 3).double()
    latents = normalised(raw.movedim(1, 0).numpy()).reshape(raw.shape[1], -1).T.astype(np.float64)
    told = torch.from_numpy(np.concatenate([latents, np.ones((len(latents), 1))], 1))
    return np.ascontiguousarray(torch.linalg.lstsq(told, colours).solution[:-1].T.numpy(), np.float32)


def _cells_and_images(scene: LatentScene, side: int, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Valid cells (n, D) of a scene's first grid and the raw latents (n, C, side, side) under them."""
    grid = scene.grids[0]
    tile = side * factor
    step = tile // (grid.stride_px or tile)
    if any(corner % factor for corner in grid.corner_px) or step * (grid.stride_px or tile) != tile:
        nothing = np.empty((0, len(scene.latents), side, side), np.float32)
        return np.empty((0, grid.cells.shape[-1]), np.float32), nothing
    first = [max(0, -(corner // tile)) for corner in grid.corner_px]
    cells = grid.cells[first[0] * step :: step, first[1] * step :: step]
    row, col = ((corner + skipped * tile) // factor for corner, skipped in zip(grid.corner_px, first, strict=True))
    rows = min(cells.shape[0], (scene.dull.shape[0] - row) // side)
    cols = min(cells.shape[1], (scene.dull.shape[1] - col) // side)
    cells = cells[:rows, :cols]
    part = np.s_[row : row + rows * side, col : col + cols * side]
    latents = scene.latents[:, *part].reshape(-1, rows, side, cols, side).transpose(1, 3, 0, 2, 4)
    valid = scene.valid[part].reshape(rows, side, cols, side).all((1, 3))
    return cells[valid].astype(np.float32), latents[valid].astype(np.float32)


@torch.no_grad()
def latent_statistics(scenes: list[LatentScene], bundle: ModelBundle, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale (C,) of the raw latents, so that (raw - mean) * scale has a mean square of 1 over all channels.

    With ``gain`` 0 every channel has deviation 1; with 1 the deviations are in proportion to how much a channel
    changes the pixels, so that errors weigh in latents as in the image; between, the geometric mean of the two.
    """
    some = some_of(scenes)
    raw = np.concatenate([s.latents.reshape(len(s.latents), -1)[:, ::7] for s in some], 1).astype(np.float32)
    mean, deviation = raw.mean(1), raw.std(1).clip(1e-4)
    target = (deviation * _pixel_change(some, bundle, deviation)) ** gain
    target /= np.sqrt((target**2).mean())
    return mean, (target / deviation).astype(np.float32)


def _pixel_change(scenes: list[LatentScene], bundle: ModelBundle, deviation: np.ndarray) -> np.ndarray:
    """Root mean square change of the pixels per unit of each raw latent channel (C,)."""
    latents = _crops(scenes)[:_CHANGED_CROPS].to(bundle.device)
    plain, changes = bundle.decode_raw(latents), []
    noise = torch.randn(latents[:, 0].shape, generator=torch.Generator().manual_seed(0)).to(bundle.device)
    for channel, size in enumerate(0.3 * deviation):
        moved = latents.clone()
        moved[:, channel] += float(size) * noise
        changes.append(float((bundle.decode_raw(moved) - plain).square().mean().sqrt() / size))
    return np.array(changes, np.float32)


def _crops(scenes: list[LatentScene]) -> torch.Tensor:
    """Raw latents (N, C, side, side) from the corners of all scenes that are large enough, in float32."""
    side = min(_CROP_LAT, max(min(s.dull.shape) for s in scenes))
    fits = [s for s in scenes if min(s.dull.shape) >= side]
    return torch.stack([torch.from_numpy(s.latents[:, :side, :side].astype(np.float32)) for s in fits])
