"""Small images to read, made on the spot."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import Affine

from ssl_tilegen.geometry import Resolution, Size
from ssl_tilegen.io.pyramid import ImageSpec, open_writer

UTM, PLACE = "EPSG:32619", (0.5, 0.0, 500_000.0, 0.0, -0.5, 4_000_000.0)


def texture(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    """uint8 (rows, cols, 3): gradients and noise, no two places alike."""
    y, x = np.mgrid[0:rows, 0:cols].astype(np.float64)
    base = np.stack([y * 255 / rows, x * 255 / cols, 127 + 100 * np.sin(x / 9) * np.cos(y / 7)], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 25, base.shape)
    return np.clip(base + noise, 0, 255).astype(np.uint8)


def write_slide(path: Path, rgb: np.ndarray, mpp: float = 0.5, **spec: object) -> Path:
    """A lossless pyramid that OpenSlide reads."""
    facts = {"compression": "deflate", "tile_px": 256, "resolution": Resolution(mpp, "um"), **spec}
    with open_writer(path, ImageSpec(Size(*rgb.shape[:2]), **facts)) as writer:  # type: ignore[arg-type]
        writer.write(rgb)
    return path


def write_raster(path: Path, bands: np.ndarray, **profile: object) -> Path:
    """``bands`` (B, H, W) as a tiled GeoTIFF in UTM at 0.5 m/px unless ``profile`` says otherwise."""
    facts = {"driver": "GTiff", "height": bands.shape[1], "width": bands.shape[2], "count": len(bands),
             "dtype": bands.dtype.name, "crs": UTM, "transform": Affine(*PLACE), "tiled": True,
             "blockxsize": 128, "blockysize": 128, **profile}  # fmt: skip
    with rasterio.open(path, "w", **facts) as dataset:
        dataset.write(bands)
    return path


def add_overviews(path: Path, resampling: rasterio.enums.Resampling, factors: tuple[int, ...] = (2, 4)) -> None:
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews(factors, resampling)


def write_png(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def area_mean(image: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """The obvious area filter: mean of ``image`` (h, w, 3) between the edges ``rows`` and ``cols``, float64."""
    y = np.stack([_overlaps(*edges, len(image)) for edges in pairwise(rows)])
    x = np.stack([_overlaps(*edges, image.shape[1]) for edges in pairwise(cols)])
    total = np.einsum("ih,hwc,jw->ijc", y, image.astype(np.float64), x, optimize=True)
    return total / np.outer(y.sum(1), x.sum(1))[..., None]


def _overlaps(low: float, high: float, length: int) -> np.ndarray:
    edges = np.arange(length + 1)
    return np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None)
