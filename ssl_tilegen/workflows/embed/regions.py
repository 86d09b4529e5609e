"""Regions the user gives for an image, and outlines of the tissue that was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_tilegen.errors import InputError
from ssl_tilegen.io.tissue_map import TissueMap
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.workflows.embed.inputs import EmbedJob

if TYPE_CHECKING:
    from ssl_tilegen.io.geojson import Regions


def regions_for(given: Path | None, job: EmbedJob) -> Regions | None:
    """The regions of an image: those of the file, or of NAME.geojson in the folder (NAME of the grid or the image)."""
    if given is None:
        return None
    from ssl_tilegen.io.geojson import read_regions

    if not given.is_dir():
        return read_regions(given)
    found = region_files(given, job)
    if found:
        return read_regions(found[0])
    names = _names(job)
    raise InputError(f"--regions {given}: has no {' or '.join(names)}; add it, or leave {job.image.name} out")


def region_files(given: Path | None, job: EmbedJob) -> list[Path]:
    """The files of regions that there are for an image, the first of which is read."""
    if given is None or not given.is_dir():
        return [given] if given else []
    return [given / name for name in _names(job) if (given / name).is_file()]


def _names(job: EmbedJob) -> list[str]:
    return list(dict.fromkeys((job.beside(".geojson").name, f"{job.image.name}.geojson")))


def write_outlines(
    tissue: TissueMap, view: RasterView, path: Path, before: Callable[[], object] = lambda: None
) -> Path | None:
    """The outlines of the foreground as GeoJSON in level-0 pixels; None where an image has no map of it."""
    if tissue.mask is None:
        return None
    from ssl_tilegen.io.geojson import outlines, write_regions

    return write_regions(path, outlines(tissue.mask, view.factor / tissue.scale), before)
