"""OME-Zarr images (0.4 in Zarr v2, 0.5 in Zarr v3), also as bioformats2raw lays them out; by zarr."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.io.raster import Kind, Options, ReadError
from ssl_tilegen.io.readers.channels import ChannelImage
from ssl_tilegen.io.uri import Source

_METRES = {"angstrom": 1e-10, "nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2,
           "meter": 1.0, "kilometer": 1e3}  # fmt: skip


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
            multiscale = attributes.get("ome", attributes)["multiscales"][0]
            self._axes = [axis if isinstance(axis, str) else axis["name"] for axis in multiscale["axes"]]
            self._arrays = [_open(_inside(path, folder, item["path"])) for item in multiscale["datasets"]]
            if self._axes[-2:] != ["y", "x"] or any(a.ndim != len(self._axes) for a in self._arrays):
                raise ValueError(f"axes {self._axes}")
        except Exception as error:
            raise InputError(f"{path}: is no OME-Zarr image that can be read ({error}); convert it again") from error
        self.levels = tuple(Size(*array.shape[-2:]) for array in self._arrays)
        self.size = self.levels[0]
        self._place(attributes, multiscale, options)
        count = self._arrays[0].shape[self._axes.index("c")] if "c" in self._axes else 1
        self._choose([self._arrays[0].dtype] * count, options)
        in_colour = count == 3 and options.bands is None and _is_rgb(attributes.get("ome", attributes))
        self._stain(in_colour and self.kind == "slide")

    @classmethod
    def can_read(cls, path: Source) -> bool:
        """Whether the path is a folder with the attributes of an OME-Zarr image."""
        return isinstance(path, Path) and path.is_dir() and image_attributes(path) is not None

    def close(self) -> None:
        """Nothing to release: chunks are files that are opened as they are read."""
        pass

    def _place(self, attributes: Mapping[str, Any], multiscale: Mapping[str, Any], options: Options) -> None:
        """Set kind, resolution, crs and transform."""
        stated = _stated_resolution(multiscale, self._axes)
        own = attributes.get("ssl_tilegen") or {}
        if own.get("crs") and own.get("transform"):
            self.kind, self.crs = "georaster", own["crs"]
            a, b, c, d, e, f = own["transform"]
            self.transform = (a, b, c, d, e, f)
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


def _inside(store: Path, folder: Path, name: object) -> Path:
    """The array that a dataset's path names; ValueError where it lies outside the store, by its name or by links."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"the path of a dataset is {name!r}")
    array = folder / name
    if not array.resolve().is_relative_to(store.resolve()):
        raise ValueError(f"the path of a dataset, {name!r}, leaves its store")
    return array


def _open(path: Path) -> Any:
    import zarr

    return zarr.open_array(path, mode="r")


def _stated_resolution(multiscale: Mapping[str, Any], axes: list[str]) -> Resolution | None:
    """Of level 0: the geometric mean of both axes, in m where the unit is metres or more, else in um."""
    units = {axis["name"]: axis.get("unit") for axis in multiscale["axes"] if isinstance(axis, dict)}
    scale = np.ones(len(axes))
    steps = [
        *multiscale["datasets"][0].get("coordinateTransformations", ()),
        *multiscale.get("coordinateTransformations", ()),
    ]
    for step in steps:
        if step.get("type") == "scale":
            scale = scale * np.array(step["scale"], float)
    if units.get("y") not in _METRES or units.get("x") not in _METRES:
        return None
    metres = math.sqrt(scale[-2] * _METRES[units["y"]] * scale[-1] * _METRES[units["x"]])  # type: ignore[index]
    try:
        return Resolution(metres, "m") if _METRES[units["y"]] >= 1 else Resolution(metres * 1e6, "um")  # type: ignore[index]
    except ValueError:
        return None


def _is_rgb(ome: Mapping[str, Any]) -> bool:
    """Whether the channels are shown as red, green and blue, as far as is said."""
    colours = [str(channel.get("color", "")).upper() for channel in (ome.get("omero") or {}).get("channels", ())]
    return colours in ([], ["FF0000", "00FF00", "0000FF"])
