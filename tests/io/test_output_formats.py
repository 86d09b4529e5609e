"""What single formats promise to other programs: OpenSlide, OME readers, GDAL, Zarr."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
import zarr

from ssl_tilegen.geometry import Resolution, Size
from ssl_tilegen.io.pyramid import ImageSpec, open_writer
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.tiff.layout import Page, long_tag, rational_tag, write_tiff
from tests.io.samples import PLACE, UTM, texture

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

OME = {"o": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}
ROTATED = (0.4, 0.3, 500_000.0, 0.3, -0.4, 4_000_000.0)


def _write(path: Path, image: np.ndarray, **spec: Any) -> Path:
    with open_writer(path, ImageSpec(Size(image.shape[0], image.shape[1]), **spec)) as writer:
        writer.write(image)
    return path


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "zstd"])
def test_ome_tiff_opens_with_all_levels_in_both_worlds(tmp_path: Path, compression: str) -> None:
    image = np.kron(texture(256, 256), np.ones((8, 8, 1), np.uint8))
    path = _write(tmp_path / "x.ome.tif", image, resolution=Resolution(0.2527, "um"), compression=compression)
    sizes = [(2048, 2048), (1024, 1024), (512, 512), (256, 256)]
    with openslide.OpenSlide(path) as slide:
        assert list(slide.level_dimensions) == sizes
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.2527, rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.2527, rel=1e-6)
        opened = np.asarray(slide.read_region((0, 0), 0, sizes[0]))[..., :3].astype(int)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome and len(tiff.series) == 1 and not tiff.is_bigtiff
        assert [level.shape for level in tiff.series[0].levels] == [(r, c, 3) for c, r in sizes]
        assert [page.offset for page in tiff.pages] == [tiff.pages[0].offset, *(tiff.pages[0].subifds or ())]
        by_tifffile = tiff.asarray().astype(int)
    assert np.abs(opened - by_tifffile).max() <= 1
    assert np.abs(opened - image).mean() < (5 if compression == "jpeg" else 1e-9)
    with open_raster(path) as raster:
        assert raster.kind == "slide" and raster.resolution is not None
        assert raster.resolution.value == pytest.approx(0.2527, rel=1e-6)


def test_colours_survive_jpeg(tmp_path: Path) -> None:
    patches = np.kron(
        np.array([[[200, 30, 40], [30, 160, 60]], [[20, 40, 210], [240, 240, 240]]], np.uint8),
        np.ones((256, 256, 1), np.uint8),
    )
    places: tuple[tuple[str, dict[str, Any]], ...] = (("x.ome.tif", {}), ("x.tif", {"crs": UTM, "transform": PLACE}))
    for name, place in places:
        path = _write(tmp_path / name, patches, compression="jpeg", **place)
        with rasterio.open(path) as dataset:
            assert np.abs(dataset.read().transpose(1, 2, 0).astype(int) - patches).max() <= 4
        with openslide.OpenSlide(path) as slide:
            got = np.asarray(slide.read_region((0, 0), 0, (512, 512)))[..., :3]
        assert np.abs(got.astype(int) - patches).max() <= 4
        assert np.abs(tifffile.imread(path).astype(int) - patches).max() <= 4


def test_ome_xml_has_size_mpp_and_provenance(tmp_path: Path) -> None:
    text = 'naïve <&> "q"'
    path = _write(
        tmp_path / "x.ome.tif",
        texture(300, 200),
        resolution=Resolution(0.5, "um"),
        provenance={"text": text, "seed": 3},
    )
    with tifffile.TiffFile(path) as tiff:
        root = ET.fromstring(tiff.ome_metadata or "")
    pixels = root.find(".//o:Pixels", OME)
    assert pixels is not None
    assert (pixels.get("SizeX"), pixels.get("SizeY"), pixels.get("PhysicalSizeX")) == ("200", "300", "0.5")
    assert pixels.get("PhysicalSizeXUnit") == "µm"
    facts = {entry.get("K"): entry.text for entry in root.iterfind(".//o:MapAnnotation/o:Value/o:M", OME)}
    assert facts == {"text": text, "seed": "3", "synthetic": "true"}


@pytest.mark.parametrize("transform", [PLACE, ROTATED], ids=["north-up", "rotated"])
@pytest.mark.parametrize("crs", [UTM, "EPSG:3857", "EPSG:4326", "EPSG:2263"])
@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_cog_keeps_its_place_and_is_a_cog(tmp_path: Path, crs: str, transform: tuple, compression: str) -> None:
    image = texture(1030, 1500)
    path = _write(
        tmp_path / "x.tif", image, crs=crs, transform=transform, compression=compression, provenance={"seed": 5}
    )
    with rasterio.open(path) as dataset:
        assert dataset.crs.to_string() == crs
        assert dataset.transform[:6] == pytest.approx(transform)
        assert dataset.overviews(1) == [2, 4, 8]
        assert dataset.tags()["SYNTHETIC"] == "true" and '"seed": 5' in dataset.tags()["PROVENANCE"]
        assert [band.name for band in dataset.colorinterp] == ["red", "green", "blue"]
        if compression != "jpeg":
            assert (dataset.read().transpose(1, 2, 0) == image).all()
    assert_cog(path)
    with open_raster(path) as raster:
        assert raster.kind == "georaster" and raster.crs == crs and raster._level_for(2.0) == 1


def assert_cog(path: Path) -> None:
    """The structural rules of a cloud-optimised GeoTIFF, as GDAL's own validator checks them."""
    with tifffile.TiffFile(path) as tiff:
        pages: list[Any] = list(tiff.pages)
    assert all(page.is_tiled for page in pages)
    assert pages[0].offset in (8, 16)
    assert len(pages) > 1 or max(pages[0].shape[:2]) <= 512
    assert all(page.is_reduced for page in pages[1:])
    assert all(fine.offset < coarse.offset for fine, coarse in pairwise(pages)), "directories: fine before coarse"
    data = [min(page.dataoffsets) for page in pages]
    assert all(fine > coarse for fine, coarse in pairwise(data)), "tiles: coarse before fine"
    assert pages[-1].offset < min(data), "all directories before all tiles"
    assert all(list(page.dataoffsets) == sorted(page.dataoffsets) for page in pages)


