"""A sheet of patches: cells of the originals -> fields -> one stack of canvases -> images, and their facts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_tilegen import __version__
from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import AugmentSettings
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.diffusion.slerp import slerp
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.geometry import Size
from ssl_tilegen.io.png_text import png_text
from ssl_tilegen.system import atomic
from ssl_tilegen.system.progress import Progress
from ssl_tilegen.system.resources import reading_threads
from ssl_tilegen.workflows.augment.inputs import Original, read_pixels
from ssl_tilegen.workflows.augment.paint_stack import develop_stack, frame, paint_stack
from ssl_tilegen.workflows.augment.plan import Sample, Sheet
from ssl_tilegen.workflows.augment.store import Record

BLEED_LAT = 4  # the network was trained on windows with just such edges; more costs time and shows no gain
_JPEG_QUALITY = 95


class Painter(NamedTuple):
    """The state that all sheets share."""

    bundle: ModelBundle
    encoder: Encoder
    settings: AugmentSettings
    how: SynthesisSettings
    originals: Sequence[Original]


def paint_patches(painter: Painter, sheet: Sheet, folder: Path, progress: Progress) -> Record:
    """Paint the samples of a sheet into ``folder``; returns their records."""
    with ThreadPoolExecutor(reading_threads()) as pool:
        needed = sorted({i for s in sheet.samples for i in (s.original, s.partner) if i is not None})
        pixels = dict(zip(needed, pool.map(lambda i: read_pixels(painter.originals[i].path), needed), strict=True))
        cells = {index: cells_of(painter.encoder, pixels[index][None])[0] for index in needed}
        images = _paint(painter, sheet, pixels, cells, progress)
        again = cells_of(painter.encoder, images)
        saved = [
            pool.submit(save_patch, folder / sample.file, image, facts_of(painter, sample))
            for sample, image in zip(sheet.samples, images, strict=True)
        ]
        for each in saved:
            each.result()
    sources = sorted({sample.original for sample in sheet.samples})
    cosine = [mean_cosine(made, cells[sample.original]) for made, sample in zip(again, sheet.samples, strict=True)]
    real = np.stack([cells[index].mean((0, 1)) for index in sources])
    return Record(again.mean((1, 2)), np.array(cosine, np.float32), np.array(sources), real)


def cells_of(encoder: Encoder, images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> cells (N, R, K, D) that cover the images: beyond their edges they are mirrored."""
    tile, (count, height, width) = encoder.tile_px, images.shape[:3]
    shape, before = cover_of(Size(height, width), tile)
    after = (shape.rows * tile - height - before[0], shape.cols * tile - width - before[1])
    pads = ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0))
    padded = np.pad(images, pads, "symmetric")
    tiles = padded.reshape(count, shape.rows, tile, shape.cols, tile, 3).swapaxes(2, 3).reshape(-1, tile, tile, 3)
    vectors = [encoder.embed(tiles[first : first + encoder.batch]) for first in range(0, len(tiles), encoder.batch)]
    return np.concatenate(vectors).reshape(count, shape.rows, shape.cols, -1)


