"""What the readers of OME-TIFF, OME-Zarr, DICOM and far addresses promise beyond the contract."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.errors import InputError, ResolutionError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.base import ReadError
from ssl_tilegen.io.uri import Uri, source_of
from ssl_tilegen.io.view import view_at
from ssl_tilegen.workflows.embed.inputs import EmbedJob, find_jobs
from tests.io import samples
from tests.io.dicom import write_dicom_slide

WHOLE = Window(0, 0, 512, 512)


def test_an_ome_tiff_shows_its_levels_and_its_pixels(tmp_path: Path) -> None:
    image = samples.texture(512, 512)
    with open_raster(samples.write_ome_subifds(tmp_path / "a.ome.tif", image)) as raster:
        assert raster.levels == (Size(512, 512), Size(256, 256), Size(128, 128)) and raster.stained
        assert raster.resolution == Resolution(0.5, "um") and raster.kind == "slide"
        assert (raster.read(WHOLE).rgb == image).all()


def test_the_hybrid_of_our_own_stays_with_openslide(tmp_path: Path) -> None:
    with open_raster(samples.write_slide(tmp_path / "a.ome.tif", samples.texture(600, 600))) as raster:
        assert type(raster).__name__ == "Slide" and len(raster.levels) > 1


@pytest.mark.parametrize(("suffix", "exact"), [(".bmp", True), (".webp", False)])
def test_pictures_of_a_folder_are_read_whatever_they_are_packed_in(tmp_path: Path, suffix: str, exact: bool) -> None:
    image = samples.texture(256, 256)
    Image.fromarray(image).save(tmp_path / f"a{suffix}")
    (job,) = find_jobs([tmp_path], EmbedSettings(mpp=0.5))
    with open_raster(job.image, mpp=0.5) as raster:
        off = np.abs(raster.read(Window(0, 0, 256, 256)).rgb.astype(int) - image)
    assert off.mean() < (1 if exact else 20) and (not exact or not off.any())


def test_an_ome_tiff_without_a_size_asks_for_it(tmp_path: Path) -> None:
    path = samples.write_ome_subifds(tmp_path / "a.ome.tif", samples.texture(256, 256), mpp=None)
    with open_raster(path) as raster, pytest.raises(ResolutionError, match="--mpp"):
        view_at(raster, Resolution(0.5, "um"))
    with open_raster(path, mpp=0.25) as raster:
        assert view_at(raster, Resolution(0.5, "um")).factor == 2
    with pytest.raises(ResolutionError, match="--mpp"):
        open_raster(path, gsd=0.25)


def test_the_pixel_size_is_that_of_the_image_that_is_shown(tmp_path: Path) -> None:
    """A small label of other pixels comes first; then an image that has no planes in the file."""
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for side, mpp in ((128, 8.0), (256, 0.5)):
            facts = {"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            tiff.write(samples.texture(side, side), photometric="rgb", tile=(128, 128), metadata=facts)
    for _ in range(2):
        with open_raster(path) as raster:
            assert raster.size == Size(256, 256) and raster.resolution == Resolution(0.5, "um")
        first, image, rest = tifffile.tiffcomment(path).partition("<Image ")
        bare = '<Image ID="Image:9"><Pixels ID="Pixels:9" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" ' \
               'SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="32" PhysicalSizeY="32"></Pixels></Image>'  # fmt: skip
        tifffile.tiffcomment(path, (first + bare + image + rest).encode())


def test_channels_are_chosen_and_fluorescence_is_not_stained(tmp_path: Path) -> None:
    channels = np.stack([np.full((256, 256), value, np.uint8) for value in (10, 20, 30, 40, 50)])
    path = samples.write_ome_channels(tmp_path / "f.ome.tif", channels)
    for bands, expected in ((None, (10, 20, 30)), ((5, 1, 3), (50, 10, 30)), ((4,), (40, 40, 40))):
        with open_raster(path, bands=bands) as raster:
            assert (raster.read(Window(0, 0, 256, 256)).rgb == expected).all() and not raster.stained
    with pytest.raises(InputError, match=r"5 channel\(s\), no channel 6.*--bands"):
        open_raster(path, bands=(6,))


def test_samples_that_are_stored_apart(tmp_path: Path) -> None:
    image = samples.texture(256, 384)
    facts = {"axes": "SYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    options = {"photometric": "rgb", "planarconfig": "separate", "tile": (128, 128), "metadata": facts}
    tifffile.imwrite(tmp_path / "p.ome.tif", image.transpose(2, 0, 1), ome=True, **options)
    with open_raster(tmp_path / "p.ome.tif") as raster:
        assert (raster.read(Window(0, 0, 256, 384)).rgb == image).all()


def test_units_of_the_xml(tmp_path: Path) -> None:
    facts = {"axes": "YXS", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.00025,
             "PhysicalSizeYUnit": "mm"}  # fmt: skip
    tifffile.imwrite(tmp_path / "u.ome.tif", samples.texture(256, 256), photometric="rgb", metadata=facts)
    with open_raster(tmp_path / "u.ome.tif") as raster:
        assert raster.resolution and raster.resolution.value == pytest.approx(0.25)


def test_a_damaged_tile_of_an_ome_tiff_is_an_error_there_and_only_there(tmp_path: Path) -> None:
    path = samples.write_ome_subifds(tmp_path / "a.ome.tif", samples.texture(512, 512))
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages.first.dataoffsets[5]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 200)
    with open_raster(path) as raster:
        with pytest.raises(ReadError, match="a tile cannot be decoded"):
            raster.read(Window(130, 130, 20, 20))
        assert raster.read(Window(0, 0, 128, 512)).valid.all()


@pytest.mark.parametrize(("unit", "pixel", "kind"), [("nanometer", 500.0, "slide"), ("meter", 0.5, "picture")])
def test_an_ome_zarr_says_what_it_measures(tmp_path: Path, unit: str, pixel: float, kind: str) -> None:
    path = samples.write_old_ome_zarr(tmp_path / "a.zarr", samples.texture(256, 256), unit, pixel)
    with open_raster(path) as raster:
        assert raster.kind == kind and len(raster.levels) == 3
        assert raster.resolution and raster.resolution.value == pytest.approx(0.5)
    with open_raster(samples.write_old_ome_zarr(tmp_path / "b.zarr", samples.texture(64, 64), "parsec")) as raster:
        assert raster.resolution is None


def test_an_ome_zarr_inside_the_layout_of_bioformats2raw(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "a.zarr", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    image = samples.texture(256, 256)
    samples.write_old_ome_zarr(tmp_path / "a.zarr" / "0", image)
    with open_raster(tmp_path / "a.zarr") as raster:
        assert (raster.read(Window(0, 0, 256, 256)).rgb == image).all()


def test_a_damaged_chunk_of_an_ome_zarr_is_an_error_there_and_only_there(tmp_path: Path) -> None:
    path = samples.write_old_ome_zarr(tmp_path / "a.zarr", samples.texture(256, 256))
    chunk = next(p for p in (path / "0").rglob("*") if p.is_file() and p.name in ("1", "0.1.0.1.1", "0.0.0.1.1"))
    chunk.write_bytes(b"\xff" * 50)
    with open_raster(path) as raster:
        with pytest.raises(ReadError, match="cannot be read"):
            raster.read(Window(130, 130, 20, 20))
        assert raster.read(Window(0, 0, 128, 256)).valid.all()


def test_zarr_groups_that_are_no_images_are_one_line(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "g.zarr")
    with pytest.raises(InputError, match=r"g\.zarr: not an image"):
        open_raster(tmp_path / "g.zarr")
    ome = {"multiscales": [{"axes": [{"name": "x"}], "datasets": []}]}
    zarr.create_group(tmp_path / "h.zarr", attributes={"ome": ome})
    with pytest.raises(InputError, match=r"h\.zarr: is no OME-Zarr image that can be read"):
        open_raster(tmp_path / "h.zarr")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("s3://bucket/dir/a.tif", "a.tif"),
        ("/vsicurl/https://host/a.tif?token=b/c.d", "a.tif"),
        ("https://host/x/a.ome.tif#part", "a.ome.tif"),
        ("zip:///x/a.zip!b/c.tif", "c.tif"),
    ],
)
def test_addresses_are_kept_as_they_are(text: str, name: str) -> None:
    address = source_of(text)
    assert isinstance(address, Uri) and address == text and address.name == name and address.suffix == ".tif"
    assert source_of(f"dir/{name}") == Path(f"dir/{name}")


def test_a_raster_is_read_over_http_in_parts(tmp_path: Path) -> None:
    image = samples.texture(512, 512)
    path = samples.write_raster(tmp_path / "far.tif", image.transpose(2, 0, 1))
    with _served(tmp_path) as address, open_raster(f"{address}/far.tif") as far, open_raster(path) as near:
        part = Window(100, 120, 60, 70)
        assert (far.read(part).rgb == image[100:160, 120:190]).all()
        assert (far.crs, far.transform, far.resolution, far.size) == (
            near.crs,
            near.transform,
            near.resolution,
            near.size,
        )
        assert len(far.fingerprint) == 16 and far.name == "far"


def test_an_address_with_nothing_there_is_one_line(tmp_path: Path) -> None:
    with (
        _served(tmp_path) as address,
        pytest.raises(InputError, match="GDAL cannot open it; check the address") as caught,
    ):
        open_raster(f"{address}/none.tif")
    assert "\n" not in str(caught.value)


def test_a_raster_is_read_from_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``s3://`` as GDAL reads it, from a store on this machine."""
    image = samples.texture(256, 256)
    (tmp_path / "bucket").mkdir()
    samples.write_raster(tmp_path / "bucket" / "far.tif", image.transpose(2, 0, 1))
    with _served(tmp_path) as address:
        for name, value in {"AWS_S3_ENDPOINT": address.removeprefix("http://"), "AWS_HTTPS": "NO",
                            "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_NO_SIGN_REQUEST": "YES"}.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        with open_raster("s3://bucket/far.tif") as far:
            assert (far.read(Window(10, 20, 30, 40)).rgb == image[10:40, 20:60]).all() and far.name == "far"


