"""Slides of any size for benchmarks: tiled JPEG pyramids that repeat a few tiles, so that the file is small."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

TILE_PX = 256
_LONG, _SHORT, _LONG8, _RATIONAL = 4, 3, 16, 5


def tiles_of(image: np.ndarray, count: int = 64) -> list[bytes]:
    """JPEG tiles cut out of uint8 (H, W, 3), evenly over it."""
    rows, cols = image.shape[0] // TILE_PX, image.shape[1] // TILE_PX
    places = np.linspace(0, rows * cols - 1, min(count, rows * cols)).astype(int)
    return [
        _jpeg(image[r * TILE_PX :, c * TILE_PX :][:TILE_PX, :TILE_PX]) for r, c in (divmod(p, cols) for p in places)
    ]


def write_slide(path: Path, side_px: int, tiles: list[bytes], mpp: float = 0.5) -> Path:
    """A BigTIFF slide of ``side_px`` squared at ``mpp`` with levels 1, 4, 16, ...; level n repeats ``tiles``."""
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        places = []
        for tile in tiles:
            places.append((file.tell(), len(tile)))
            file.write(tile)
        link, side = 8, side_px
        while side > TILE_PX:  # the tags below hold no list of one
            link = _write_level(file, link, side, places, mpp)
            side //= 4
    return path


def _write_level(file: io.BufferedWriter, link: int, side: int, places: list[tuple[int, int]], mpp: float) -> int:
    """One directory; returns where the next one's offset goes."""
    across = -(-side // TILE_PX)
    chosen = [places[(row * 7 + col) % len(places)] for row in range(across) for col in range(across)]
    offsets = _put(file, np.array([offset for offset, _ in chosen], "<u8").tobytes())
    counts = _put(file, np.array([count for _, count in chosen], "<u8").tobytes())
    per_cm = struct.pack("<II", round(1e4 / mpp * 1000), 1000)
    tags = [
        (254, _LONG, 1, struct.pack("<Q", 0 if link == 8 else 1)),
        (256, _LONG, 1, struct.pack("<Q", side)),
        (257, _LONG, 1, struct.pack("<Q", side)),
        (258, _SHORT, 3, struct.pack("<3HH", 8, 8, 8, 0)),
        (259, _SHORT, 1, struct.pack("<Q", 7)),
        (262, _SHORT, 1, struct.pack("<Q", 6)),
        (277, _SHORT, 1, struct.pack("<Q", 3)),
        (282, _RATIONAL, 1, per_cm),
        (283, _RATIONAL, 1, per_cm),
        (284, _SHORT, 1, struct.pack("<Q", 1)),
        (296, _SHORT, 1, struct.pack("<Q", 3)),
        (322, _LONG, 1, struct.pack("<Q", TILE_PX)),
        (323, _LONG, 1, struct.pack("<Q", TILE_PX)),
        (324, _LONG8, len(chosen), struct.pack("<Q", offsets)),
        (325, _LONG8, len(chosen), struct.pack("<Q", counts)),
        (530, _SHORT, 2, struct.pack("<2HI", 1, 1, 0)),
    ]
    file.write(b"\0" * (file.tell() % 2))
    start = file.tell()
    file.write(struct.pack("<Q", len(tags)))
    for code, kind, count, value in tags:
        file.write(struct.pack("<HHQ", code, kind, count) + value)
    following = file.tell()
    file.write(struct.pack("<Q", 0))
    file.seek(link)
    file.write(struct.pack("<Q", start))
    file.seek(0, io.SEEK_END)
    return following


def _put(file: io.BufferedWriter, data: bytes) -> int:
    place = file.tell()
    file.write(data)
    return place


def _jpeg(tile: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(tile)).save(buffer, "JPEG", quality=85, subsampling=0)
    return buffer.getvalue()
