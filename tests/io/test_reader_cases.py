"""What single readers promise: validity, scaling, bands, resolution, damaged files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine

from ssl_tilegen.errors import InputError, ResolutionError, TilegenError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.base import ReadError
from ssl_tilegen.io.view import view_at
from tests.io import samples

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_masked_area_mean_takes_valid_pixels_only(tmp_path: Path) -> None:
    bands = np.full((3, 128, 128), 200, np.uint8)
    bands[:, :, 64:] = 0
    bands[:, ::2, 70:80] = 200
    with open_raster(samples.write_raster(tmp_path / "n.tif", bands, nodata=0)) as raster:
        pixels = raster.read(Window(0, 0, 128, 128), Size(32, 32))
    assert (pixels.rgb[pixels.valid] == 200).all()
    assert pixels.valid[:, :16].all() and not pixels.valid[:, 21:].any()
    assert pixels.valid[:, 18:20].all(), "half of these is data"


def test_one_dark_band_is_not_nodata(tmp_path: Path) -> None:
    bands = np.stack([np.zeros((64, 64), np.uint8), np.full((64, 64), 9, np.uint8), np.zeros((64, 64), np.uint8)])
    with open_raster(samples.write_raster(tmp_path / "n.tif", bands, nodata=0)) as raster:
        assert raster.read(Window(0, 0, 64, 64)).valid.all()


@pytest.mark.parametrize("alpha", [True, False])
def test_fourth_band_is_alpha_only_where_it_says_so(tmp_path: Path, alpha: bool) -> None:
    import rasterio

    bands = np.concatenate([samples.texture(64, 64).transpose(2, 0, 1), np.zeros((1, 64, 64), np.uint8)])
    path = samples.write_raster(tmp_path / "a.tif", bands, photometric="RGB")
    with rasterio.open(path, "r+") as dataset:
        last = ColorInterp.alpha if alpha else ColorInterp.undefined
        dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, last]
    with open_raster(path) as raster:
        assert raster.read(Window(0, 0, 64, 64)).valid.all() != alpha


def test_deep_values_are_scaled_and_the_scaling_is_told(tmp_path: Path) -> None:
    ramp = np.linspace(1000, 3000, 64 * 64).reshape(1, 64, 64).astype(np.uint16)
    path = samples.write_raster(tmp_path / "d.tif", ramp)
    with open_raster(path) as raster:
        assert raster.scaling is not None
        (low, high) = raster.scaling[0]
        assert low == pytest.approx(1040, abs=2) and high == pytest.approx(2960, abs=2)
        assert any("percentile" in remark for remark in raster.remarks)
    with open_raster(path, scale=(1000, 3000)) as raster:
        assert raster.scaling == ((1000, 3000),) and not raster.remarks
        rgb = raster.read(Window(0, 0, 64, 64)).rgb
    assert rgb.min() == 0 and rgb.max() == 255 and (rgb[..., 0] == rgb[..., 2]).all()


def test_nan_is_not_valid(tmp_path: Path) -> None:
    band = np.linspace(-1, 1, 64 * 64).reshape(1, 64, 64).astype(np.float32)
    band[0, :8] = np.nan
    with open_raster(samples.write_raster(tmp_path / "f.tif", band)) as raster:
        pixels = raster.read(Window(0, 0, 64, 64))
    assert not pixels.valid[:8].any() and pixels.valid[8:].all() and (pixels.rgb[:8] == 0).all()


def test_bands_are_chosen_and_repeated(tmp_path: Path) -> None:
    bands = np.stack([np.full((32, 32), v, np.uint8) for v in (10, 20, 30, 40)])
    path = samples.write_raster(tmp_path / "b.tif", bands, photometric="MINISBLACK")
    for chosen, expected in (((4, 2, 1), (40, 20, 10)), ((3,), (30, 30, 30)), (None, (10, 20, 30))):
        with open_raster(path, bands=chosen) as raster:
            assert (raster.read(Window(0, 0, 32, 32)).rgb == expected).all()
    with pytest.raises(InputError, match=r"4 band\(s\), no band 5.*--bands"):
        open_raster(path, bands=(5,))


def test_palette_is_applied(tmp_path: Path) -> None:
    import rasterio

    path = samples.write_raster(tmp_path / "p.tif", np.full((1, 32, 32), 3, np.uint8), photometric="PALETTE")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {3: (200, 100, 50, 255)})
    with open_raster(path) as raster:
        assert (raster.read(Window(0, 0, 32, 32)).rgb == (200, 100, 50)).all()


@pytest.mark.parametrize("resampling, trusted", [(Resampling.average, True), (Resampling.nearest, False)])
def test_only_averaged_overviews_are_read(tmp_path: Path, resampling: Resampling, trusted: bool) -> None:
    image = samples.texture(512, 512)
    path = samples.write_raster(tmp_path / "o.tif", image.transpose(2, 0, 1))
    samples.add_overviews(path, resampling)
    with open_raster(path) as raster:
        assert len(raster.levels) == 3
        assert raster._level_for(4.0) == (2 if trusted else 0)
        got = raster.read(Window(0, 0, 512, 512), Size(128, 128)).rgb
    assert np.abs(got - image.reshape(128, 4, 128, 4, 3).mean((1, 3))).max() <= (2 if trusted else 0.51)


def test_rotated_transform_in_feet(tmp_path: Path) -> None:
    turned = Affine.translation(5e5, 4e6) @ Affine.rotation(30) @ Affine.scale(2, -2)
    path = samples.write_raster(tmp_path / "t.tif", np.ones((3, 32, 32), np.uint8), crs="EPSG:2263", transform=turned)
    with open_raster(path) as raster:
        assert raster.resolution is not None and raster.resolution.value == pytest.approx(2 * 0.3048006, rel=1e-5)
        view = view_at(raster, Resolution(raster.resolution.value * 2, "m"))
        assert view.transform is not None and raster.transform is not None
        assert np.allclose(np.array(view.transform) / np.array(raster.transform), [2, 2, 1, 2, 2, 1])


def test_degrees_become_metres_at_the_centre(tmp_path: Path) -> None:
    place = Affine(1e-5, 0, 10.0, 0, -1e-5, 60.00016)
    path = samples.write_raster(tmp_path / "g.tif", np.ones((3, 32, 32), np.uint8), crs="EPSG:4326", transform=place)
    with open_raster(path) as raster:
        assert raster.resolution is not None
        assert raster.resolution.value == pytest.approx(math.sqrt(1.11412 * 0.5580), rel=2e-3)


def test_web_mercator_is_nominal_unless_told(tmp_path: Path) -> None:
    place = Affine(0.5, 0, 0.0, 0, -0.5, 8_399_737.0)  # 60 degrees north
    path = samples.write_raster(tmp_path / "m.tif", np.ones((3, 32, 32), np.uint8), crs="EPSG:3857", transform=place)
    with open_raster(path) as raster:
        assert raster.resolution == Resolution(0.5, "m") and "0.500" in raster.remarks[0]
    with open_raster(path, gsd=0.25) as raster:
        assert raster.resolution == Resolution(0.25, "m") and not raster.remarks


def test_transparent_png_is_not_valid(tmp_path: Path) -> None:
    rgba = np.dstack([samples.texture(40, 40), np.full((40, 40), 255, np.uint8)])
    rgba[:10, :, 3] = 0
    with open_raster(samples.write_png(tmp_path / "a.png", rgba), mpp=1) as raster:
        pixels = raster.read(Window(0, 0, 40, 40))
    assert not pixels.valid[:10].any() and pixels.valid[10:].all() and (pixels.rgb[:10] == 255).all()


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(samples.texture(30, 50)).save(tmp_path / "e.jpg", exif=exif)
    with open_raster(tmp_path / "e.jpg") as raster:
        assert raster.size == Size(30, 50)


def test_sixteen_bit_png_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 60_000, 64 * 64).reshape(64, 64).astype(np.uint16)
    with open_raster(samples.write_png(tmp_path / "deep.png", ramp), mpp=1) as raster:
        assert raster.kind == "picture" and raster.scaling is not None
        assert len(np.unique(raster.read(Window(0, 0, 64, 64)).rgb)) > 200


def test_unknown_resolution_names_both_options(tmp_path: Path) -> None:
    with (
        open_raster(samples.write_png(tmp_path / "p.png", samples.texture(20, 20))) as raster,
        pytest.raises(ResolutionError, match=r"--mpp.*--gsd"),
    ):
        view_at(raster, Resolution(0.5, "um"))


def test_near_whole_factors_are_taken_as_whole(tmp_path: Path) -> None:
    with open_raster(samples.write_png(tmp_path / "p.png", samples.texture(20, 20)), mpp=0.499) as raster:
        assert view_at(raster, Resolution(0.5, "um")).factor == 1.0
        assert view_at(raster, Resolution(1.0, "um")).factor == 2.0
        assert view_at(raster, Resolution(1.0, "um")).resolution == Resolution(0.998, "um")
        assert view_at(raster, Resolution(0.5, "um"), snap=0).factor == pytest.approx(1.002004)


def test_a_resolution_is_assumed_only_where_the_file_has_none(tmp_path: Path) -> None:
    picture, slide = tmp_path / "p.png", tmp_path / "s.tif"
    samples.write_png(picture, samples.texture(20, 20))
    samples.write_slide(slide, samples.texture(300, 300), mpp=0.25)
    for path, value, assumed in ((picture, 0.5, True), (slide, 0.25, False)):
        with open_raster(path, if_unknown=Resolution(0.5, "um")) as raster:
            assert raster.resolution and raster.resolution.value == pytest.approx(value)
            assert raster.assumed == assumed


def test_print_resolution_makes_no_slide(tmp_path: Path) -> None:
    path = samples.write_slide(tmp_path / "photo.tif", samples.texture(300, 300), mpp=25_400 / 72)
    with open_raster(path) as raster:
        assert raster.kind == "picture" and raster.resolution is None


def test_fingerprint_follows_content_not_date(tmp_path: Path) -> None:
    first, copy = tmp_path / "a.png", tmp_path / "b.png"
    samples.write_png(first, samples.texture(30, 30))
    copy.write_bytes(first.read_bytes())
    other = samples.write_png(tmp_path / "c.png", samples.texture(30, 30, seed=1))
    with open_raster(first) as a, open_raster(copy) as b, open_raster(other) as c:
        assert a.fingerprint == b.fingerprint != c.fingerprint


def _missing(folder: Path) -> Path:
    return folder / "missing.svs"


def _text(folder: Path) -> Path:
    (folder / "text.svs").write_text("this is no slide")
    return folder / "text.svs"


def _empty(folder: Path) -> Path:
    (folder / "empty.tif").touch()
    return folder / "empty.tif"


def _cut(folder: Path, source: Path, share: float) -> Path:
    content = source.read_bytes()
    cut = folder / f"cut_{source.name}"
    cut.write_bytes(content[: int(len(content) * share)])
    return cut


def _cut_geotiff(folder: Path) -> Path:
    return _cut(folder, samples.write_raster(folder / "w.tif", samples.texture(300, 300).transpose(2, 0, 1)), 0.6)


def _cut_slide(folder: Path) -> Path:
    return _cut(folder, samples.write_slide(folder / "s.ome.tif", samples.texture(600, 600)), 0.5)


def _cut_png(folder: Path) -> Path:
    return _cut(folder, samples.write_png(folder / "p.png", samples.texture(300, 300)), 0.5)


@pytest.mark.parametrize("make", [_missing, _text, _empty, lambda f: f, _cut_geotiff, _cut_slide, _cut_png])
def test_bad_input_is_one_line(tmp_path: Path, make: object) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(InputError) as caught, open_raster(path) as raster:
        raster.read(Window(0, 0, 300, 300))
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and ";" in message and len(message) < 250 + len(str(path))


def test_truncated_svs(tmp_path: Path, data_dir: Path) -> None:
    path = _cut(tmp_path, data_dir / "slides" / "cmu-1-small-region.svs", 0.4)
    with pytest.raises(InputError, match="copy or download it again"):
        open_raster(path)


@pytest.mark.parametrize("options, error, match", [
    ({"mpp": 1.0, "gsd": 1.0}, ResolutionError, "not both"),
    ({"mpp": -1.0}, ResolutionError, "--mpp must be positive"),
    ({"mpp": 1.0}, ResolutionError, "--gsd"),
    ({"bands": (1, 2)}, InputError, "one band or three"),
    ({"scale": (5.0, 5.0)}, InputError, "must rise"),
])  # fmt: skip
def test_bad_options(tmp_path: Path, options: dict, error: type[TilegenError], match: str) -> None:
    path = samples.write_raster(tmp_path / "r.tif", np.ones((3, 32, 32), np.uint8))
    with pytest.raises(error, match=match):
        open_raster(path, **options)


@pytest.mark.parametrize("kind", ["slide", "georaster"])
def test_a_corrupt_tile_is_an_error_there_and_only_there(tmp_path: Path, kind: str) -> None:
    image = samples.texture(1024, 1024)
    if kind == "slide":
        path = samples.write_slide(tmp_path / "s.ome.tif", image)
    else:
        path = samples.write_raster(
            tmp_path / "r.tif",
            image.transpose(2, 0, 1),
            compress="deflate",
            blockxsize=256,
            blockysize=256,
            interleave="pixel",
        )
    _damage_first_tile(path)
    with open_raster(path) as raster:
        assert raster.kind == kind
        good = Window(512, 512, 200, 200)
        with pytest.raises(ReadError, match=path.name):
            raster.read(Window(0, 0, 100, 100))
        assert (raster.read(good).rgb == image[good.slices]).all()
        assert raster.resolution is not None
        view = view_at(raster, raster.resolution)
        found = list(view.read_many([Window(0, 0, 100, 100), good, Window(10, 10, 50, 60), good], threads=3))
    assert [pixels.error is None for _, pixels in found] == [False, True, False, True]
    assert not found[2][1].valid.any() and found[2][1].rgb.shape == (50, 60, 3)
    assert (found[3][1].rgb == image[good.slices]).all()


def _damage_first_tile(path: Path) -> None:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        offset, length = page.dataoffsets[0], page.databytecounts[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * length)
