"""Small images to read, made on the spot."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
import tifffile
import zarr
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


def write_raster(path: Path, bands: np.ndarray, mask: np.ndarray | None = None, **profile: object) -> Path:
    """``bands`` (B, H, W) as a tiled GeoTIFF in UTM at 0.5 m/px unless ``profile`` says otherwise.

    ``mask`` bool (H, W) becomes an internal mask of the file.
    """
    facts = {"driver": "GTiff", "height": bands.shape[1], "width": bands.shape[2], "count": len(bands),
             "dtype": bands.dtype.name, "crs": UTM, "transform": Affine(*PLACE), "tiled": True,
             "blockxsize": 128, "blockysize": 128, **profile}  # fmt: skip
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **facts) as dataset:
        dataset.write(bands)
        if mask is not None:
            dataset.write_mask(mask)
    return path


def write_damaged_slide(path: Path, image: np.ndarray, tiles: slice, mpp: float = 0.5) -> Path:
    """A TIFF of one level with tiles of 128 px, some of which cannot be decoded."""
    per_cm = (1e4 / mpp, 1e4 / mpp)
    options = {"tile": (128, 128), "photometric": "rgb", "compression": "jpeg", "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, image, resolution=per_cm, metadata=None, **options)
    with tifffile.TiffFile(path) as tiff:
        places = list(zip(tiff.pages.first.dataoffsets, tiff.pages.first.databytecounts, strict=True))
    with path.open("r+b") as file:
        for offset, count in places[tiles]:
            file.seek(offset)
            file.write(bytes(count))
    return path


def write_vrt(path: Path, source: Path) -> Path:
    """A VRT of all of ``source``, as gdal_translate writes it."""
    with rasterio.open(source) as dataset:
        rasterio.shutil.copy(dataset, path, driver="VRT")
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


def halves(image: np.ndarray, levels: int) -> list[np.ndarray]:
    """``image`` (h, w, 3) and its 2 x 2 means, ``levels`` in all; sides are to be divisible."""
    made = [image]
    for _ in range(levels - 1):
        rows, cols, bands = made[-1].shape
        cells = made[-1].reshape(rows // 2, 2, cols // 2, 2, bands).astype(np.float64)
        made.append((cells.mean((1, 3)) + 0.5).astype(image.dtype))
    return made


def write_ome_subifds(path: Path, image: np.ndarray, mpp: float | None = 0.5, levels: int = 3, **more: object) -> Path:
    """An OME-TIFF as Bio-Formats writes it: RGB, its levels in SubIFDs only, the um/px in the XML only."""
    facts = {"axes": "YXS"} | ({f"PhysicalSize{a}": mpp for a in "XY"} if mpp else {})
    options = {"tile": (128, 128), "photometric": "rgb", "compression": "zlib"} | more
    with tifffile.TiffWriter(path, ome=True) as tiff:
        first, *others = halves(image, levels)
        tiff.write(first, subifds=len(others), metadata=facts, **options)  # type: ignore[arg-type]
        for level in others:
            tiff.write(level, subfiletype=1, **options)  # type: ignore[arg-type]
    return path


def write_ome_channels(path: Path, channels: np.ndarray, mpp: float = 0.5, **more: object) -> Path:
    """An OME-TIFF with a plane per channel, (C, H, W) of any type."""
    facts = {"axes": "CYX", "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
    options = {"tile": (128, 128), "photometric": "minisblack", "metadata": facts} | more
    tifffile.imwrite(path, channels, ome=True, **options)  # type: ignore[arg-type]
    return path


def write_old_ome_zarr(path: Path, image: np.ndarray, unit: str = "nanometer", pixel: float = 500.0) -> Path:
    """OME-Zarr 0.4 in Zarr v2 with axes t, c, z, y, x."""
    group = zarr.create_group(path, zarr_format=2)
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": unit} for name in "zyx"]
    datasets = []
    for level, pixels in enumerate(halves(image, 3)):
        data = pixels.transpose(2, 0, 1)[None, :, None]
        group.create_array(str(level), data=data, chunks=(1, 1, 1, 128, 128))
        scale = [1, 1, 1, pixel * 2**level, pixel * 2**level]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return path
