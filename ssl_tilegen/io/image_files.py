"""Which files are images, by their names: slides, rasters, PNG, JPEG and their like, and OME-Zarr folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ssl_tilegen.io.readers.ome_zarr import image_attributes
from ssl_tilegen.io.uri import Source

PLAIN_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
"""Suffixes of images that know nothing of a resolution."""
_SLIDES = {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm"}
SUFFIXES = frozenset(_SLIDES | {".vrt", ".jp2", ".img"} | PLAIN_SUFFIXES)


def is_image(path: Path) -> bool:
    """Whether a path looks like an image, slide or raster."""
    return (path.suffix.lower() in SUFFIXES and path.is_file()) or is_zarr_image(path)


def stem_of(path: Source) -> str:
    """An image's name without its suffix, also without that of ``NAME.ome.tif``; dots within the name stay."""
    return path.name.removesuffix(path.suffix).removesuffix(".ome")


def is_zarr_image(path: Path) -> bool:
    """Whether a folder is an OME-Zarr image (grids of embeddings are Zarr groups too)."""
    return path.suffix == ".zarr" and path.is_dir() and image_attributes(path) is not None


def images_among(paths: Iterable[Path]) -> Iterator[Path]:
    """The images among ``paths``, sorted. All DICOM files of a folder are one slide: the first stands for it."""
    seen: set[Path] = set()
    for path in sorted(paths):
        is_dicom = path.suffix.lower() == ".dcm"
        if is_image(path) and not (is_dicom and path.parent in seen):
            seen |= {path.parent} if is_dicom else set()
            yield path
