"""Regions the user gives for an image, and outlines of the tissue that was found."""

from __future__ import annotations

from pathlib import Path

from ssl_tilegen.errors import InputError
from ssl_tilegen.io.geojson import Regions, outlines, read_regions, write_regions
from ssl_tilegen.io.tissue_map import TissueMap
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.workflows.embed.inputs import Job


def regions_for(given: Path | None, job: Job) -> Regions | None:
    """The regions of an image: those of the file, or of NAME.geojson in the folder (NAME of the grid or the image)."""
    if given is None:
        return None
    if not given.is_dir():
        return read_regions(given)
    names = dict.fromkeys((job.beside(".geojson").name, f"{job.image.name}.geojson"))
    for name in names:
        if (given / name).is_file():
            return read_regions(given / name)
    raise InputError(f"--regions {given}: has no {' or '.join(names)}; add it, or leave {job.image.name} out")


def write_outlines(tissue: TissueMap, view: RasterView, path: Path) -> Path | None:
    """The outlines of the foreground as GeoJSON in level-0 pixels; None where an image has no map of it."""
    if tissue.mask is None:
        return None
    return write_regions(path, outlines(tissue.mask, view.factor / tissue.scale))
