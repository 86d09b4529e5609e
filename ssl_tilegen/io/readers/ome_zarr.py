"""OME-Zarr images (0.4 in Zarr v2, 0.5 in Zarr v3), also as bioformats2raw lays them out; by zarr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.readers.base import Kind, Options, ReadError
from ssl_tilegen.io.readers.channels import ChannelImage
from ssl_tilegen.io.readers.ome_metadata import Georeference, Multiscale, image_of
from ssl_tilegen.io.uri import Source
from ssl_tilegen.system.boundary import reason_of


class ZarrImage(ChannelImage):
    """The first multiscale image of a group. Of T and Z the first plane is taken; bands are channels.

    Pixels measured in metres or more are aerial, in anything finer a slide. CRS and transform are those that
    ssl-tilegen writes. Chunks that are not there are black, as the format says; those that cannot be decoded are
    ReadErrors.
    """

    kind: Kind = "slide"

    def __init__(self, path: Path, options: Options) -> None:
        super().__init__(path)
        folder, attributes = image_attributes(path) or (path, {})
        try:
            image, place, in_colour = image_of(attributes)
            self._axes = image.names
            self._arrays = [_open(_inside(path, folder, level.path)) for level in image.datasets]
            if any(array.ndim != len(self._axes) for array in self._arrays):
                raise ValueError(f"axes {', '.join(self._axes)}, other dimensions")
            self.levels = tuple(Size(*array.shape[-2:]) for array in self._arrays)
        except Exception as error:
            reason = reason_of(error)
            raise InputError(f"{path}: is no OME-Zarr image that can be read ({reason}); convert it again") from error
        self.size = self.levels[0]
        self._place(image, place, options)
        count = self._arrays[0].shape[self._axes.index("c")] if "c" in self._axes else 1
        self._choose([self._arrays[0].dtype] * count, options)
        self._stain(in_colour and count == 3 and options.bands is None and self.kind == "slide")

    @classmethod
    def can_read(cls, path: Source) -> bool:
        """Whether the path is a folder with the attributes of an OME-Zarr image."""
        return isinstance(path, Path) and path.is_dir() and image_attributes(path) is not None

    def close(self) -> None:
        """Nothing to release: chunks are files that are opened as they are read."""
        pass

    def _place(self, image: Multiscale, place: Georeference, options: Options) -> None:
        """Set kind, resolution, crs and transform."""
        stated = image.resolution()
        if place.crs and place.transform:
            self.kind, self.crs, self.transform = "georaster", place.crs, place.transform
        elif stated is None or stated.unit == "m":
            self.kind = "picture"
        self.resolution = options.resolution() or stated

    def _read_bands(self, level: int, window: Window) -> np.ndarray:
        """The chosen bands (B, h, w)."""
        rows, cols = window.slices
        low, high = min(self._bands) - 1, max(self._bands)
        lead = tuple(slice(low, high) if axis == "c" else 0 for axis in self._axes[:-2])
        try:
            found = np.asarray(self._arrays[level][(*lead, rows, cols)])
        except Exception as error:  # every codec has errors of its own
            raise ReadError(f"{self.path}: level {level} cannot be read at {window} ({error})") from error
        found = found if "c" in self._axes else found[None]
        return found[[band - 1 - low for band in self._bands]]


def image_attributes(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """(folder, attributes) of the image in a Zarr group; None where it is none (grids of embeddings are groups too)."""
    for folder in (path, path / "0"):
        for name in ("zarr.json", ".zattrs"):
            try:
                facts = json.loads((folder / name).read_text())
                attributes = facts.get("attributes", facts)
                if "multiscales" in attributes.get("ome", attributes):
                    return folder, attributes
            except (OSError, ValueError, AttributeError, TypeError):
                continue
    return None


def _inside(store: Path, folder: Path, name: str) -> Path:
    """The array that a dataset's path names; ValueError where it lies outside the store, by its name or by links."""
    array = folder / name
    if not array.resolve().is_relative_to(store.resolve()):
        raise ValueError(f"the path of a dataset, {name!r}, leaves its store")
    return array


def _open(path: Path) -> Any:
    import zarr

    return zarr.open_array(path, mode="r")
