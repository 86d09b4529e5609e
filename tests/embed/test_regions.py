"""Regions: outlines of tissue out, regions in, the image of a grid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.warp import transform_geom

from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Size
from ssl_tilegen.grids import EmbeddingGrid, GridData, Validity, write_grid
from ssl_tilegen.io.geojson import Regions, outlines, read_regions
from ssl_tilegen.workflows.grid.preview import COLOURS, Components, grid_panel, write_preview
from tests.bundles import TILE_PX, encoder_bundle
from tests.embed.test_embed import raster, run, same
from tests.grids.test_grids import SPEC, cells


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_bundle(tmp_path_factory.mktemp("bundle"))


def square(left: float, top: float, right: float, bottom: float) -> dict[str, object]:
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [ring]}


def feature(geometry: dict[str, object], name: str = "Tumor") -> dict[str, object]:
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 2.0, 16.03, 7.5]))
def test_outlines_give_the_mask_back(rows: int, cols: int, seed: int, factor: float) -> None:
    mask = np.random.default_rng(seed).random((rows, cols)) < 0.5
    regions = Regions(Path("x"), tuple(outlines(mask, factor)))
    assert (regions.mask(Size(rows, cols), factor) == mask).all()


def test_exported_tissue_given_back_makes_the_same_grid(data_dir: Path, bundle: Path, tmp_path: Path) -> None:
    slide = data_dir / "slides" / "cmu-1-small-region.svs"
    run(slide, bundle, out=tmp_path / "g.zarr", geojson=True, tissue_only=True)
    written = json.loads((tmp_path / "g.geojson").read_text())
    assert {f["properties"]["objectType"] for f in written["features"]} == {"annotation"}
    assert {f["geometry"]["type"] for f in written["features"]} == {"Polygon"}
    points = np.concatenate([np.array(f["geometry"]["coordinates"][0]) for f in written["features"]])
    assert points.min() >= 0 and (points.max(0) <= (2220 + 16, 2967 + 16)).all(), "level-0 pixels, (x, y)"
    run(slide, bundle, out=tmp_path / "h.zarr", regions=tmp_path / "g.geojson", tissue_only=True)
    same(EmbeddingGrid.open(tmp_path / "g.zarr").read(), EmbeddingGrid.open(tmp_path / "h.zarr").read())


def test_regions_are_pixels_on_a_picture_and_may_be_cut_out(bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 320, 3), np.uint8)).save(tmp_path / "a.png")
    tree = [feature(square(0, 0, 192, 256)), feature(square(0, 0, 64, 64), "Ignore*")]
    (tmp_path / "a.geojson").write_text(json.dumps(tree))
    run(tmp_path / "a.png", bundle, gsd=0.15, regions=tmp_path)
    found = EmbeddingGrid.open(tmp_path / "a.zarr").read()
    expected = np.zeros((4, 5), bool)
    expected[:, :3] = True
    expected[0, 0] = False
    assert ((found.valid == Validity.OK) == expected).all() and (found.tissue == expected).all()
    assert (found.valid[~expected] == Validity.BACKGROUND).all()


@pytest.mark.parametrize("named", [True, False])
def test_regions_are_degrees_on_a_raster_unless_they_name_a_crs(bundle: Path, tmp_path: Path, named: bool) -> None:
    source = raster(tmp_path / "a.tif", TILE_PX * 4, TILE_PX * 4)
    with rasterio.open(source) as file:
        left, top = file.transform @ (0, 0)
        right, bottom = file.transform @ (TILE_PX * 2, TILE_PX)
        area = square(left, top, right, bottom)
        if not named:
            area = transform_geom(file.crs, "OGC:CRS84", area)
    tree: dict[str, object] = {"type": "FeatureCollection", "features": [feature(area)]}
    if named:
        tree["crs"] = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32614"}}
    (tmp_path / "r.geojson").write_text(json.dumps(tree))
    run(source, bundle, regions=tmp_path / "r.geojson")
    tissue = EmbeddingGrid.open(tmp_path / "a.zarr").read().tissue.astype(float)
    expected = np.zeros((4, 4))
    expected[0, :2] = 1
    np.testing.assert_allclose(tissue, expected, atol=0.03)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[1, 2", "cannot be read"),
        ("{}", "no polygon"),
        ('{"type": "Point", "coordinates": [1, 2]}', "no polygon"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 1], [0, 0]]], "crs": 5}', "crs is not understood"),
    ],
)
def test_bad_regions_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.geojson").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_regions(tmp_path / "r.geojson")
    assert "\n" not in str(caught.value)


def test_broken_polygons_and_missing_files_are_one_line(bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((70, 70, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"has no a\.geojson or a\.png\.geojson"):
        run(tmp_path / "a.png", bundle, mpp=0.5, regions=tmp_path)
    (tmp_path / "a.geojson").write_text('{"type": "Polygon", "coordinates": [[[0]]]}')
    with pytest.raises(InputError, match="broken polygon"):
        run(tmp_path / "a.png", bundle, mpp=0.5, regions=tmp_path)


def test_a_picture_shows_every_cell_at_its_place(tmp_path: Path) -> None:
    data = cells()
    grid = write_grid(tmp_path / "g.zarr", SPEC, data)
    panel = grid_panel(grid, SPEC.lattice.size)
    assert panel.shape[:2] == (2600, 4500)
    colours = panel[32:2592:64, 32:4480:64]
    for code, colour in COLOURS.items():
        assert (colours[data.valid == code] == colour).all()
    usable = data.valid == Validity.OK
    np.testing.assert_array_equal(colours[usable], Components.of(grid).colour(data.embedding[usable]))
    assert colours[usable].std() > 40 and (panel[:, 4480:] == 255).all()


def test_components_are_those_of_greatest_spread(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data, axis = cells(), rng.normal(size=SPEC.dim)
    shape = (SPEC.shape.rows, SPEC.shape.cols)
    vectors = rng.normal(size=(*shape, 1)) * axis * 5 + rng.normal(size=(*shape, SPEC.dim)) * 0.1
    grid = write_grid(tmp_path / "g.zarr", SPEC, GridData(vectors.astype(np.float16), data.valid * 0, data.tissue))
    first = Components.of(grid).axes[:, 0]
    assert abs(first @ axis) / np.linalg.norm(axis) == pytest.approx(1, abs=1e-3)


def test_a_preview_is_a_picture_of_image_and_grid(bundle: Path, tmp_path: Path) -> None:
    run(raster(tmp_path / "a.tif", 300, 500, nodata=0, blank=100), bundle, preview=True)
    with Image.open(tmp_path / "a.embed-preview.png") as image:
        assert image.format == "PNG" and image.width > 2 * 500 and image.height > 300
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels == COLOURS[Validity.NODATA]).all(axis=-1).sum() > 128 * 256


def test_a_grid_without_a_usable_cell_still_has_a_picture(tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "g.zarr", SPEC, GridData.empty(SPEC.shape, SPEC.dim))
    with Image.open(write_preview(grid, None, tmp_path / "p.png", "a preview")) as image:
        assert image.info["Title"] == "a preview" and image.width >= 640
