"""Slides that are read by their tiles show the very pixels that OpenSlide shows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.base import ReadError
from ssl_tilegen.io.readers.slide import Slide
from ssl_tilegen.io.tiff.tiles import TileCache
from tests.io import samples

APERIO = "Aperio Image Library v12\r\n700x600 |AppMag = 20|MPP = 0.5"
IMAGE = samples.texture(600, 700)
WINDOWS = (Window(0, 0, 600, 700), Window(128, 256, 128, 128), Window(37, 61, 300, 400), Window(599, 699, 1, 1))
KINDS: dict[str, dict[str, object]] = {
    "jpeg 4:4:4": {"compression": "jpeg", "subsampling": (1, 1)},
    "jpeg 4:2:2": {"compression": "jpeg", "subsampling": (2, 1)},
    "jpeg 4:2:0": {"compression": "jpeg", "subsampling": (2, 2)},
    "jpeg 2000": {"compression": "aperio_jp2000_rgb"},
    "deflate": {"compression": "zlib"},
    "lzw": {"compression": "lzw"},
    "zstd": {"compression": "zstd"},
    "plain": {},
}


def write(path: Path, description: str | None = APERIO, **options: object) -> Path:
    """A tiled slide of two levels with a margin in its last tiles, of Aperio unless ``description`` is None."""
    facts = {"tile": (128, 128), "photometric": "rgb", "metadata": None, "description": description,
             "resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"} | options  # fmt: skip
    with tifffile.TiffWriter(path) as tiff:
        for image in samples.halves(IMAGE, 2):
            tiff.write(image, **facts)  # type: ignore[arg-type]
            facts |= {"description": None, "subfiletype": 0 if description else 1}
    return path


@contextmanager
def both(path: Path) -> Iterator[tuple[Slide, Slide]]:
    """A slide read by its tiles, and the same by OpenSlide alone."""
    with open_raster(path) as direct, open_raster(path) as plain:
        assert isinstance(direct, Slide) and isinstance(plain, Slide)
        if plain.tiles:
            plain.tiles.close()
        plain.tiles = None
        yield direct, plain


def check_same(direct: Slide, plain: Slide) -> None:
    for window in WINDOWS:
        for out in (window.size, Size(-(-window.rows // 2), -(-window.cols // 2))):
            one, other = direct.read(window, out), plain.read(window, out)
            assert (one.rgb == other.rgb).all() and (one.valid == other.valid).all()


@pytest.mark.parametrize("description", [APERIO, None], ids=["aperio", "generic"])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_are_what_openslide_shows(tmp_path: Path, kind: str, description: str | None) -> None:
    if kind == "jpeg 2000" and description is None:
        pytest.skip("OpenSlide reads JPEG 2000 of Aperio's TIFF only")
    with both(write(tmp_path / "s.svs", description=description, **KINDS[kind])) as (direct, plain):
        assert direct.tiles and all(direct.tiles.plane(level) for level in range(2)), "OpenSlide was needed"
        check_same(direct, plain)


def test_a_scanners_tiles_are_what_openslide_shows(data_dir: Path) -> None:
    with both(data_dir / "slides/cmu-1-small-region.svs") as (direct, plain):
        assert direct.tiles and direct.tiles.plane(0)
        check_same(direct, plain)


def test_colours_that_come_out_otherwise_are_left_to_openslide(tmp_path: Path) -> None:
    with both(write(tmp_path / "y.svs", compression="aperio_jp2000_ycbc")) as (direct, plain):
        assert direct.tiles and direct.tiles.plane(0) is None
        check_same(direct, plain)


def test_sparse_slides_are_left_to_openslide(tmp_path: Path) -> None:
    path = write(tmp_path / "s.svs", compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        counts = [0 if index == 7 else count for index, count in enumerate(tiff.pages.first.databytecounts)]
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages.first.tags["TileByteCounts"].overwrite(counts)
    with both(path) as (direct, plain):
        assert direct.tiles and direct.tiles.plane(0) is None and direct.tiles.plane(1) is None
        check_same(direct, plain)


@pytest.mark.parametrize("damage", ["cut off", "zeros", "noise"])
def test_damage_that_openslide_paints_over_is_an_error_there_and_only_there(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "s.svs", compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages.first.dataoffsets[7], tiff.pages.first.databytecounts[7]
    half = count // 2
    noise = np.random.default_rng(0).integers(0, 255, half, np.uint8).tobytes()
    with path.open("r+b") as file:
        file.seek(offset + count - half)
        file.write({"cut off": b"\xff\xd9", "zeros": bytes(half), "noise": noise}[damage])
    with open_raster(path) as raster:
        with pytest.raises(ReadError, match="a tile cannot be decoded"):
            raster.read(Window(130, 130, 20, 20))
        assert raster.read(Window(0, 0, 128, 700)).valid.all()
        assert raster.read(Window(0, 0, 600, 128)).valid.all()


def test_a_tile_that_many_ask_for_is_decoded_once() -> None:
    cache, decoded = TileCache(1 << 20), []

    def decode() -> np.ndarray:
        decoded.append(1)
        return np.zeros((256, 256, 3), np.uint8)

    with ThreadPoolExecutor(8) as pool:
        tiles = list(pool.map(lambda _: cache.get("a", decode), range(64)))
    assert len(decoded) == 1 and all(tile is tiles[0] for tile in tiles)
    for key in range(6):
        cache.get(key, decode)
    cache.get("a", decode)
    assert len(decoded) == 8, "six tiles more than fill it: the first is gone"


def test_an_error_of_decoding_reaches_all_who_wait_and_is_not_kept() -> None:
    def fail() -> np.ndarray:
        raise ReadError("damaged")

    cache = TileCache()
    with pytest.raises(ReadError):
        cache.get("a", fail)
    assert cache.get("a", lambda: np.ones((1, 1, 3), np.uint8)).all()
