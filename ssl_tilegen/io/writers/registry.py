"""The formats of images that are written, by the suffix of a file's name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ssl_tilegen.errors import OutputError
from ssl_tilegen.io.writers.format import Format, ImageSpec
from ssl_tilegen.system import marks

# Suffix -> the format of images without and with a CRS. A new format is one file and one line.
_SVS = ("ssl_tilegen.io.writers.svs", "Svs")
_OME_TIFF = ("ssl_tilegen.io.writers.ome_tiff", "OmeTiff")
_PLAIN_TIFF, _COG = ("ssl_tilegen.io.writers.tiled_tiff", "PlainTiff"), ("ssl_tilegen.io.writers.cog", "Cog")
_OME_ZARR = ("ssl_tilegen.io.writers.ome_zarr", "OmeZarr")
_PNG, _JPEG = ("ssl_tilegen.io.writers.flat_image", "Png"), ("ssl_tilegen.io.writers.flat_image", "Jpeg")
FORMATS = {
    ".ome.tif": (_OME_TIFF, _OME_TIFF),
    ".ome.tiff": (_OME_TIFF, _OME_TIFF),
    ".tif": (_PLAIN_TIFF, _COG),
    ".tiff": (_PLAIN_TIFF, _COG),
    ".svs": (_SVS, _SVS),
    ".zarr": (_OME_ZARR, _OME_ZARR),
    ".png": (_PNG, _PNG),
    ".jpg": (_JPEG, _JPEG),
    ".jpeg": (_JPEG, _JPEG),
}


def output_suffixes() -> tuple[str, ...]:
    """The suffixes an output may have."""
    return tuple(FORMATS)


def check_format(path: Path, spec: ImageSpec) -> type[Format]:
    """The format that ``path`` names; OutputError where it cannot hold ``spec``. Writes nothing."""
    kind = _format_of(path, spec)
    kind.check(path, spec)
    return kind


def check_suffix(path: Path) -> str:
    """The suffix that says the format of an output; OutputError where there is none of that kind."""
    suffix = max((s for s in FORMATS if path.name.lower().endswith(s)), key=len, default=None)
    if suffix is None:
        raise OutputError(f"{path}: unknown kind of output; end its name in one of {' '.join(FORMATS)}")
    return suffix


def mark_of(path: Path) -> marks.Mark:
    """The sign, by the format of ``path``, that a file is one that this program made."""
    return _load(FORMATS[check_suffix(path)][0]).mark


def _format_of(path: Path, spec: ImageSpec) -> type[Format]:
    return _load(FORMATS[check_suffix(path)][spec.crs is not None])


def _load(place: tuple[str, str]) -> type[Format]:
    module, name = place
    return getattr(import_module(module), name)