def cover_of(size: Size, tile: int) -> tuple[Size, tuple[int, int]]:
    """How many cells cover an image, and how many mirrored pixels (rows, cols) lie before its first."""
    shape = size.ceil_div(tile)
    return shape, ((shape.rows * tile - size.rows) // 2, (shape.cols * tile - size.cols) // 2)


def mixed(cells: np.ndarray, other: np.ndarray, weight: float, layout_dim: int = 0) -> np.ndarray:
    """Cells (R, K, D) moved by ``weight`` along the sphere towards those of another image at the same place.

    The last ``layout_dim`` numbers stay: two layouts laid over each other are none.
    """
    rows = (np.arange(cells.shape[0]) + 0.5) * other.shape[0] / cells.shape[0]
    cols = (np.arange(cells.shape[1]) + 0.5) * other.shape[1] / cells.shape[1]
    there = np.ascontiguousarray(other[np.ix_(rows.astype(int), cols.astype(int))])
    kept = cells.shape[-1] - layout_dim
    content = slerp(torch.from_numpy(cells[..., :kept]), torch.from_numpy(there[..., :kept]), torch.tensor(weight))
    return np.concatenate([content.numpy(), cells[..., kept:]], axis=-1)


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine of cells (R, K, D) to those in the same places."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / lengths.clip(1e-12)).mean())


def facts_of(painter: Painter, sample: Sample) -> dict[str, Any]:
    """The provenance that an image carries."""
    settings, originals = painter.settings, painter.originals
    source = originals[sample.original]
    return {
        "synthetic": True,
        "software": f"ssl-tilegen {__version__}",
        "model": painter.bundle.info.name,
        "model_sha256": painter.bundle.hash,
        "source": source.name,
        "label": source.label,
        "seed": sample.seed,
        "strength": settings.strength,
        "mix": settings.mix if sample.partner is not None else None,
        "mixed_with": None if sample.partner is None else originals[sample.partner].name,
        "layout": settings.layout,
        "steps": painter.how.steps,
        "guidance": painter.how.guidance,
    }


def save_patch(path: Path, rgb: np.ndarray, facts: Mapping[str, Any]) -> None:
    """Write uint8 (H, W, 3) as PNG or JPEG with its facts inside."""
    text, image = json.dumps(facts, sort_keys=True), Image.fromarray(rgb)
    with atomic.writing(path) as part:
        if path.suffix == ".png":
            image.save(part, format="PNG", pnginfo=png_text(Description=text))
        else:
            image.save(part, format="JPEG", quality=_JPEG_QUALITY, subsampling=0, comment=text.encode())


def _paint(
    painter: Painter,
    sheet: Sheet,
    pixels: Mapping[int, np.ndarray],
    cells: Mapping[int, np.ndarray],
    progress: Progress,
) -> np.ndarray:
    """The images of a sheet, uint8 (N, H, W, 3)."""
    bundle, settings, how = painter.bundle, painter.settings, painter.how
    sources = None
    if settings.strength is not None:
        known = {i: _latents(bundle, pixels[i], how) for i in {sample.original for sample in sheet.samples}}
        sources = torch.stack([known[sample.original] for sample in sheet.samples])
    latents = paint_stack(
        bundle,
        [_field(painter, sheet.size, _condition(painter, sample, cells)) for sample in sheet.samples],
        sheet.size,
        [sample.seed for sample in sheet.samples],
        how,
        sources=sources,
        strength=settings.strength or 1.0,
        tick=lambda part: progress("sheet", part, 1),
    )
    return develop_stack(bundle, latents, sheet.size, how)


def _condition(painter: Painter, sample: Sample, cells: Mapping[int, np.ndarray]) -> np.ndarray:
    own, mix = cells[sample.original], painter.settings.mix
    if sample.partner is None or not mix:
        return own
    return mixed(own, cells[sample.partner], mix, painter.bundle.info.encoder.layout_dim)


def _field(painter: Painter, size: Size, cells: np.ndarray) -> ConditionField:
    tile = painter.encoder.tile_px
    _, before = cover_of(size, tile)
    corner = (float(before[0]), float(before[1]))
    # a cell of the padded image lies ``before`` px up and to the left of where it would without padding
    return ConditionField.of_grid(cells, tile_px=tile, stride_px=tile, factor=painter.bundle.factor, corner_px=corner)


def _latents(bundle: ModelBundle, image: np.ndarray, how: SynthesisSettings) -> Tensor:
    """The latents (C, rows, cols) of an image's painted window; beyond its edges it is mirrored."""
    region, window = frame(bundle, Size(*image.shape[:2]), how)
    inside, whole = region.within(window).scaled(bundle.factor), window.size.scaled(bundle.factor)
    after = (whole.rows - inside.row - image.shape[0], whole.cols - inside.col - image.shape[1])
    return bundle.encode(np.pad(image, ((inside.row, after[0]), (inside.col, after[1]), (0, 0)), "symmetric"))
