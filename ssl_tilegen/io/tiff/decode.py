"""From the bytes of a TIFF tile to its pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Decode = Callable[[bytes, int], np.ndarray]
"""The bytes of the tile of an index -> (h, w, samples). Raises the codec's errors."""

_RGB, _YCBCR, _JPEG = 2, 6, 7
_HARMLESS = "extraneous bytes"  # libjpeg's words for padding between markers; no pixel is wrong


def decoder_of(page: Any) -> Decode:
    """The decoder for the tiles or strips of a page: of JPEG in colour a strict one, of all else tifffile's."""
    jpeg = page.compression == _JPEG and page.photometric in (_RGB, _YCBCR) and page.is_tiled
    if jpeg and page.samplesperpixel == 3 and page.planarconfig == 1 and page.bitspersample == 8:
        return JpegDecoder(page)
    return _lenient(page)


class JpegDecoder:
    """JPEG tiles, decoded by libjpeg-turbo such that damage is an error.

    Most decoders, OpenSlide's and tifffile's too, make up pixels where a code is wrong or data are missing.
    """

    def __init__(self, page: Any) -> None:
        tables = page.jpegtables or b"\xff\xd8\xff\xd9"
        self._head = b"\xff\xd8" + _adobe_marker(page.photometric == _YCBCR) + tables[2:-2]
        self._shape = page.tilelength, page.tilewidth, 3
        self._lenient = _lenient(page)

    def __call__(self, data: bytes, index: int) -> np.ndarray:
        """Decode one tile (H, W, 3) uint8; ``index`` is its number in the file."""
        import simplejpeg

        try:
            tile = simplejpeg.decode_jpeg(self._head + data[2:], "RGB", strict=True)
        except ValueError as error:
            if _HARMLESS not in str(error):
                raise
            return self._lenient(data, index)
        if tile.shape != self._shape:
            raise ValueError(f"is {tile.shape[1]} x {tile.shape[0]} px, not {self._shape[1]} x {self._shape[0]}")
        return tile


def _adobe_marker(ycbcr: bool) -> bytes:
    """Adobe's APP14 of transform 1 or 0: which colours a JPEG stream holds. In TIFF that stands in the directory."""
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([ycbcr])


def _lenient(page: Any) -> Decode:
    decode, tables = page.decode, page.jpegtables

    def decoded(data: bytes, index: int) -> np.ndarray:
        tile = decode(data, index, jpegtables=tables)[0]
        if tile is None:
            raise ValueError("no data")
        return tile[0]

    return decoded