def test_an_internal_mask_is_what_is_valid(tmp_path: Path) -> None:
    mask = np.zeros((256, 256), bool)
    mask[:100, 30:] = True
    path = samples.write_raster(tmp_path / "m.tif", samples.texture(256, 256).transpose(2, 0, 1), mask)
    assert not path.with_suffix(".tif.msk").exists()
    with open_raster(path) as raster:
        assert (raster.read(Window(0, 0, 256, 256)).valid == mask).all()


def test_a_dicom_slide_has_all_its_levels_and_pixels(tmp_path: Path) -> None:
    image = samples.texture(640, 768)
    first = write_dicom_slide(tmp_path / "d", image, mpp=0.25, levels=3)
    with open_raster(first) as raster:
        assert raster.levels == (Size(640, 768), Size(320, 384), Size(160, 192)) and raster.kind == "slide"
        assert raster.resolution == Resolution(0.25, "um") and raster.stained
        assert (raster.read(Window(0, 0, 640, 768)).rgb == image).all()
    assert [entry.image for entry in _entries(tmp_path / "d")] == [first], "a folder of DICOM files is one slide"


def test_a_dicom_slide_that_lost_a_frame_is_one_line(tmp_path: Path) -> None:
    first = write_dicom_slide(tmp_path / "d", samples.texture(256, 256), levels=1)
    first.write_bytes(first.read_bytes()[:-150_000])
    with pytest.raises((InputError, ReadError)) as caught, open_raster(first) as raster:
        raster.read(Window(0, 0, 256, 256))
    assert "\n" not in str(caught.value) and str(first) in str(caught.value)


def _entries(folder: Path) -> list[EmbedJob]:
    return find_jobs([folder], EmbedSettings())


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The folder on a port of this machine."""
    command = [sys.executable, "-m", "tests.io.range_server", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.kill()
