"""Stage `denoiser`: flow matching on windows anywhere between the cells, conditioned as the generator will condition.

The paper trains on patches aligned with their own embedding and then generates between cells, where the network has
never been. Here every training window lies at a random offset from the lattice and its condition is the interpolated
field of the cells around it: the same code that `generate` uses.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.nets import build_component
from ssl_tilegen.training.cache import Grid, Scene, WindowDraw
from ssl_tilegen.training.loop import Batch
from ssl_tilegen.training.settings import DenoiserSettings

_STATISTICS_SCENES = 400
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
            **settings.net,
        }
        self.module = build_component(config)
        self._set_statistics()
        if settings.start_from:
            self.module.load_state_dict(ModelBundle.load(settings.start_from).denoiser.state_dict())
        self.stride = self.module.field_stride
        self._draw = WindowDraw(scenes, settings.window_lat, settings.data.flat_keep)
        self._spread = self.module.condition_std.numpy()[:, None, None].copy()
        self._field = lru_cache(maxsize=4096)(self._field_of)
        shown = np.random.default_rng([settings.run.seed, 4])
        self._fixed = [self.item(shown) for _ in range(_SHOWN)]

    def _set_statistics(self) -> None:
        cells = np.concatenate([scene.grids[0].cells.reshape(-1, scene.grids[0].cells.shape[-1])
                                for scene in self._some_scenes()]).astype(np.float32)  # fmt: skip
        self.module.condition_mean.copy_(torch.from_numpy(cells.mean(0)))
        self.module.condition_std.copy_(torch.from_numpy(cells.std(0).clip(1e-4)))
        self.module.latent_std.copy_(torch.from_numpy(self.latent_std))

    def _some_scenes(self) -> list[Scene]:
        return self.scenes[:: max(1, len(self.scenes) // _STATISTICS_SCENES)]

    @property
    def latent_std(self) -> np.ndarray:
        """Deviation of each normalised latent channel (C,)."""
        raw = np.concatenate([s.latents.reshape(len(s.latents), -1)[:, ::7] for s in self._some_scenes()], 1)
        return (raw.astype(np.float32).std(1) * self.latent_scale).astype(np.float32)

    def _field_of(self, scene_index: int, grid_index: int) -> ConditionField:
        grid: Grid = self.scenes[scene_index].grids[grid_index]
        tile, factor = self.bundle.info.encoder.tile_px, 8
        corner = (-float(grid.corner_px[0]), -float(grid.corner_px[1]))
        return ConditionField.of_grid(grid.cells, tile_px=tile, stride_px=tile, factor=factor, corner_px=corner)

    def item(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        s = self.settings
        index, window = self._draw(rng)
        scene = self.scenes[index]
        raw = scene.latents[:, *window.slices].astype(np.float32)
        clean = (raw - self.latent_mean[:, None, None]) * self.latent_scale[:, None, None]
        field = self._field(index, int(rng.integers(len(scene.grids)))).sample_window(window, self.stride).numpy()
        noise_level = s.embedding_noise * rng.random()
        field = field + noise_level * rng.standard_normal((len(field), 1, 1), np.float32) * self._spread
        if rng.random() < s.drop:
            field = np.full_like(field, np.nan)
        t = 1 / (1 + np.exp(-(s.time_mean + s.time_spread * rng.standard_normal())))
        noise = rng.standard_normal(clean.shape, np.float32)
        return {"clean": clean, "field": field.astype(np.float32), "noise": noise, "t": np.float32(t)}

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