def test_big_files_are_bigtiff_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_tilegen.io.tiff.layout._CLASSIC_LIMIT", 1000)
    image = texture(600, 700)
    path = _write(tmp_path / "x.ome.tif", image, resolution=Resolution(0.5, "um"), compression="deflate")
    cog = _write(tmp_path / "c.tif", image, crs=UTM, transform=PLACE)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff and (tiff.asarray() == image).all() and len(tiff.series[0].levels) == 3
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == 3
        assert (np.asarray(slide.read_region((0, 0), 0, (700, 600)))[..., :3] == image).all()
    with rasterio.open(cog) as dataset:
        assert (dataset.read().transpose(1, 2, 0) == image).all()
    assert_cog(cog)


@pytest.mark.parametrize("value", [20_040.08016, 1e4 / 0.2527, 0.001, 1e6, 3.0])
def test_rationals_are_close(value: float) -> None:
    numerator, denominator = (int(n) for n in rational_tag(282, value).values)
    assert numerator / denominator == pytest.approx(value, rel=1e-6)


def test_misplaced_tiles_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"123")
    pages = [Page([long_tag(256, 1)], np.array([n]), tmp_path / f) for n, f in ((3, "b"), (4, "a"))]
    with pytest.raises(AssertionError, match="planned"):
        write_tiff(tmp_path / "x.tif", pages, sub_ifds=False)


def test_ome_zarr_says_where_its_levels_lie(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.zarr", texture(600, 1100), resolution=Resolution(0.5, "um"), tile_px=128)
    group: Any = zarr.open_group(path, mode="r")
    ome = dict(group.attrs)["ome"]
    assert ome["version"] == "0.5"
    multiscale = ome["multiscales"][0]
    assert [(axis["name"], axis.get("unit")) for axis in multiscale["axes"]] == [
        ("c", None), ("y", "micrometer"), ("x", "micrometer")
    ]  # fmt: skip
    scales = [dataset["coordinateTransformations"][0]["scale"] for dataset in multiscale["datasets"]]
    assert scales == [[1, 0.5, 0.5], [1, 1, 1], [1, 2, 2], [1, 4, 4]]
    assert group["0"].chunks == (3, 128, 128) and group["0"].metadata.dimension_names == ("c", "y", "x")
