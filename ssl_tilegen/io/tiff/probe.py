"""The first directory of a TIFF, read without decoding pixels."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

from ssl_tilegen.errors import InputError

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it logs of broken files we say ourselves
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GEO_TAGS = (33550, 34264, 34735)  # pixel scale, transformation, GeoKey directory


def is_tiff(path: Path) -> bool:
    """Whether the file starts as a (Big)TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def has_georeference(path: Path) -> bool:
    """Whether the first directory carries GeoTIFF tags."""
    import tifffile

    if not is_tiff(path):
        return False
    with tifffile.TiffFile(path) as tiff:
        return any(code in tiff.pages.first.tags for code in _GEO_TAGS)


def check_whole(path: Path) -> None:
    """Raise InputError where a TIFF's level-0 pixels reach beyond the end of the file; other files pass."""
    import tifffile

    if not is_tiff(path):
        return
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    except (tifffile.TiffFileError, struct.error, ValueError, IndexError, OSError, KeyError) as error:
        raise InputError(f"{path}: is a broken or cut-short TIFF; copy or download it again") from error
    length, needed = path.stat().st_size, max(ends, default=0)
    if needed > length:
        raise InputError(f"{path}: is cut short ({length} of at least {needed} bytes); copy or download it again")
