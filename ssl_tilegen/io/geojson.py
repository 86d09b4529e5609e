"""Regions of an image as GeoJSON: read, written, and turned into masks and back.

Slides and images have level-0 pixels as coordinates, as QuPath reads and writes them; georeferenced rasters have
longitude and latitude, or the file's own ``crs`` member (old GeoJSON, as GIS programs still write it).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import is_valid_geom, rasterize, shapes
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from ssl_tilegen.errors import InputError, OutputError
from ssl_tilegen.geometry import Size
from ssl_tilegen.system import atomic, marks
from ssl_tilegen.system.boundary import reason_of

_AREAS = ("Polygon", "MultiPolygon")
_MOST = 1e300
_TISSUE = {"name": "Tissue", "color": [196, 60, 140]}
Geometry = Mapping[str, Any]


class Regions(NamedTuple):
    """Areas that count and areas cut out of them (QuPath's class ``Ignore*``), as GeoJSON geometries."""

    path: Path
    wanted: tuple[Geometry, ...]
    ignored: tuple[Geometry, ...] = ()
    crs: str | None = None

    def placed(self, crs: str | None, transform: Sequence[float] | None) -> Regions:
        """These regions in level-0 pixels of a raster: as they are, or through its CRS and affine transform."""
        if transform is None:
            return self
        if crs is None:
            raise InputError(f"--regions {self.path}: the raster has no CRS to place them in; assign one (gdal_edit)")
        to_pixel, source = ~Affine(*transform), self.crs or "OGC:CRS84"
        try:
            parts = ([_moved(transform_geom(source, crs, g), to_pixel) for g in part] for part in self[1:3])
            wanted, ignored = map(tuple, parts)
        except Exception as error:
            raise InputError(f"--regions {self.path}: cannot be placed in {crs} ({error}); check its CRS") from error
        return Regions(self.path, wanted, ignored)

    def mask(self, size: Size, factor: float) -> np.ndarray:
        """bool (H, W) of ``size`` over pixels that are ``factor`` level-0 pixels wide: whose centre is in a region."""
        return _filled(self.wanted, size, factor) & ~_filled(self.ignored, size, factor)


def read_regions(path: Path) -> Regions:
    """The polygons of a GeoJSON file: a collection, a list of features, one feature or one geometry."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--regions {path}: cannot be read ({reason_of(error)}); give a GeoJSON file") from None
    wanted: list[Geometry] = []
    ignored: list[Geometry] = []
    for geometry, name in _geometries(tree, ""):
        if not is_area(geometry):
            raise InputError(f"--regions {path}: has a broken polygon ({_short(geometry)}); draw it again")
        (ignored if name.lower().startswith("ignore") else wanted).append(geometry)
    if not wanted:
        raise InputError(f"--regions {path}: has no polygon; draw areas, or export them as GeoJSON")
    return Regions(path, tuple(wanted), tuple(ignored), _crs_of(path, tree))


def is_area(geometry: Any) -> bool:
    """Whether a value is a GeoJSON polygon or several, of finite coordinates."""
    if not isinstance(geometry, Mapping) or geometry.get("type") not in _AREAS:
        return False
    depth = 2 if geometry["type"] == "Polygon" else 3
    return _is_nested(geometry.get("coordinates"), depth) and bool(is_valid_geom(geometry))


def _is_nested(coordinates: Any, depth: int) -> bool:
    """Whether ``coordinates`` are lists in lists, ``depth`` of them around positions of two or three finite numbers."""
    if not isinstance(coordinates, (list, tuple)):
        return False
    if depth:
        return bool(coordinates) and all(_is_nested(inner, depth - 1) for inner in coordinates)
    return 2 <= len(coordinates) <= 4 and all(_is_finite(value) for value in coordinates)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_MOST < value < _MOST


def outlines(mask: np.ndarray, factor: float) -> list[Geometry]:
    """Polygons with holes, in level-0 pixels, around the true pixels of bool (H, W); `Regions.mask` gives it back."""
    found = shapes(mask.astype(np.uint8), mask=mask, transform=Affine.scale(factor))
    return [geometry for geometry, _ in found]


def write_regions(path: Path, geometries: Iterable[Geometry], before: Callable[[], object] = lambda: None) -> Path:
    """The geometries as annotations of class Tissue, as QuPath imports them; appears when whole, once ``before`` has
    been asked whether it still may."""
    features = [
        {
            "type": "Feature",
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{path.name}/{index}")),
            "geometry": geometry,
            "properties": {"objectType": "annotation", "classification": _TISSUE},
        }
        for index, geometry in enumerate(geometries)
    ]
    tree = {"type": "FeatureCollection", "ssl_tilegen": marks.geojson_mark(features), "features": features}
    try:
        with atomic.writing(path, before=before) as part:
            part.write_text(json.dumps(tree), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot write here ({error.strerror}); choose another -o") from error
    return path


def _geometries(tree: Any, name: str) -> Iterator[tuple[Geometry, str]]:
    """(polygon, name of its class) at any depth."""
    if isinstance(tree, list):
        for item in tree:
            yield from _geometries(item, name)
    elif isinstance(tree, Mapping):
        if tree.get("type") in _AREAS:
            yield tree, name
        facts = tree.get("properties")
        stated = facts.get("classification") if isinstance(facts, Mapping) else None
        name = str(stated.get("name", "")) if isinstance(stated, Mapping) else name
        for key in ("features", "geometry", "geometries"):
            yield from _geometries(tree.get(key), name)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _crs_of(path: Path, tree: Any) -> str | None:
    stated = tree.get("crs") if isinstance(tree, Mapping) else None
    if not stated:
        return None
    try:
        return CRS.from_user_input(stated["properties"]["name"]).to_wkt()
    except (CRSError, KeyError, TypeError) as error:
        raise InputError(
            f"--regions {path}: its crs is not understood ({error}); write it as longitude, latitude"
        ) from (error)


def _moved(geometry: Geometry, affine: Affine) -> Geometry:
    """A geometry whose points went through an affine transform."""

    def move(item: Any) -> Any:
        if not isinstance(item[0], (int, float)):
            return [move(part) for part in item]
        x, y = item[:2]
        return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f

    return {"type": geometry["type"], "coordinates": move(geometry["coordinates"])}


def _filled(geometries: Sequence[Geometry], size: Size, factor: float) -> np.ndarray:
    if not geometries:
        return np.zeros((size.rows, size.cols), bool)
    shape = (size.rows, size.cols)
    return rasterize(geometries, shape, transform=Affine.scale(factor), dtype="uint8").astype(bool)
