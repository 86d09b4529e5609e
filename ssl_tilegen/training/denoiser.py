"""Stage `denoiser`: flow matching on windows anywhere between the cells, conditioned as the generator will condition.

The paper trains on patches aligned with their own embedding and then generates between cells, where the network has
never been. Here every training window lies at a random offset from the lattice and its condition is the interpolated
field of the cells around it: the same code that `generate` uses.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.sketch import LocalCondition
from ssl_tilegen.nets import build_component
from ssl_tilegen.training.cache import Grid, Scene, WindowDraw
from ssl_tilegen.training.loop import Batch
from ssl_tilegen.training.settings import DenoiserSettings

_STATISTICS_SCENES, _SKETCH_SCENES = 400, 4000
_SHOWN, _SHOWN_STEPS = 8, 16


class DenoiserStage:
    """Trains FieldUNet on cached scenes."""

    def __init__(self, settings: DenoiserSettings, bundle: ModelBundle, scenes: list[Scene]) -> None:
        self.settings, self.bundle, self.scenes = settings, bundle, scenes
        self.latent_mean, self.latent_scale = latent_statistics(scenes, bundle, settings.latent_gain)
        torch.manual_seed(settings.run.seed)
        config: dict[str, Any] = {
            "_class_name": "FieldUNet",
            "latent_channels": bundle.latent_channels,
            "condition_dim": bundle.info.encoder.dim,
            "sketch_side": bundle.info.encoder.tile_px // bundle.factor if bundle.info.encoder.layout_dim else 0,
            **settings.net,
        }
        self.module = build_component(config)
        self._set_statistics()
        if settings.start_from:
            fill_what_fits(self.module, ModelBundle.load(settings.start_from).denoiser.state_dict())
        side = self.module.sketch_side
        self._condition = LocalCondition(
            self.module.field_stride, bundle.info.encoder.layout_dim, side, self._unfold if side else None
        )
        self._sketch = (self.module.sketch.weight.clone(), self.module.sketch.bias.clone()) if side else ()
        self._draw = WindowDraw(scenes, settings.window_lat, settings.data.flat_keep)
        self._spread = self.module.condition_std.clone()
        self._field = lru_cache(maxsize=4096)(self._field_of)
        shown = np.random.default_rng([settings.run.seed, 4])
        self._fixed = [self.item(shown) for _ in range(_SHOWN)]

    def _set_statistics(self) -> None:
        cells = np.concatenate([scene.grids[0].cells.reshape(-1, scene.grids[0].cells.shape[-1])
                                for scene in self._some_scenes()]).astype(np.float32)  # fmt: skip
        self.module.condition_mean.copy_(torch.from_numpy(cells.mean(0)))
        self.module.condition_std.copy_(torch.from_numpy(cells.std(0).clip(1e-4)))
        self.module.latent_std.copy_(torch.from_numpy(self.latent_std))
        if self.module.sketch_side:
            weight, bias = fitted_sketch(self.scenes, self.module.sketch_side, self.bundle.factor, self._normalised)
            self.module.sketch.weight.copy_(torch.from_numpy(weight))
            self.module.sketch.bias.copy_(torch.from_numpy(bias))

    def _unfold(self, vectors: Tensor) -> Tensor:
        """The network's own ``unfold``, from a copy on the CPU that reading threads may use."""
        side = self.module.sketch_side
        return nn.functional.linear(vectors, *self._sketch).unflatten(-1, (-1, side, side))

    def _normalised(self, raw: np.ndarray) -> np.ndarray:
        """Raw latents (C, ...) as the network sees them."""
        shape = (-1, *[1] * (raw.ndim - 1))
        return (raw.astype(np.float32) - self.latent_mean.reshape(shape)) * self.latent_scale.reshape(shape)

    def _some_scenes(self) -> list[Scene]:
        return self.scenes[:: max(1, len(self.scenes) // _STATISTICS_SCENES)]

    @property
    def latent_std(self) -> np.ndarray:
        """Deviation of each normalised latent channel (C,)."""
        raw = np.concatenate([s.latents.reshape(len(s.latents), -1)[:, ::7] for s in self._some_scenes()], 1)
        return (raw.astype(np.float32).std(1) * self.latent_scale).astype(np.float32)

    def _field_of(self, scene_index: int, grid_index: int) -> ConditionField:
        grid: Grid = self.scenes[scene_index].grids[grid_index]
        tile, factor = self.bundle.info.encoder.tile_px, self.bundle.factor
        corner = (-float(grid.corner_px[0]), -float(grid.corner_px[1]))
        return ConditionField.of_grid(grid.cells, tile_px=tile, stride_px=tile, factor=factor, corner_px=corner)

    def item(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        s = self.settings
        index, window = self._draw(rng)
        scene = self.scenes[index]
        clean = self._normalised(scene.latents[:, *window.slices])
        field = self._field(index, int(rng.integers(len(scene.grids))))
        shake = s.embedding_noise * rng.random() * rng.standard_normal(field.dim, np.float32)
        field = replace(field, embedding=field.embedding + torch.from_numpy(shake) * self._spread)
        chance = rng.random()
        with torch.inference_mode():
            told = self._condition(field, window, layout=chance > s.drop + s.drop_layout).numpy()
        if chance < s.drop:
            told = np.full_like(told, np.nan)
        t = 1 / (1 + np.exp(-(s.time_mean + s.time_spread * rng.standard_normal())))
        noise = rng.standard_normal(clean.shape, np.float32)
        return {"clean": clean, "field": told, "noise": noise, "t": np.array(t, np.float32)}

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        clean, noise, t = batch["clean"], batch["noise"], batch["t"]
        time = t[:, None, None, None]
        velocity = module((1 - time) * clean + time * noise, t, batch["field"])
        m = self.settings.margin_lat
        error = (velocity.float() - (noise - clean))[:, :, m:-m or None, m:-m or None].square()
        with torch.no_grad():
            of_item = error.mean((1, 2, 3))
            parts = {"early": _mean_where(of_item, t > 0.6), "late": _mean_where(of_item, t < 0.3)}
        return error.mean(), parts

    @torch.no_grad()
    def sample(self, module: Any, path: Path) -> dict[str, float]:
        """Rows: the source windows decoded, and windows generated from their condition fields."""
        device = next(module.parameters()).device
        clean, field, x = (
            torch.from_numpy(np.stack([item[key] for item in self._fixed])).to(device)
            for key in ("clean", "field", "noise")
        )
        times = np.linspace(1, 0, _SHOWN_STEPS + 1)
        for now, after in itertools.pairwise(times):
            t = torch.full((len(x),), float(now), device=device)
            x = x + float(after - now) * module(x, t, field).float()
        rows = [self._pixels(latents) for latents in (clean, x)]
        Image.fromarray(np.concatenate(rows, 0)).save(path)
        return {}

    def _pixels(self, latents: Tensor) -> np.ndarray:
        mean = torch.from_numpy(self.latent_mean).to(latents.device)[:, None, None]
        scale = torch.from_numpy(self.latent_scale).to(latents.device)[:, None, None]
        images = self.bundle.autoencoder.decode(latents.to(self.bundle.device) / scale + mean)
        strip = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(2, 0, 3, 1).flatten(1, 2)
        return strip.cpu().numpy()


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return values[mask].mean() if mask.any() else values.mean()


@torch.no_grad()
def fill_what_fits(module: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Copy another network's weights into ``module`` where names and shapes agree; a kernel with more inputs than
    theirs takes theirs as its first, and zeros. Statistics stay. Returns the names of what did not fit."""
    left = []
    for name, parameter in module.named_parameters():
        theirs = weights.get(name)
        if theirs is None or theirs.shape[:1] != parameter.shape[:1] or theirs.ndim != parameter.ndim:
            left.append(name)
        elif theirs.shape == parameter.shape:
            parameter.copy_(theirs)
        elif theirs.ndim == 4 and theirs.shape[1] < parameter.shape[1] and theirs.shape[2:] == parameter.shape[2:]:
            parameter.zero_()
            parameter[:, : theirs.shape[1]] = theirs
        else:
            left.append(name)
    return left


def fitted_sketch(
    scenes: list[Scene], side: int, factor: int, normalised: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The linear map from a cell's vector (D,) to its clean latents (C * side * side,) of least square error:
    weight (C * side * side, D) and bias."""
    dim, out = scenes[0].grids[0].cells.shape[-1] + 1, len(scenes[0].latents) * side**2
    gram, cross, seen = np.zeros((dim, dim)), np.zeros((dim, out)), 0
    for scene in scenes[:: max(1, len(scenes) // _SKETCH_SCENES)]:
        cells, pictures = _cells_and_pictures(scene, side, factor)
        vectors = np.concatenate([cells, np.ones((len(cells), 1), np.float32)], 1)
        targets = normalised(pictures.swapaxes(0, 1)).swapaxes(0, 1).reshape(len(cells), -1)
        gram += vectors.T @ vectors
        cross += vectors.T @ targets
        seen += len(cells)
    ridge = np.diag(np.r_[1e-4 * np.diag(gram)[:-1].mean() * np.ones(dim - 1), 0.0])
    solution = np.linalg.solve(gram + ridge, cross).astype(np.float32)
    return np.ascontiguousarray(solution[:-1].T), solution[-1]


def _cells_and_pictures(scene: Scene, side: int, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Valid cells (n, D) of a scene's first grid and the raw latents (n, C, side, side) under them."""
    grid = scene.grids[0]
    row, col = (corner // factor for corner in grid.corner_px)
    rows, cols, _ = grid.cells.shape
    part = np.s_[row : row + rows * side, col : col + cols * side]
    latents = scene.latents[:, *part].reshape(-1, rows, side, cols, side).transpose(1, 3, 0, 2, 4)
    valid = scene.valid[part].reshape(rows, side, cols, side).all((1, 3))
    return grid.cells[valid].astype(np.float32), latents[valid].astype(np.float32)


@torch.no_grad()
def latent_statistics(scenes: list[Scene], bundle: ModelBundle, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale (C,) of the raw latents, so that (raw - mean) * scale has a mean square of 1 over all channels.

    With ``gain`` 0 every channel has deviation 1; with 1 the deviations are in proportion to how much a channel
    changes the pixels, so that errors weigh in latents as in the picture; between, the geometric mean of the two.
    """
    some = scenes[:: max(1, len(scenes) // _STATISTICS_SCENES)]
    raw = np.concatenate([s.latents.reshape(len(s.latents), -1)[:, ::7] for s in some], 1).astype(np.float32)
    mean, deviation = raw.mean(1), raw.std(1).clip(1e-4)
    target = (deviation * _pixel_change(some, bundle, deviation)) ** gain
    target /= np.sqrt((target**2).mean())
    return mean, (target / deviation).astype(np.float32)


def _pixel_change(scenes: list[Scene], bundle: ModelBundle, deviation: np.ndarray) -> np.ndarray:
    """Root mean square change of the pixels per unit of each raw latent channel (C,)."""
    fits = [s for s in scenes if min(s.dull.shape) >= 16][:16]
    latents = torch.stack([torch.from_numpy(s.latents[:, :16, :16].astype(np.float32)) for s in fits])
    latents = latents.to(bundle.device)
    plain, changes = bundle.autoencoder.decode(latents), []
    noise = torch.randn(latents[:, 0].shape, generator=torch.Generator().manual_seed(0)).to(bundle.device)
    for channel, size in enumerate(0.3 * deviation):
        moved = latents.clone()
        moved[:, channel] += float(size) * noise
        changes.append(float((bundle.autoencoder.decode(moved) - plain).square().mean().sqrt() / size))
    return np.array(changes, np.float32)

