"""One contract for every reader."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from rasterio.enums import Resampling
from rasterio.transform import Affine

from ssl_tilegen.errors import ResolutionError
from ssl_tilegen.geometry import Resolution, Size, Window, cover
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.base import Raster
from ssl_tilegen.io.view import RasterView, view_at
from tests.io import samples
from tests.io.dicom import write_dicom_slide

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

ROWS, COLS = 640, 768


def _slide(folder: Path) -> Raster:
    return open_raster(samples.write_slide(folder / "s.ome.tif", samples.texture(ROWS, COLS)))


def _slide_of_odd_size(folder: Path) -> Raster:
    return open_raster(samples.write_slide(folder / "odd.ome.tif", samples.texture(601, 723)))


def _georaster(folder: Path) -> Raster:
    return open_raster(samples.write_raster(folder / "r.tif", samples.texture(ROWS, COLS).transpose(2, 0, 1)))


def _georaster_with_overviews(folder: Path) -> Raster:
    path = samples.write_raster(folder / "o.tif", samples.texture(ROWS, COLS).transpose(2, 0, 1))
    samples.add_overviews(path, Resampling.average)
    return open_raster(path)


def _one_band_uint16(folder: Path) -> Raster:
    band = samples.texture(ROWS, COLS)[None, ..., 0].astype(np.uint16) * 40
    return open_raster(samples.write_raster(folder / "u.tif", band))


def _png(folder: Path) -> Raster:
    return open_raster(samples.write_png(folder / "p.png", samples.texture(ROWS, COLS)), mpp=0.5)


def _plain_tiff(folder: Path) -> Raster:
    bands = samples.texture(ROWS, COLS).transpose(2, 0, 1)
    return open_raster(samples.write_raster(folder / "t.tif", bands, crs=None, transform=None), gsd=0.5)


def _ome_tiff_with_subifds(folder: Path) -> Raster:
    return open_raster(samples.write_ome_subifds(folder / "sub.ome.tif", samples.texture(ROWS, COLS)))


def _ome_tiff_in_strips(folder: Path) -> Raster:
    options = {"tile": None, "rowsperstrip": 37, "levels": 1}
    return open_raster(samples.write_ome_subifds(folder / "strip.ome.tif", samples.texture(ROWS, COLS), **options))  # type: ignore[arg-type]


def _ome_tiff_with_deep_channels(folder: Path) -> Raster:
    channels = samples.texture(ROWS, COLS).transpose(2, 0, 1).astype(np.uint16) * 100
    return open_raster(samples.write_ome_channels(folder / "deep.ome.tif", channels))


def _ome_zarr(folder: Path) -> Raster:
    return open_raster(samples.write_slide(folder / "z.zarr", samples.texture(ROWS, COLS)))


def _ome_zarr_of_a_place(folder: Path) -> Raster:
    facts = {"resolution": Resolution(0.5, "m"), "crs": samples.UTM, "transform": samples.PLACE}
    return open_raster(samples.write_slide(folder / "m.zarr", samples.texture(ROWS, COLS), **facts))


def _old_ome_zarr(folder: Path) -> Raster:
    return open_raster(samples.write_old_ome_zarr(folder / "old.zarr", samples.texture(ROWS, COLS)))


def _georaster_in_a_zip(folder: Path) -> Raster:
    samples.write_raster(folder / "in.tif", samples.texture(ROWS, COLS).transpose(2, 0, 1))
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(folder / "in.tif", "in.tif")
    return open_raster(f"/vsizip/{folder}/a.zip/in.tif")


def _vrt(folder: Path) -> Raster:
    samples.write_raster(folder / "part.tif", samples.texture(ROWS, COLS).transpose(2, 0, 1))
    return open_raster(samples.write_vrt(folder / "v.vrt", folder / "part.tif"))


def _georaster_turned(folder: Path) -> Raster:
    turned = Affine.translation(5e5, 4e6) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
    return open_raster(samples.write_raster(folder / "t.tif", samples.texture(ROWS, COLS).transpose(2, 0, 1),
                                            transform=turned))  # fmt: skip


def _georaster_in_degrees(folder: Path) -> Raster:
    place = {"crs": "EPSG:4326", "transform": Affine(1e-5, 0, 10.0, 0, -1e-5, 50.0)}
    return open_raster(samples.write_raster(folder / "d.tif", samples.texture(ROWS, COLS).transpose(2, 0, 1), **place))


def _georaster_with_an_internal_mask(folder: Path) -> Raster:
    bands, mask = samples.texture(ROWS, COLS).transpose(2, 0, 1), np.ones((ROWS, COLS), bool)
    mask[300:, 250:600] = False
    return open_raster(samples.write_raster(folder / "m.tif", bands, mask))


def _floats_with_holes(folder: Path) -> Raster:
    band = samples.texture(ROWS, COLS)[None, ..., 0].astype(np.float32) / 255 - 0.5
    band[0, 310:330, :] = np.nan
    return open_raster(samples.write_raster(folder / "f.tif", band))


def _seven_bands_int16(folder: Path) -> Raster:
    bands = np.concatenate([samples.texture(ROWS, COLS, seed).transpose(2, 0, 1) for seed in range(3)])[:7]
    return open_raster(samples.write_raster(folder / "n.tif", bands.astype(np.int16) * 9 - 500), bands=(5, 3, 1))


def _dicom_slide(folder: Path) -> Raster:
    return open_raster(write_dicom_slide(folder / "plain", samples.texture(ROWS, COLS)))


def _dicom_slide_in_jpeg(folder: Path) -> Raster:
    return open_raster(write_dicom_slide(folder / "jpeg", samples.texture(ROWS, COLS), levels=1, jpeg=True))


def _real(path: str, **options: float) -> Callable[[Path, Path], Raster]:
    return lambda folder, data: open_raster(data / path, **options)  # type: ignore[arg-type]


MADE = [_slide, _slide_of_odd_size, _georaster, _georaster_with_overviews, _one_band_uint16, _png, _plain_tiff,
        _ome_tiff_with_subifds, _ome_tiff_in_strips, _ome_tiff_with_deep_channels,
        _ome_zarr, _ome_zarr_of_a_place, _old_ome_zarr, _georaster_in_a_zip, _vrt, _georaster_turned,
        _georaster_in_degrees, _georaster_with_an_internal_mask, _floats_with_holes, _seven_bands_int16,
        _dicom_slide, _dicom_slide_in_jpeg]  # fmt: skip
REAL = {
    "svs": _real("slides/cmu-1-small-region.svs"),
    "web-mercator": _real("rasters/oam_area1_half.tif"),
    "undefined-4th": _real("rasters/oam_area3.tif"),
    "nearest-overview": _real("rasters/naip_rgbn_5m.tif"),
    "nodata": _real("rasters/rasterio_rgb_byte.tif"),
    "uint16": _real("rasters/spacenet_pan_uint16.tif"),
    "photo": _real("photos/brighton_DJI_0026.JPG", gsd=0.05),
}


@pytest.fixture(scope="module", params=[*MADE, *REAL], ids=lambda p: p if isinstance(p, str) else p.__name__.strip("_"))
def raster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raster]:
    folder = tmp_path_factory.mktemp("rasters")
    if isinstance(request.param, str):
        opened = REAL[request.param](folder, request.getfixturevalue("data_dir"))
    else:
        opened = request.param(folder)
    with opened:
        yield opened


def test_facts(raster: Raster) -> None:
    assert raster.kind in ("slide", "georaster", "picture")
    assert raster.levels[0] == raster.size
    assert raster.resolution is not None and (raster.resolution.unit == "um") >= (raster.kind == "slide")
    assert (raster.crs is not None) == (raster.transform is not None) == (raster.kind == "georaster")
    assert len(raster.fingerprint) == 16 and int(raster.fingerprint, 16) >= 0
    assert raster.name and "." not in raster.name


def test_window_reads_are_parts_of_the_whole(raster: Raster) -> None:
    whole = raster.read(Window(0, 0, 400, 500))
    part = raster.read(Window(30, 41, 57, 90))
    assert whole.rgb.dtype == np.uint8 and whole.rgb.shape == (400, 500, 3)
    assert whole.valid.dtype == bool and whole.valid.shape == (400, 500)
    assert (part.rgb == whole.rgb[30:87, 41:131]).all()
    assert (part.valid == whole.valid[30:87, 41:131]).all()


def test_outside_is_background_and_not_valid(raster: Raster) -> None:
    corner = raster.read(Window(-20, -30, 50, 60))
    inside = raster.read(Window(0, 0, 30, 30))
    assert not corner.valid[:20].any() and not corner.valid[:, :30].any()
    assert (corner.rgb[:20] == raster.background).all() and (corner.rgb[:, :30] == raster.background).all()
    assert (corner.rgb[20:, 30:] == inside.rgb).all() and (corner.valid[20:, 30:] == inside.valid).all()


@pytest.mark.parametrize("row, col", [(-100, 0), (0, -100), (10**6, 0), (0, 10**6)])
def test_wholly_outside(raster: Raster, row: int, col: int) -> None:
    pixels = raster.read(Window(row, col, 20, 30))
    assert pixels.rgb.shape == (20, 30, 3) and (pixels.rgb == raster.background).all() and not pixels.valid.any()


@pytest.mark.parametrize("out", [Size(50, 75), Size(41, 33), Size(100, 150), Size(1, 1)], ids=str)
def test_reduction_is_the_area_mean(raster: Raster, out: Size) -> None:
    window = Window(104, 80, 100, 150)
    fine = raster.read(window)
    if not fine.valid.all():
        pytest.skip("has nodata here; test_masked_area_mean covers it")
    expected = samples.area_mean(fine.rgb, np.linspace(0, 100, out.rows + 1), np.linspace(0, 150, out.cols + 1))
    got = raster.read(window, out)
    assert got.valid.all()
    error = np.abs(got.rgb - expected)
    if raster.name == "odd":
        assert error.mean() <= 4, "OpenSlide places odd levels to a quarter of a pixel"
    elif len(raster.levels) == 1:
        assert error.max() <= 0.51
    else:
        assert error.mean() <= 3, "pixels may cut across those of the level"


def test_enlargement_is_smooth_and_keeps_the_mean(raster: Raster) -> None:
    window = Window(120, 120, 40, 40)
    pixels, large = raster.read(window), raster.read(window, Size(100, 100))
    assert (large.valid.all() and pixels.valid.all()) or not pixels.valid.all()
    if pixels.valid.all():
        assert np.abs(large.rgb.mean((0, 1)) - pixels.rgb.mean((0, 1))).max() < 2


@pytest.mark.parametrize("factor", [1.0, 2.0, 2.37, 4.0, 0.6])
def test_view_windows_tile_one_image(raster: Raster, factor: float) -> None:
    view = _view(raster, factor)
    whole = Window(3, 5, min(90, view.size.rows - 3), min(110, view.size.cols - 5))
    image = view.read(whole)
    for part in cover(whole.size, Size(37, 41)):
        pixels = view.read(part.shifted(whole.row, whole.col))
        assert (pixels.rgb == image.rgb[part.slices]).all()
        assert (pixels.valid == image.valid[part.slices]).all()


@pytest.mark.parametrize("factor", [1.0, 1.7, 3.0])
def test_view_has_no_pixel_outside(raster: Raster, factor: float) -> None:
    view = _view(raster, factor)
    assert view.factor == pytest.approx(factor)
    assert view.resolution is not None and raster.resolution is not None
    assert view.resolution.value == pytest.approx(raster.resolution.value * factor)
    assert view.size.rows * factor <= raster.size.rows + 1e-3 < (view.size.rows + 1) * factor + 1e-3
    last = view.read(Window(view.size.rows - 1, view.size.cols - 1, 2, 2))
    assert not last.valid[1, 1]


def test_a_view_is_mirrored_beyond_its_edges(raster: Raster) -> None:
    view = RasterView(raster, 1.0)
    whole = view.read(Window.of(view.size))
    rows, cols = view.size.rows, view.size.cols
    around = view.read_mirrored(Window(-9, -7, rows + 20, cols + 30))
    pads = ((9, 11), (7, 23))
    np.testing.assert_array_equal(around.rgb, np.pad(whole.rgb, (*pads, (0, 0)), "symmetric"))
    np.testing.assert_array_equal(around.valid, np.pad(whole.valid, pads, "symmetric"))
    corner = Window(rows - 5, cols - 3, 16, 16)
    np.testing.assert_array_equal(view.read_mirrored(corner).rgb, around.rgb[corner.shifted(9, 7).slices])
    beyond = Window(rows, cols, 4, 4)
    np.testing.assert_array_equal(view.read_mirrored(beyond).rgb, around.rgb[beyond.shifted(9, 7).slices])


def test_threads_read_the_same(raster: Raster) -> None:
    view = _view(raster, 1.5)
    windows = [Window(20 * i, 15 * i, 64, 64) for i in range(12)]
    alone = [view.read(window).rgb for window in windows]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda window: view.read(window).rgb, windows * 2))
    assert all((a == b).all() for a, b in zip(alone * 2, together, strict=True))


def test_read_many_keeps_order_and_looks_only_a_little_ahead(raster: Raster) -> None:
    view = _view(raster, 1.0)
    asked: list[Window] = []

    def windows() -> Iterator[Window]:
        for i in range(20):
            asked.append(Window(i, i, 16, 16))
            yield asked[-1]

    for i, (window, pixels) in enumerate(view.read_many(windows(), threads=2)):
        assert window == Window(i, i, 16, 16) and (pixels.rgb == view.read(window).rgb).all()
        assert len(asked) <= i + 5


def test_view_in_the_other_unit_is_refused(raster: Raster) -> None:
    assert raster.resolution is not None
    other = "m" if raster.resolution.unit == "um" else "um"
    with pytest.raises(ResolutionError, match="--gsd" if other == "m" else "--mpp"):
        view_at(raster, Resolution(1.0, other))


def test_large_reads_in_parts_are_the_same(raster: Raster, monkeypatch: pytest.MonkeyPatch) -> None:
    window, out = Window(-7, 11, 320, 410), Size(31, 43)
    at_once = raster.read(window, out)
    monkeypatch.setattr("ssl_tilegen.io.readers.base._FINEST_SOURCE_PX", 5_000)
    in_parts = raster.read(window, out)
    assert (at_once.rgb == in_parts.rgb).all() and (at_once.valid == in_parts.valid).all()


def _view(raster: Raster, factor: float) -> RasterView:
    assert raster.resolution is not None
    return view_at(raster, Resolution(raster.resolution.value * factor, raster.resolution.unit))
