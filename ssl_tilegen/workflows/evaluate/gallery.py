"""Pictures for the report, at full resolution, the worst first."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape

import numpy as np
from PIL import Image as Pillow

from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.workflows.evaluate.image_sets import Place, Reader
from ssl_tilegen.workflows.evaluate.pairs import nearest_pairs, spread
from ssl_tilegen.workflows.evaluate.report import Evidence
from ssl_tilegen.workflows.evaluate.table import number

_LEAST_PX = 192


def gallery(evidence: Evidence, settings: EvaluateSettings) -> str:
    """Sections of image pairs: of the same place, farthest from anything real, nearest to training images."""
    count, sections = settings.gallery, []
    sets = next(iter(evidence.features.values()), {})
    if not count or not sets or not sets["synthetic"].places:
        return ""
    name = next(iter(evidence.features))
    if evidence.pairs:
        cards = (_pair(p.real, p.synthetic, "real", f"cosine {p.cosine:.2f}, PSNR {p.psnr:.1f} dB, SSIM {p.ssim:.2f}")
                 for p in spread(evidence.pairs, count))  # fmt: skip
        sections.append(_section("Pairs", cards, f"The same place, real and synthetic; worst by cosine in {name} "
                                 "features first, then evenly up to the best."))  # fmt: skip
    if sets["real"].places:
        distance, index = evidence.nearest[name]
        found = nearest_pairs(index, distance, sets["synthetic"], sets["real"], count, far=True)
        cards = (_pair(real, made, "nearest real", f"distance {number(d)}") for made, real, d in found)
        text = f"Synthetic windows farthest from the real set in {name} features, worst first."
        sections.append(_section("Least like anything real", cards, text))
    for name, copies in evidence.copies.items():
        train = evidence.features[name]["train"]
        if train.places:
            found = nearest_pairs(copies.neighbour, copies.synthetic, evidence.features[name]["synthetic"], train,
                                  max(1, count // 2), far=False)  # fmt: skip
            cards = (_pair(own, made, "nearest training", f"distance {number(d)}, suspect below {number(copies.limit)}")
                     for made, own, d in found)  # fmt: skip
            sections.append(_section(f"Most like a training image, {name}", cards, "The likeliest copies first."))
    return "".join(sections)


def _section(title: str, cards: Iterable[str], text: str) -> str:
    return (f'<section><h2>{escape(title)}</h2><p class="how">{escape(text)}</p>'
            f'<div class="gallery">{"".join(cards)}</div></section>')  # fmt: skip


def _pair(real: Place, synthetic: Place, name: str, text: str) -> str:
    sides = ((synthetic, "synthetic"), (real, name))
    images = "".join(
        f'<div><img src="{_data(_shown(place))}" alt="{escape(title)}" loading="lazy"><span>{escape(title)}</span>'
        f"<small>{escape(_where(place))}</small></div>"
        for place, title in sides
    )
    return f'<div class="pair"><div class="two">{images}</div><p>{escape(text)}</p></div>'


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
