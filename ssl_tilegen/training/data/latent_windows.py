"""Training items of a denoiser: windows of cached latents, each with the condition that `generate` would give it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.diffusion.conditioning import Conditioning, dropped
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Window
from ssl_tilegen.training.data.batches import Item
from ssl_tilegen.training.data.latent_cache import LatentScene
from ssl_tilegen.training.data.paired_grids import Grid
from ssl_tilegen.training.data.window_sampler import WindowSampler

_TRIES = 1000
_BESIDE = 3


class ConditionedStage(Protocol):
    """What a stage says of its items: options, bundle, conditioning, and how latents and times are given."""

    settings: Any
    bundle: ModelBundle
    conditioning: Conditioning
    local: bool

    def normalised(self, raw: np.ndarray) -> np.ndarray:
        """Raw latents (C, ...) as the network sees them."""
        ...

    def draw_time(self, rng: np.random.Generator) -> np.ndarray:
        """The time of a training item."""
        ...


class TrainingWindows:
    """Training items from ``scenes``, for a stage; ``spread``: the deviation of each number of an embedding."""

    def __init__(self, scenes: list[LatentScene], stage: ConditionedStage, spread: Tensor) -> None:
        self.scenes, self.stage, self._spread = scenes, stage, spread
        self._draw = WindowSampler(scenes, stage.settings.window_lat, stage.settings.data.flat_keep)
        self._field = lru_cache(maxsize=4096)(self._field_of)

    def _field_of(self, scene_index: int, grid_index: int) -> ConditionField:
        grid = self.scenes[scene_index].grids[grid_index]
        tile, factor = self.stage.bundle.info.encoder.tile_px, self.stage.bundle.factor
        corner = (-float(grid.corner_px[0]), -float(grid.corner_px[1]))
        stride = grid.stride_px or tile
        return ConditionField.of_grid(grid.cells, tile_px=tile, stride_px=stride, factor=factor, corner_px=corner)

    def item(self, rng: np.random.Generator) -> Item:
        """A training item."""
        return self.item_and_place(rng)[0]

    def _place(self, rng: np.random.Generator) -> tuple[int, Window, int]:
        """A scene, a window of it and one of its grids; windows that land at whole cells do so in that grid."""
        quantum = self.stage.conditioning.quantum_lat
        for _ in range(_TRIES):
            index, window = self._draw(rng)
            scene = self.scenes[index]
            of_grid = int(rng.integers(len(scene.grids)))
            if self.stage.local or quantum == 1:
                return index, window, of_grid
            landed = _landed(window, scene.grids[of_grid].corner_px, self.stage.bundle.factor, quantum)
            inside = Window(0, 0, *scene.dull.shape).contains(landed)
            if inside and scene.valid[landed.slices].all():
                return index, landed, of_grid
        raise InputError(f"no training image holds {window.rows} latents at whole cells: take larger images")

    def item_and_place(self, rng: np.random.Generator) -> tuple[Item, tuple[LatentScene, Window]]:
        """A training item, and where it is from. Its ``cells``: row and column (px, in the window) of the first cell
        that begins in it, and the stride of the cells."""
        stage, s = self.stage, self.stage.settings
        index, window, of_grid = self._place(rng)
        scene = self.scenes[index]
        clean = stage.normalised(scene.latents[:, *window.slices])
        field = self._field(index, of_grid)
        shake = s.embedding_noise * rng.random() * rng.standard_normal(field.dim, np.float32)
        field = replace(field, embedding=field.embedding + torch.from_numpy(shake) * self._spread)
        chance = rng.random()
        with torch.inference_mode():
            known = stage.conditioning.sample(field, [window], layout=chance > s.drop + s.drop_layout)[0]
            condition = (dropped(known) if chance < s.drop else known).numpy()
        t = stage.draw_time(rng)
        noise = rng.standard_normal(clean.shape, np.float32)
        item = {"clean": clean, "field": condition, "noise": noise, "t": t, "group": np.array(scene.group),
                "cells": self._cells(scene.grids[of_grid], window)}  # fmt: skip
        return item, (scene, window)

    def _cells(self, grid: Grid, window: Window) -> np.ndarray:
        factor, stride = self.stage.bundle.factor, round(grid.stride_px or self.stage.bundle.info.encoder.tile_px)
        starts = (window.row * factor, window.col * factor)
        return np.array([*(round(c - s) % stride for c, s in zip(grid.corner_px, starts, strict=True)), stride])


def _landed(window: Window, corner_px: Any, factor: int, quantum: int) -> Window:
    """``window`` moved up and left to where a cell of the grid that begins at ``corner_px`` begins."""
    corner = [round(float(c) / factor) for c in corner_px]
    return window.shifted(-((window.row - corner[0]) % quantum), -((window.col - corner[1]) % quantum))


def corner_of_tile(cells: np.ndarray, margin: int, spare: int, at_cell: float, rng: np.random.Generator) -> np.ndarray:
    """Row and column (px) of a tile in the part of a window within ``margin``, at most ``spare``: with the chance
    ``at_cell`` a cell of the condition (``cells`` of an item) but for 3 px, else anywhere.

    A few pixels, for if tiles always began where latents do, a pattern of latents could please an encoder.
    """
    anywhere, wanted = rng.integers(spare + 1, size=2), rng.random() < at_cell
    first, stride = (cells[:2] - margin) % cells[2], int(cells[2])
    if not wanted or (first > spare).any():
        return anywhere
    corner = first + stride * rng.integers((spare - first) // stride + 1)
    return (corner + rng.integers(-_BESIDE, _BESIDE + 1, size=2)).clip(0, spare)
