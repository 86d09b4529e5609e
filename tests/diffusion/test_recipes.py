"""Published samplers written out plainly, and `paint` with their recipes: the same latents and pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from ssl_tilegen.bundle.importers.ldm import scheduler
from ssl_tilegen.diffusion.conditioning import Conditioning, ConditioningSpec, TokenConditioning
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.noise import addressed_noise
from ssl_tilegen.diffusion.recipe import PAPER, PATCHES, PIXCELL, Recipe
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.diffusion.synthesis import develop, paint
from ssl_tilegen.geometry import Window
from tests.diffusion.toys import CPU, _kernel

SEED, DIM = 3, 6
LINEAR = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
          "num_train_timesteps": 1000}  # fmt: skip


@dataclass(frozen=True)
class NoiseToy:
    """Predicts noise from a window, a time and tokens; every part of them matters."""

    scheduler_config: Any
    spec: ConditioningSpec
    window_lat: int = 16
    latent_channels: int = 3
    factor: int = 2
    halo_lat: int = 0
    decoder_halo_lat: int | None = None
    prediction_type: str = "epsilon"
    device: torch.device = CPU

    @property
    def conditioning(self) -> Conditioning:
        return TokenConditioning.of(self.spec, self.window_lat)

    def predict(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        told = torch.zeros(len(x), 3) if cond is None else cond[..., :3].mean(1) + 0.3 * cond[:, 0, 3:]
        seen = torch.tanh(conv2d(x, _kernel(3, 3, 0), padding=1))
        return seen + 0.2 * told[:, :, None, None] + 1e-4 * t[:, None, None, None] * x

    def decode(self, latents: Tensor) -> Tensor:
        sizes = latents.std((1, 2, 3), keepdim=True)  # depends on all of its window
        return interpolate(torch.tanh(conv2d(latents, _kernel(3, 3, 1), padding=1)) / sizes, scale_factor=self.factor)


def grid(side: int) -> Tensor:
    source = torch.Generator().manual_seed(1)
    cells = torch.randn(side, side, DIM, generator=source) * torch.rand(side, side, 1, generator=source).add(0.2)
    cells[0, 1] = 1.0001 * cells[0, 0]  # nearly parallel
    return cells


def noise(side: int, stream: int) -> Tensor:
    return torch.from_numpy(addressed_noise(Window(0, 0, side, side), 3, SEED, stream)).double()


def slerp_as_published(a: Tensor, b: Tensor, t: float) -> Tensor:
    cosine = float(a @ b / (a.norm() * b.norm()))
    if abs(cosine) > 0.9995:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def vector_of_window(cells: Tensor, row: int, col: int, side: int) -> Tensor:
    padded = torch.cat([cells, cells[-1:]], 0)
    padded = torch.cat([padded, padded[:, -1:]], 1)
    r, c = row // side, col // side
    top = slerp_as_published(padded[r, c], padded[r, c + 1], col / side - c)
    below = slerp_as_published(padded[r + 1, c], padded[r + 1, c + 1], col / side - c)
    return slerp_as_published(top, below, row / side - r)[None]


def averaged(model: NoiseToy, x: Tensor, abar: float, told: int, weight: float, hop: int, condition: Any) -> Tensor:
    """Clean estimates of windows at every hop, averaged."""
    side, total, count = model.window_lat, torch.zeros_like(x), torch.zeros_like(x)
    for row in range(0, x.shape[1] - side + 1, hop):
        for col in range(0, x.shape[2] - side + 1, hop):
            window = x[None, :, row : row + side, col : col + side].float()
            t = torch.tensor([float(told)])
            with_condition = model.predict(window, t, condition(row, col)[None]).double()
            without = model.predict(window, t, None).double()
            eps = without + weight * (with_condition - without)
            total[:, row : row + side, col : col + side] += (window - math.sqrt(1 - abar) * eps)[0] / math.sqrt(abar)
            count[:, row : row + side, col : col + side] += 1
    return total / count


def paper_latents(model: NoiseToy, cells: Tensor, side: int, hop: int) -> Tensor:
    beta = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    bar, x = np.cumprod(1 - beta), noise(side, 0)
    for step, t in enumerate(range(1000, 0, -20)):
        abar = bar[t - 1]
        clean = averaged(model, x, abar, t, 4.0, hop, lambda row, col: vector_of_window(cells, row, col, 16))
        eps = (x - math.sqrt(abar) * clean) / math.sqrt(1 - abar)
        before = bar[t - 1 - 20] if t > 20 else 1.0
        variance = beta[t - 1] * (1 - before) / (1 - abar) if t > 20 else 0.0
        fresh = noise(side, step + 1) if t > 20 else 0.0
        x = math.sqrt(before) * clean + math.sqrt(1 - before - variance) * eps + math.sqrt(variance) * fresh
    return x


def pixcell_latents(model: NoiseToy, cells: Tensor, side: int, hop: int) -> Tensor:
    bar, x, part = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), noise(side, 0), 16 // 4

    def told(row: int, col: int) -> Tensor:
        return cells[row // part : row // part + 4, col // part : col // part + 4].reshape(16, DIM)

    for t in range(1000, 0, -50):
        abar, before = bar[t - 1], bar[max(t - 1 - 50, 0)]
        clean = averaged(model, x, abar, t - 1, 3.0, hop, told)
        eps = (x - math.sqrt(abar) * clean) / math.sqrt(1 - abar)
        x = math.sqrt(before) * clean + math.sqrt(1 - before) * eps
    return x


def patch_latents(model: NoiseToy, vector: Tensor, row: int, col: int, whole: Tensor) -> Tensor:
    """The published sampler of patches on one patch: PLMS, 50 steps."""
    bar = np.cumprod(1 - np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2)
    x, old = whole[:, row : row + 16, col : col + 16], []

    def noise_at(x: Tensor, t: int) -> Tensor:
        told = [
            model.predict(x[None].float(), torch.tensor([float(t)]), cond).double()[0]
            for cond in (vector[None, None], None)
        ]
        return told[1] + 2 * (told[0] - told[1])

    def moved(x: Tensor, eps: Tensor, t: int, before: int) -> Tensor:
        clean = (x - math.sqrt(1 - bar[t]) * eps) / math.sqrt(bar[t])
        return math.sqrt(bar[before]) * clean + math.sqrt(1 - bar[before]) * eps

    for t in range(981, 0, -20):
        before = max(t - 20, 0)
        eps = noise_at(x, t)
        if not old:
            used = (eps + noise_at(moved(x, eps, t, before), before)) / 2
        elif len(old) == 1:
            used = (3 * eps - old[0]) / 2
        elif len(old) == 2:
            used = (23 * eps - 16 * old[1] + 5 * old[0]) / 12
        else:
            used = (55 * eps - 59 * old[2] + 37 * old[1] - 9 * old[0]) / 24
        x, old = moved(x, used, t, before), [*old, eps][-3:]
    return x


def painted(model: NoiseToy, cells: Tensor, part: float, side: int, recipe: Recipe) -> Any:
    field = ConditionField.of_grid(cells.numpy(), tile_px=part, stride_px=part, factor=1)
    field = replace(field, raw=recipe.interpolation == "raw")
    how = SynthesisSettings(steps=recipe.steps, update=recipe.update, guidance=recipe.guidance, recipe=recipe,
                            guidance_interval=(0.0, 1.0), merge="average", feather=False, seed=SEED, bleed_lat=0,
                            edge_lat=0, extent=Window(0, 0, side, side))  # fmt: skip
    return paint(model, field, Window(0, 0, side, side), how)


def test_the_papers_recipe_is_the_papers_sampler() -> None:
    model, cells = NoiseToy(scheduler(0.0015, 0.0195, 1000), ConditioningSpec()), grid(3)
    canvas = painted(model, cells, 16, 48, PAPER.model_copy(update={"hop_lat": 4}))
    theirs = paper_latents(model, cells, 48, 4)
    torch.testing.assert_close(canvas.data.double(), theirs, rtol=1e-3, atol=1e-3)
    directions = painted(model, cells, 16, 48, PAPER.model_copy(update={"hop_lat": 4, "interpolation": "directions"}))
    assert (directions.data - canvas.data).abs().max() > 0.01


def test_the_recipe_of_patches_is_the_papers_sampler_of_each_patch() -> None:
    model, cells = NoiseToy(scheduler(0.0015, 0.0195, 1000), ConditioningSpec()), grid(3)
    recipe = PATCHES.model_copy(update={"hop_lat": 16, "decode_hop_lat": 16})
    canvas = painted(model, cells, 16, 48, recipe)
    pixels = np.concatenate(list(develop(model, canvas, recipe=recipe)))
    for row, col in ((0, 0), (16, 32), (32, 16)):
        theirs = patch_latents(model, cells[row // 16, col // 16], row, col, noise(48, 0))
        torch.testing.assert_close(
            canvas.data[:, row : row + 16, col : col + 16].double(), theirs, rtol=1e-3, atol=1e-3
        )
        image = (model.decode(theirs[None].float())[0].permute(1, 2, 0) + 1) * 127.5
        ours = pixels[2 * row : 2 * row + 32, 2 * col : 2 * col + 32]
        assert np.abs(ours - image.clamp(0, 255).numpy()).max() <= 1


@pytest.mark.parametrize("hop", [4, 8, 16])
def test_pixcells_recipe_is_pixcells_sampler(hop: int) -> None:
    model = NoiseToy(LINEAR, ConditioningSpec(cells=4, landing="cells"))
    canvas = painted(model, grid(8), 4, 32, PIXCELL.model_copy(update={"hop_lat": hop}))
    torch.testing.assert_close(canvas.data.double(), pixcell_latents(model, grid(8), 32, hop), rtol=1e-3, atol=1e-3)


def test_decoding_as_published() -> None:
    model, cells = NoiseToy(LINEAR, ConditioningSpec()), grid(3)
    recipe = PAPER.model_copy(update={"hop_lat": 16, "steps": 2, "decode_hop_lat": 4})
    canvas = painted(model, cells, 16, 48, recipe)
    line = torch.linspace(-1, 1, 32)
    weights = torch.exp(-(line[:, None] ** 2 + line[None] ** 2) / 0.64)
    total, count = torch.zeros(3, 96, 96), torch.zeros(96, 96)
    for row in range(0, 48 - 16 + 1, 4):
        for col in range(0, 48 - 16 + 1, 4):
            pixels = model.decode(canvas.data[None, :, row : row + 16, col : col + 16])[0]
            total[:, 2 * row : 2 * row + 32, 2 * col : 2 * col + 32] += pixels * weights
            count[2 * row : 2 * row + 32, 2 * col : 2 * col + 32] += weights
    theirs = ((total / count + 1) * 127.5).clamp(0, 255).permute(1, 2, 0).numpy()
    ours = np.concatenate(list(develop(model, canvas, recipe=recipe)))
    assert np.abs(ours - theirs).max() <= 0.51


def test_windows_land_at_whole_cells_and_are_told_exactly_those() -> None:
    cells = grid(8)
    conditioning = TokenConditioning.of(ConditioningSpec(cells=4, landing="cells"), 16)
    field = ConditionField.of_grid(cells.numpy(), tile_px=4, stride_px=4, factor=1)
    told = conditioning.sample(field, [Window(0, 8, 16, 16), Window(16, 4, 16, 16)])
    assert conditioning.quantum_lat == 4
    assert torch.equal(told[0], cells[0:4, 2:6].reshape(16, DIM))
    assert torch.equal(told[1], cells[4:8, 1:5].reshape(16, DIM))
