"""Tissue against glass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_tilegen.geometry import Resolution, Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.tissue import slide_background, tissue_mask
from ssl_tilegen.io.view import view_at

PINK = np.array([190, 110, 160])


def _glass(level: int, noise: float = 5.0) -> np.ndarray:
    values = level + np.random.default_rng(0).normal(0, noise, (120, 150, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("level", [255, 240, 200, 150])
def test_glass_alone_is_no_tissue(level: int) -> None:
    assert not tissue_mask(_glass(level)).any()


def test_tissue_alone_is_all_tissue() -> None:
    two_tissues = np.where(np.arange(150)[None, :, None] < 75, PINK, (140, 70, 130))
    image = np.clip(two_tissues + np.random.default_rng(0).normal(0, 8, (120, 150, 3)), 0, 255).astype(np.uint8)
    assert tissue_mask(image).all()


@pytest.mark.parametrize("level", [250, 220, 180])
def test_a_piece_of_tissue_is_found(level: int) -> None:
    image = _glass(level)
    image[30:90, 40:110] = PINK
    mask = tissue_mask(image)
    truth = np.zeros_like(mask)
    truth[30:90, 40:110] = True
    assert (mask ^ truth).mean() < 0.04
    assert max(abs(value - level) for value in slide_background(image, mask)) <= 2


@pytest.mark.parametrize("value, expected", [(255, False), (0, False)])
def test_flat_images(value: int, expected: bool) -> None:
    assert tissue_mask(np.full((20, 20, 3), value, np.uint8)).all() == expected


def test_no_glass_means_white() -> None:
    assert slide_background(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool)) == (255, 255, 255)


def test_real_slide(data_dir: Path) -> None:
    with open_raster(data_dir / "slides" / "cmu-1-small-region.svs") as raster:
        view = view_at(raster, Resolution(4.0, "um"))
        rgb = view.read(Window.of(view.size)).rgb
    mask = tissue_mask(rgb)
    assert 0.25 < mask.mean() < 0.5
    assert min(slide_background(rgb, mask)) > 235


def test_real_tiles_of_tissue(data_dir: Path) -> None:
    tiles = sorted((data_dir / "tiles" / "he" / "val").rglob("*.jpg"))[::60]
    shares = [tissue_mask(np.asarray(Image.open(tile).convert("RGB"))).mean() for tile in tiles]
    assert np.median(shares) > 0.95
