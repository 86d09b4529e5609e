"""Put ready-encoded tiles into a (Big)TIFF whose every offset is known before the first byte is written.

tifffile lays out directory, data, directory, data; a COG wants all directories first, and a pathology pyramid wants its
levels both as SubIFDs and in the main chain. Both are a matter of pointers, so they are written here.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np

_CLASSIC_LIMIT = (1 << 32) - (1 << 20)
_ASCII, _SHORT, _LONG, _RATIONAL, _DOUBLE, _IFD, _LONG8, _IFD8 = 2, 3, 4, 5, 12, 13, 16, 18
_DTYPES = {_ASCII: "S1", _SHORT: "<u2", _LONG: "<u4", _RATIONAL: "<u4", _DOUBLE: "<f8", _IFD: "<u4", _LONG8: "<u8",
           _IFD8: "<u8"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tag:
    """One directory entry; ``values`` as an array of the type's numbers (a rational is two)."""

    code: int
    type: int
    values: np.ndarray

    @property
    def count(self) -> int:
        """Number of values, as the TIFF entry states it."""
        return len(self.values) // 2 if self.type == _RATIONAL else len(self.values)

    @property
    def data(self) -> bytes:
        """The values as bytes."""
        return self.values.astype(_DTYPES[self.type]).tobytes()


def ascii_tag(code: int, text: str) -> Tag:
    """Text as TIFF holds it: ASCII (others as XML character references) and a final NUL."""
    return Tag(code, _ASCII, np.frombuffer(text.encode("ascii", "xmlcharrefreplace") + b"\0", "S1"))


def utf8_tag(code: int, text: str) -> Tag:
    """Text in UTF-8 and a final NUL. TIFF 6 knows ASCII only, but OME-XML is UTF-8 there, and all readers take it so;
    characters that UTF-8 cannot hold become "?"."""
    return Tag(code, _ASCII, np.frombuffer(text.encode("utf-8", "replace") + b"\0", "S1"))


def short_tag(code: int, *values: int) -> Tag:
    """Whole numbers of 16 bits."""
    return Tag(code, _SHORT, np.array(values, "<u2"))


def double_tag(code: int, *values: float) -> Tag:
    """Floating-point numbers of 64 bits."""
    return Tag(code, _DOUBLE, np.array(values, "<f8"))


def long_tag(code: int, *values: int) -> Tag:
    """Whole numbers of 32 bits."""
    return Tag(code, _LONG, np.array(values, "<u4"))


def rational_tag(code: int, value: float) -> Tag:
    """The closest ratio of two 32-bit numbers to ``value`` > 0."""
    denominator = max(1, min(1_000_000, int(0xFFFFFFFF // max(1.0, value))))
    ratio = Fraction(value).limit_denominator(denominator)
    return Tag(code, _RATIONAL, np.array([ratio.numerator, ratio.denominator], "<u4"))


@dataclass(frozen=True, slots=True)
class Page:
    """One resolution level: its ``tags`` (all but the tile positions), the byte count of each tile, row by row, and
    their file. The tiles lie in it in that order without gaps. ``is_strip``: they are strips instead of tiles."""

    tags: Sequence[Tag]
    tile_bytes: np.ndarray
    tiles: Path
    is_strip: bool = False

    @property
    def data_bytes(self) -> int:
        """Bytes of all tiles."""
        return int(self.tile_bytes.sum())


def write_tiff(path: Path, pages: Sequence[Page], *, sub_ifds: bool) -> None:
    """Write ``pages`` (finest first): all directories in that order, then the tiles of the coarsest page first.

    All pages are chained; with ``sub_ifds`` the first also lists the others as its SubIFDs. BigTIFF where the file
    would pass 4 GiB. Needs memory for the tile positions only.
    """
    total = sum(page.data_bytes + 16 * len(page.tile_bytes) + _tag_bytes(page) for page in pages)
    big = total > _CLASSIC_LIMIT
    ifd_at, data_from = _plan_directories(pages, sub_ifds, big)
    data_at = _plan_data(pages, data_from)
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, ifd_at[0]) if big else struct.pack("<2sHI", b"II", 42, 8))
        for i, page in enumerate(pages):
            subs = ifd_at[1:] if sub_ifds and i == 0 else []
            following = ifd_at[i + 1] if i + 1 < len(pages) else 0
            file.write(_directory(page, ifd_at[i], data_at[i], subs, following, big))
        for i in reversed(range(len(pages))):
            _append(file, pages[i], data_at[i])


def _tag_bytes(page: Page) -> int:
    return sum(20 + len(tag.data) for tag in page.tags)


def _plan_directories(pages: Sequence[Page], sub_ifds: bool, big: bool) -> tuple[list[int], int]:
    """Where each directory starts, and where the last ends."""
    starts, position = [], 16 if big else 8
    for i, page in enumerate(pages):
        starts.append(position)
        subs = [0] * (len(pages) - 1) if sub_ifds and i == 0 else []
        position += len(_directory(page, position, 0, subs, 0, big))
    return starts, position


def _plan_data(pages: Sequence[Page], position: int) -> list[int]:
    """Where each page's tiles start, the coarsest page's first."""
    starts = [0] * len(pages)
    for i in reversed(range(len(pages))):
        starts[i] = position
        position += pages[i].data_bytes
    return starts


def _directory(page: Page, at: int, data_at: int, subs: Sequence[int], following: int, big: bool) -> bytes:
    """The bytes of a directory that starts at ``at``, with the values that do not fit its entries after it."""
    offsets = data_at + np.concatenate([[0], np.cumsum(page.tile_bytes)[:-1]]).astype(np.int64)
    places, counts = (273, 279) if page.is_strip else (324, 325)
    tags = [*page.tags, Tag(places, _LONG8 if big else _LONG, offsets), Tag(counts, _LONG, page.tile_bytes)]
    if subs:
        tags.append(Tag(330, _IFD8 if big else _IFD, np.array(subs, np.int64)))
    tags.sort(key=lambda tag: tag.code)
    head, entry, word = ("<Q", "<HHQ", "<Q") if big else ("<H", "<HHI", "<I")
    inline = struct.calcsize(word)
    values_at = at + struct.calcsize(head) + len(tags) * (struct.calcsize(entry) + inline) + inline
    entries, values = [struct.pack(head, len(tags))], b""
    for tag in tags:
        entries.append(struct.pack(entry, tag.code, tag.type, tag.count))
        data = tag.data
        if len(data) <= inline:
            entries.append(data.ljust(inline, b"\0"))
        else:
            entries.append(struct.pack(word, values_at + len(values)))
            values += data.ljust(-(-len(data) // 8) * 8, b"\0")
    directory = b"".join([*entries, struct.pack(word, following), values])
    return directory.ljust(-(-(at + len(directory)) // 8) * 8 - at, b"\0")


def _append(file: BinaryIO, page: Page, expected: int) -> None:
    if file.tell() != expected:
        raise AssertionError(f"tiles planned at byte {expected} would land at {file.tell()}")
    with page.tiles.open("rb") as tiles:
        shutil.copyfileobj(tiles, file, 1 << 22)
