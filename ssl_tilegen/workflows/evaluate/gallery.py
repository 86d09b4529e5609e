"""Image pairs for the report, at full resolution, the worst first."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow

from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.workflows.evaluate.pairs import nearest_pairs, spread
from ssl_tilegen.workflows.evaluate.report import Evidence
from ssl_tilegen.workflows.evaluate.table import number
from ssl_tilegen.workflows.evaluate.windows import Place, Reader

_LEAST_PX = 192


class Side(NamedTuple):
    """One image of a pair: a data address, its title, and the place it is from."""

    data: str
    title: str
    where: str


class Pair(NamedTuple):
    """Two images side by side, with a line of text."""

    sides: tuple[Side, Side]
    text: str


class GallerySection(NamedTuple):
    """Pairs under one title."""

    title: str
    text: str
    pairs: list[Pair]


def gallery(evidence: Evidence, settings: EvaluateSettings) -> list[GallerySection]:
    """Sections of image pairs: of the same place, farthest from anything real, nearest to training images."""
    sets = next(iter(evidence.features.values()), {})
    if not settings.gallery or not sets or not sets["synthetic"].places:
        return []
    return [*_same_place(evidence, settings.gallery), *_least_real(evidence, settings.gallery),
            *_nearest_training(evidence, settings.gallery)]  # fmt: skip


def _same_place(evidence: Evidence, count: int) -> Iterator[GallerySection]:
    if evidence.pairs:
        name = next(iter(evidence.features))
        text = (f"The same place, real and synthetic; worst by cosine in {name} features first, "
                "then evenly up to the best.")  # fmt: skip
        shown = spread(evidence.pairs, count)
        yield GallerySection("Pairs", text, [
            _pair(p.real, p.synthetic, "real", f"cosine {p.cosine:.2f}, PSNR {p.psnr:.1f} dB, SSIM {p.ssim:.2f}")
            for p in shown
        ])  # fmt: skip


def _least_real(evidence: Evidence, count: int) -> Iterator[GallerySection]:
    name, sets = next(iter(evidence.features.items()))
    if sets["real"].places:
        distance, index = evidence.nearest[name]
        found = nearest_pairs(index, distance, sets["synthetic"], sets["real"], count, far=True)
        text = f"Synthetic windows farthest from the real set in {name} features, worst first."
        pairs = [_pair(real, made, "nearest real", f"distance {number(d)}") for made, real, d in found]
        yield GallerySection("Least like anything real", text, pairs)


def _nearest_training(evidence: Evidence, count: int) -> Iterator[GallerySection]:
    for name, copies in evidence.copies.items():
        sets = evidence.features[name]
        if sets["train"].places:
            found = nearest_pairs(copies.neighbour, copies.synthetic, sets["synthetic"], sets["train"],
                                  max(1, count // 2), far=False)  # fmt: skip
            pairs = [_pair(own, made, "nearest training", f"distance {number(d)}, suspect below {number(copies.limit)}")
                     for made, own, d in found]  # fmt: skip
            yield GallerySection(f"Most like a training image, {name}", "The likeliest copies first.", pairs)


def _pair(real: Place, synthetic: Place, name: str, text: str) -> Pair:
    return Pair((_side(synthetic, "synthetic"), _side(real, name)), text)


def _side(place: Place, title: str) -> Side:
    return Side(_data(_shown(place)), title, _where(place))


def _shown(place: Place) -> np.ndarray:
    """The window at full resolution, with its surroundings where it is a small part of a large image."""
    side, size = place.window.rows, place.image.size
    margin = max(0, (_LEAST_PX - side) // 2)
    large = min(size.rows, size.cols) / place.factor >= 2 * _LEAST_PX
    shown = place._replace(window=place.window.grown(margin)) if large and margin else place
    with Reader() as reader:
        return reader.read(shown)


def _where(place: Place) -> str:
    path, window = place.image.path, place.window
    part = max(place.image.size.rows, place.image.size.cols) >= 2 * window.rows
    return f"{path.parent.name}/{path.name}" + (f" at {window.col}, {window.row}" if part else "")


def _data(rgb: np.ndarray) -> str:
    """A lossless image as an address within the page."""
    file = io.BytesIO()
    Pillow.fromarray(rgb).save(file, "WEBP", lossless=True, quality=60)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
