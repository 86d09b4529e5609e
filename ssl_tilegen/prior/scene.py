"""A map of labels and texts: a PNG with a legend of colours, or GeoJSON features with a label or a text each."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssl_tilegen.errors import InputError, OutputError
from ssl_tilegen.geometry import Size
from ssl_tilegen.io.png_text import png_text
from ssl_tilegen.system import atomic
from ssl_tilegen.system.boundary import reason_of
from ssl_tilegen.system.csv_table import defused, read_csv
from ssl_tilegen.system.hashing import sha256_of_file
from ssl_tilegen.system.outputs import require_plain

_WIDTH_PX = 1024
_LEGEND = "give a CSV with columns colour (#RRGGBB), label, text"
_MOST_SIDE, _BAND_PX = 8192, 1 << 20
_FAR = 48 * 48
"""A pixel further than 48 steps of 255 from all colours of the legend is of none."""


class Region(NamedTuple):
    """The content of one part of the image: a label, a text, a vector in a file, or some of them."""

    label: str | None = None
    text: str | None = None
    vector: str | None = None


@dataclass(frozen=True)
class Scene:
    """A map: ``index`` (H, W) of the region that each of its pixels is of, -1 for none, over an image of ``size``."""

    size: Size
    regions: list[Region]
    index: np.ndarray

    def at(self, rows_px: np.ndarray, cols_px: np.ndarray) -> np.ndarray:
        """The region at places of the image, in pixels of it, of any one shape; beyond the edge, that at the edge.

        Between the pixels of a map each counts by its nearness, so that the corners of large ones are cut.
        """
        near = [_nearest_two(place, extent, count) for place, extent, count in (
            (rows_px, self.size.rows, self.index.shape[0]), (cols_px, self.size.cols, self.index.shape[1])
        )]  # fmt: skip
        corners = [(self.index[row, col], down * across) for row, down in near[0] for col, across in near[1]]
        scores = [sum(weight * (of == region) for of, weight in corners) for region, _ in corners]
        return np.choose(np.argmax(scores, 0), [region for region, _ in corners])


def read_scene(path: Path, size: Size | None) -> Scene:
    """The map at ``path``. Its image is of ``size``; left out, 1024 px wide and of the map's own shape (PNG), or as far
    as the features reach (GeoJSON). GeoJSON's coordinates are pixels of the image. InputError where it cannot be
    used."""
    require_plain(path, "--scene")
    return _of_features(path, size) if path.suffix.lower() in (".geojson", ".json") else _of_png(path, size)


def write_scene(path: Path, scene: Scene) -> None:
    """A map as ``read_scene`` reads it: a PNG of a pixel per place, and its legend beside it.

    A region's vector is no part of it: a legend has no column for one. OutputError where it cannot be written.
    """
    colours = [tuple(round(255 * v) for v in hsv_to_rgb(k / len(scene.regions), 0.6, 0.8))
               for k in range(len(scene.regions))]  # fmt: skip
    rgb = np.array([*colours, (255, 255, 255)], np.uint8)[scene.index]
    legend, image = (atomic.temporary_beside(target) for target in (legend_of(path), path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with legend.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(["colour", "label", "text"])
            for (red, green, blue), region in zip(colours, scene.regions, strict=True):
                words = (defused(region.label or ""), defused(region.text or ""))
                lines.writerow([f"#{red:02x}{green:02x}{blue:02x}", *words])
        Image.fromarray(rgb).save(image, "PNG", pnginfo=png_text(Legend=sha256_of_file(legend)))
        atomic.publish_files([(legend, legend_of(path)), (image, path)])
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: cannot be written ({reason}); choose another --save-grid") from error
    finally:
        atomic.remove(legend)
        atomic.remove(image)


def _of_png(path: Path, size: Size | None) -> Scene:
    try:
        with Image.open(path) as image:
            width, height = image.size
            scale = max(1.0, max(image.size) / _MOST_SIDE)
            small = (max(1, round(width / scale)), max(1, round(height / scale)))
            rgb = np.asarray(image.resize(small, Image.Resampling.NEAREST).convert("RGB"))
    except Image.DecompressionBombError:
        raise InputError(f"--scene {path}: has too many pixels; one for every 4 of the image is enough") from None
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise InputError(f"--scene {path}: cannot be read ({reason_of(error)}); give a PNG or a GeoJSON file") from None
    colours, regions = _legend(path)
    rows = max(1, _BAND_PX // rgb.shape[1])
    index = np.concatenate([_nearest_colour(rgb[row : row + rows], colours) for row in range(0, len(rgb), rows)])
    if (index < 0).all():
        raise InputError(f"--scene {path}: has none of the colours of its legend {legend_of(path).name}")
    return Scene(size or Size(max(1, round(_WIDTH_PX * height / width)), _WIDTH_PX), regions, index)


def _nearest_colour(rgb: np.ndarray, colours: list[tuple[int, int, int]]) -> np.ndarray:
    """The number of the colour that each pixel of (H, W, 3) is of, -1 where all are far."""
    index, least = np.full(rgb.shape[:2], -1, np.int32), np.full(rgb.shape[:2], _FAR + 1, np.int32)
    for number, colour in enumerate(colours):
        distance = np.square(rgb - np.array(colour, np.int32)).sum(-1)
        index[distance < least] = number
        np.minimum(least, distance, out=least)
    return index


def legend_of(path: Path) -> Path:
    """The legend beside a map: NAME.csv with columns colour, label, text."""
    return path.with_suffix(".csv")


def _legend(path: Path) -> tuple[list[tuple[int, int, int]], list[Region]]:
    file = legend_of(path)
    rows = read_csv(file, shown=f"--scene {path}: its legend {file}", remedy=_LEGEND)
    colours, regions = [], []
    for row in rows:
        match = re.fullmatch(r"#?([0-9a-fA-F]{6})", row.text("colour") or row.text("color"))
        region = _region(row.cells)
        if not match or region == Region():
            raise InputError(f"{file}, line {row.number}: expected a colour such as #228b22, and a label or a text")
        value = int(match[1], 16)
        colours.append((value >> 16, value >> 8 & 255, value & 255))
        regions.append(region)
    if not regions:
        raise InputError(f"{file}: has no colours")
    return colours, regions


def _of_features(path: Path, size: Size | None) -> Scene:
    from rasterio.features import rasterize
    from rasterio.transform import Affine

    from ssl_tilegen.io.geojson import is_area

    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        features = tree["features"] if isinstance(tree, Mapping) else tree
        found = [(feature["geometry"], _region(_properties(feature))) for feature in features]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = reason_of(error) if isinstance(error, (OSError, ValueError, RecursionError)) else "no such collection"
        raise InputError(f"--scene {path}: cannot be read ({reason}); give a GeoJSON collection of features") from None
    for number, (geometry, region) in enumerate(found, 1):
        if region == Region():
            raise InputError(f"--scene {path}, feature {number}: has neither a property label nor text")
        if not is_area(geometry):
            raise InputError(f"--scene {path}, feature {number}: is no polygon; draw areas")
    if not found:
        raise InputError(f"--scene {path}: has no features")
    reach = np.array([point for geometry, _ in found for point in _points(geometry["coordinates"])])
    if reach.min() < 0 or reach.max(0).min() < 1:
        raise InputError(f"--scene {path}: coordinates must be pixels of the image, from its upper left corner on")
    size = size or Size(*(int(np.ceil(v)) for v in reach.max(0)[::-1]))
    regions = [region for _, region in found]
    scale = max(1.0, max(size.rows, size.cols) / 4096)
    shape = (max(1, round(size.rows / scale)), max(1, round(size.cols / scale)))
    shapes = [(geometry, index) for index, (geometry, _) in enumerate(found)]
    index = rasterize(shapes, shape, fill=-1, transform=Affine.scale(scale), dtype="int32")
    if (index < 0).all():
        raise InputError(f"--scene {path}: its features enclose no part of its {size} px; draw areas within")
    return Scene(size, regions, index)


def _properties(feature: Any) -> dict[str, Any]:
    """The properties of a feature; QuPath's class counts as a label."""
    facts = dict(feature.get("properties") or {})
    stated = facts.get("classification")
    if isinstance(stated, Mapping) and "label" not in facts and "text" not in facts:
        facts["label"] = stated.get("name")
    return facts


def _region(facts: Mapping[str, Any]) -> Region:
    label, text = (str(facts.get(name) or "").strip() or None for name in ("label", "text"))
    return Region(label, text)


def _points(item: Any) -> list[tuple[float, float]]:
    if isinstance(item[0], (int, float)):
        return [(float(item[0]), float(item[1]))]
    return [point for part in item for point in _points(part)]


def _nearest_two(places: np.ndarray, extent: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two of ``count`` pixels over an extent that lie nearest to places in it, and how near, adding to 1."""
    where = places / extent * count - 0.5
    first = np.floor(where).astype(int)
    part = where - first
    return [((first + step).clip(0, count - 1), near) for step, near in ((0, 1 - part), (1, part))]
