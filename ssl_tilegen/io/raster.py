"""Images to read from: one small contract over slides, georeferenced rasters and plain images.

    with open_raster("slide.svs") as raster:
        view = view_at(raster, Resolution(0.5, "um"))  # io/view.py
        pixels = view.read(Window(0, 0, 256, 256))   # pixels.rgb, pixels.valid

Never torch in here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ssl_tilegen.errors import InputError, ResolutionError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.io.readers.base import Options, Raster
from ssl_tilegen.io.tiff.probe import check_whole
from ssl_tilegen.io.uri import Source, Uri, source_of
from ssl_tilegen.system.budget import check_pixels
from ssl_tilegen.system.outputs import require_plain

# The readers, in the order they are asked. A new reader is one file and one line.
GDAL = ("ssl_tilegen.io.readers.geotiff", "GeoTiff")
READERS = (
    ("ssl_tilegen.io.readers.ome_zarr", "ZarrImage"),
    ("ssl_tilegen.io.readers.ome_tiff", "OmeImage"),
    ("ssl_tilegen.io.readers.slide", "Slide"),
    ("ssl_tilegen.io.readers.pillow_image", "PillowImage"),
    GDAL,
)


def open_raster(
    path: str | Source,
    *,
    mpp: float | None = None,
    gsd: float | None = None,
    bands: Sequence[int] | None = None,
    scale: tuple[float, float] | None = None,
    if_unknown: Resolution | None = None,
) -> Raster:
    """Open a slide, georaster or image with the reader that knows it by its content.

    Args:
        path: File or folder, or an address that GDAL reads.
        mpp: Micrometres per level-0 pixel; wins over the file's own.
        gsd: Metres per level-0 pixel; wins over the file's own.
        bands: Three bands counted from 1, or one to repeat; for rasters that GDAL reads.
        scale: The values that become 0 and 255; for rasters that GDAL reads.
        if_unknown: The resolution of a file that states none.

    Returns:
        The image, open for reading; close it, or use it in a ``with`` statement.

    Raises:
        InputError: The file is missing, cut short or of no known kind.
        ResolutionError: The resolution does not fit the file.
        BudgetError: The image is larger than the limit (``system.budget.limits``).

    Example:
        >>> with open_raster("slide.ome.tif") as raster:
        ...     print(raster.kind, raster.size, raster.resolution)
        slide 256 x 256 0.499 um/px
    """
    path = source_of(path)
    options = _checked_options(path, mpp, gsd, bands, scale)
    if isinstance(path, Path):
        _check_readable(path)
    try:
        for module, name in READERS if isinstance(path, Path) else (GDAL,):
            reader: type[Raster] = getattr(import_module(module), name)
            if reader.can_read(path):
                make: Callable[[Any, Options], Raster] = reader
                return _checked(make(path, options), options, if_unknown)
    except UnicodeEncodeError:  # of libraries that take no other names
        raise InputError(f"{path}: this kind of file must have a path in UTF-8 to be read; rename it") from None
    if isinstance(path, Uri):
        raise InputError(f"{path}: GDAL cannot open it; check the address, the network and its credentials")
    raise InputError(f"{path}: not an image in any format that can be read; give a slide, a GeoTIFF, a PNG or a JPEG")


def _checked(raster: Raster, options: Options, if_unknown: Resolution | None) -> Raster:
    """``raster`` with its resolution; closed again where that is in the wrong unit, or it is larger than is taken on.

    Raises ResolutionError or BudgetError.
    """
    try:
        if raster.resolution is None and if_unknown is not None:
            raster.resolution, raster.assumed = if_unknown, True
        if raster.assumed or options.resolution():
            _check_unit(raster)
        check_pixels(raster.size.rows, raster.size.cols, str(raster.path))
    except BaseException:
        raster.close()
        raise
    return raster


def _check_unit(raster: Raster) -> None:
    unit = raster.resolution and raster.resolution.unit
    if raster.kind == "slide" and unit == "m":
        raise ResolutionError(f"{raster.path}: is microscopy; give its resolution with --mpp (um/px), not --gsd")
    if raster.kind == "georaster" and unit == "um":
        raise ResolutionError(f"{raster.path}: is a georeferenced raster; give --gsd (m/px), not --mpp")


def _checked_options(
    path: Source,
    mpp: float | None,
    gsd: float | None,
    bands: Sequence[int] | None,
    scale: tuple[float, float] | None,
) -> Options:
    if mpp is not None and gsd is not None:
        raise ResolutionError(f"{path}: give --mpp or --gsd, not both (got {mpp:g} um/px and {gsd:g} m/px)")
    for name, value in (("--mpp", mpp), ("--gsd", gsd)):
        if value is not None and not 0 < value < float("inf"):
            raise ResolutionError(f"{path}: {name} must be positive, got {value:g}")
    if bands is not None and len(bands) not in (1, 3):
        raise InputError(f"{path}: give one band or three, got {len(bands)}: {','.join(map(str, bands))}")
    if scale is not None and not scale[0] < scale[1]:
        raise InputError(f"{path}: the scale must rise, got {scale[0]:g} to {scale[1]:g}")
    return Options(mpp, gsd, None if bands is None else tuple(bands), scale)


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    require_plain(path)
    if path.is_dir():
        if path.suffix == ".zarr":
            return
        raise InputError(f"{path}: is a folder; give the image files in it")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: is empty; copy or download it again")
        check_whole(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
