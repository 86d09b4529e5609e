"""How the pixels of a file were stored: JPEG leaves marks that features see better than people do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

# The luminance table of the standard's annex K, whose multiples most encoders use; its sum stands for it.
_STANDARD_SUM = 3688
_TABLE = b"\xff\xdb"
_TIFF = {".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif"}


def storage_of(path: Path) -> str:
    """'lossless', 'jpeg q75', 'webp' or 'other': how an image was compressed; JPEG with its estimated quality.

    The quality is that of the standard tables nearest to the file's own, in steps of 5. So two files of one encoder and
    setting are alike.
    """
    try:
        if path.suffix.lower() in _TIFF:
            return _of_tiff(path)
        with Image.open(path) as image:
            if image.format == "JPEG":
                tables = getattr(image, "quantization", {})
                return f"jpeg q{_quality(np.asarray(tables[0]))}" if tables else "jpeg"
            return {"PNG": "lossless", "BMP": "lossless", "WEBP": "webp"}.get(image.format or "", "other")
    except (OSError, SyntaxError, ValueError, tifffile.TiffFileError):
        return "other"


def _of_tiff(path: Path) -> str:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        name, tables = tifffile.COMPRESSION(page.compression).name, page.jpegtables or b""
        if _TABLE not in tables and "JPEG" in name:
            file.filehandle.seek(page.dataoffsets[0])
            tables = file.filehandle.read(min(page.databytecounts[0], 4096))
    if "JPEG" not in name:
        return "other" if "JP2" in name or "J2K" in name or "APERIO" in name else "lossless"
    return f"jpeg q{_quality(_first_table(tables))}" if _TABLE in tables else "jpeg"


def _first_table(tables: bytes) -> np.ndarray:
    """The first quantisation table (64,) of an abbreviated JPEG stream."""
    start = tables.index(_TABLE) + 4
    wide = tables[start] >> 4
    return np.frombuffer(tables, ">u2" if wide else "u1", 64, start + 1)


def _quality(table: np.ndarray) -> int:
    """The quality, in steps of 5, at which the standard table has this sum (the usual scaling of libjpeg)."""
    scale = 100 * float(table.sum()) / _STANDARD_SUM
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return int(np.clip(round(quality / 5) * 5, 5, 100))
