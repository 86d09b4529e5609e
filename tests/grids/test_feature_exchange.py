"""Grids out to files of features and back; files as TRIDENT and CLAM write them; the `grid` commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_tilegen.errors import InputError, OutputError, TilegenError
from ssl_tilegen.geometry import Lattice, Resolution, Size
from ssl_tilegen.grids import EmbeddingGrid, GridData, GridSpec, Validity, write_grid
from ssl_tilegen.io.feature_files import read_features, write_features
from ssl_tilegen.workflows.grid.export_features import export_grid
from ssl_tilegen.workflows.grid.import_features import import_features
from tests.cli.test_cli import code_of
from tests.grids.test_grids import SPEC, cells

h5py = pytest.importorskip("h5py")

SLIDE = replace(
    SPEC,
    source=replace(SPEC.source, name="case-7.svs", kind="slide", size_px=Size(10_000, 12_345), bands=None, scale=None),
    lattice=Lattice(Size(5000, 6172), 224, 112),
    resolution=Resolution(0.5, "um"),
    factor=2.0,
    crs=None,
    transform=None,
)

RASTER = replace(SPEC, source=replace(SPEC.source, size_px=Size(5200, 9001)), crs=None, transform=None)
PARTIAL = replace(SLIDE, lattice=Lattice(Size(5000, 6172), 224, 112, partial=True))
ODD = replace(SLIDE, factor=2.0074, lattice=Lattice(Size(4981, 6149), 224, 112))


def write_h5(path: Path, features: np.ndarray, coords: np.ndarray, **facts: object) -> Path:
    with h5py.File(path, "w") as file:
        file["features"] = features
        file["coords"] = coords
        file["coords"].attrs.update(facts)
    return path


def trident(path: Path, places: np.ndarray, vectors: np.ndarray, **more: object) -> Path:
    """Patches of 256 px at 20x of a 40x slide, with an overlap of 64 px, as TRIDENT names them."""
    facts = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20,
             "overlap": 64, "name": "s1", "savetodir": "/x", "level0_width": 9000, "level0_height": 7000}  # fmt: skip
    return write_h5(path, vectors, places * 384, **facts | more)


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
@pytest.mark.parametrize("spec", [SLIDE, RASTER, ODD, PARTIAL], ids=["slide", "raster", "odd factor", "partial"])
def test_what_is_exported_and_imported_is_the_grid(tmp_path: Path, suffix: str, spec: GridSpec) -> None:
    data = cells(spec)
    write_grid(tmp_path / "g.zarr", spec, data)
    out = export_grid(tmp_path / "g.zarr", tmp_path / f"f{suffix}")
    assert out.features == (data.valid == Validity.OK).sum()
    back = EmbeddingGrid.open(import_features(tmp_path / f"f{suffix}", tmp_path / "b.zarr").path)
    found, ok = back.read(), data.valid == Validity.OK
    rows, cols = back.shape.rows, back.shape.cols
    assert ok.sum() == ok[:rows, :cols].sum() and (found.valid == Validity.OK).sum() == ok.sum()
    np.testing.assert_array_equal(found.embedding[ok[:rows, :cols]], data.embedding[ok])
    assert back.spec.lattice == spec.lattice and back.spec.factor == spec.factor
    assert back.spec.resolution == spec.resolution and back.spec.encoder.id == spec.encoder.id


def test_the_export_has_the_attributes_of_trident(tmp_path: Path) -> None:
    data = cells(SLIDE)
    write_grid(tmp_path / "g.zarr", SLIDE, data)
    export_grid(tmp_path / "g.zarr")
    with h5py.File(tmp_path / "g.h5") as file:
        facts = dict(file["coords"].attrs)
        assert file["features"].dtype == np.float32 and file["coords"].shape == (len(file["features"]), 2)
        x, y = file["coords"][5]
        vector = file["features"][5]
    assert (facts["patch_size"], facts["patch_size_level0"], facts["overlap"]) == (224, 448, 112)
    assert (facts["target_magnification"], facts["level0_magnification"]) == (20, 40)
    assert (facts["level0_width"], facts["level0_height"], facts["name"]) == (12_345, 10_000, "case-7")
    np.testing.assert_array_equal(data.embedding[y // 224, x // 224].astype(np.float32), vector)


def test_features_of_trident(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    places = np.argwhere(rng.random((20, 15)) < 0.4)
    vectors = rng.normal(size=(len(places), 12)).astype(np.float32)
    path = trident(tmp_path / "s1.h5", places, vectors)
    with pytest.raises(InputError, match=r"--mpp \(0\.5 by custom, at 20x\)"):
        import_features(path)
    report = import_features(path, mpp=0.5, encoder="uni")
    grid = EmbeddingGrid.open(report.path)
    assert (report.features, report.moved_px, report.dropped) == (len(places), 0, 0)
    assert grid.spec.lattice == Lattice(Size(3500, 4500), 256, 192) and grid.spec.factor == 2
    assert grid.spec.encoder.mean == (0.485, 0.456, 0.406) and grid.spec.source.name == "s1"
    data = grid.read()
    np.testing.assert_array_equal(data.embedding[places[:, 1], places[:, 0]], vectors.astype(np.float16))
    assert (data.valid == Validity.OK).sum() == len(places) and set(np.unique(data.valid)) <= {0, 1}


@pytest.mark.parametrize(("far", "shape", "partial"), [
    ((17, 23), Size(17, 23), False), ((18, 24), Size(18, 24), True), ((18, 5), Size(18, 24), True),
])  # fmt: skip
def test_patches_that_reach_beyond_the_slide_are_partial_cells(far, shape, partial, tmp_path: Path) -> None:
    """A slide of 4500 x 3500 px at 20x has 23 x 17 whole cells."""
    places = np.array([[0, 0], [far[1] - 1, far[0] - 1]])
    path = trident(tmp_path / "s1.h5", places, np.ones((2, 3), np.float32))
    spec = EmbeddingGrid.open(import_features(path, mpp=0.5).path).spec
    assert spec.shape == shape and spec.lattice.partial == partial
    assert spec.lattice.size == Size(3500, 4500)


def test_a_corner_outside_the_slide_is_refused(tmp_path: Path) -> None:
    path = trident(tmp_path / "s1.h5", np.array([[0, 0], [39, 39]]), np.ones((2, 3), np.float32))
    with pytest.raises(InputError, match="outside its image"):
        import_features(path, mpp=0.5)
    assert [each.name for each in tmp_path.iterdir()] == ["s1.h5"]


def test_the_slide_says_what_the_file_does_not(tmp_path: Path, data_dir: Path) -> None:
    slide = data_dir / "slides" / "cmu-1-small-region.svs"
    places = np.array([[0, 0], [1, 2], [3, 3]])
    path = write_h5(tmp_path / "f.h5", np.ones((1, 3, 4)), places * 512)
    with pytest.raises(InputError, match="--tile"):
        import_features(path, image=slide)
    spec = EmbeddingGrid.open(import_features(path, image=slide, tile=256).path).spec
    assert spec.resolution and spec.resolution.value == pytest.approx(0.998) and spec.factor == 2
    assert spec.source.size_px == Size(2967, 2220) and len(spec.source.fingerprint) == 16


def test_patches_off_the_lattice_go_to_the_nearest_cell_and_that_is_told(tmp_path: Path) -> None:
    """CLAM: a lattice of its own at each contour."""
    corners = np.array([[0, 0], [256, 0], [512, 0], [90, 1000], [346, 1000], [602, 1000], [256 + 10, 4]])
    vectors = np.arange(7, dtype=np.float32)[:, None] * np.ones((7, 3), np.float32)
    path = write_h5(tmp_path / "c.h5", vectors, corners, patch_size=256, patch_level=0, downsample=np.array([1.0, 1.0]))
    report = import_features(path, mpp=0.5)
    data = EmbeddingGrid.open(report.path).read()
    assert report.moved_px == 90 and report.dropped == 1
    assert data.embedding[0, 1, 0] == 1, "the nearer of two stays"
    assert [data.embedding[4, col, 0] for col in range(3)] == [3, 4, 5]
    assert "moved by up to 90 px" in report.line() and "1 left out" in report.line()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.h5", None, "no such file"),
        ("a.txt", b"x", "not a file of features"),
        ("a.h5", b"nothing like it", "no features with coords"),
        ("a.npz", b"PK nothing like it", "no features with coords"),
        ("a.npz", b"PK\x03\x04 the rest is not there", "no features with coords"),
        ("a.npz", b"", "no features with coords"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        import_features(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("features", "coords", "message"),
    [
        (np.ones((3, 4)), np.ones((2, 2)), "no features with coords"),
        (np.ones((0, 4)), np.ones((0, 2)), "no features with coords"),
        (np.full((3, 4), np.nan), np.arange(6).reshape(3, 2) * 256, "beyond float16"),
    ],
)
def test_bad_arrays_are_one_line(tmp_path: Path, features: np.ndarray, coords: np.ndarray, message: str) -> None:
    path = write_h5(tmp_path / "f.h5", features, coords)
    with pytest.raises(InputError, match=message):
        import_features(path, mpp=0.5, tile=256)
    assert not (tmp_path / "f.zarr").exists()


def test_attributes_that_are_no_object_are_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=np.ones((2, 3)), coords=np.zeros((2, 2)), attributes=np.array("[1]"))
    with pytest.raises(InputError, match="no JSON object"):
        import_features(tmp_path / "f.npz")


def test_outputs_are_refused_or_replaced(tmp_path: Path) -> None:
    write_grid(tmp_path / "g.zarr", SLIDE, cells(SLIDE))
    export_grid(tmp_path / "g.zarr")
    with pytest.raises(OutputError, match="--overwrite"):
        export_grid(tmp_path / "g.zarr")
    with pytest.raises(OutputError, match="--overwrite"):
        import_features(tmp_path / "g.h5")
    export_grid(tmp_path / "g.zarr", overwrite=True)
    import_features(tmp_path / "g.h5", overwrite=True)
    for out in (tmp_path / "g.csv", Path("/proc/none/g.h5")):
        with pytest.raises(TilegenError, match=r"unknown suffix|cannot write here"):
            export_grid(tmp_path / "g.zarr", out)


def test_a_grid_without_a_cell_that_is_ok_exports_nothing_and_says_so(tmp_path: Path) -> None:
    write_grid(tmp_path / "g.zarr", SLIDE, GridData.empty(SLIDE.shape, SLIDE.dim))
    assert export_grid(tmp_path / "g.zarr").features == 0


def test_facts_survive_both_forms(tmp_path: Path) -> None:
    parts = [(np.ones((2, 3), np.float32), np.array([[0, 0], [5, 6]])), (np.zeros((1, 3)), np.array([[7, 8]]))]
    for name in ("a.h5", "a.npz"):
        assert write_features(tmp_path / name, parts, 3, {"patch_size": 64, "name": "x", "mpp": 0.25}) == 3
        found = read_features(tmp_path / name)
        assert found.facts == {"patch_size": 64, "name": "x", "mpp": 0.25}
        assert found.corners.tolist() == [[0, 0], [5, 6], [7, 8]] and found.vectors.shape == (3, 3)


def test_the_grid_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_grid(tmp_path / "g.zarr", SLIDE, cells(SLIDE))
    assert code_of("grid", "info", tmp_path / "g.zarr", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (
        facts["rows"] == SLIDE.shape.rows and facts["mpp"] == 0.5 and sum(facts["cells"].values()) == SLIDE.shape.area
    )
    assert code_of("grid", "export", tmp_path / "g.zarr", "-o", tmp_path / "f.npz", "--json") == 0
    assert json.loads(capsys.readouterr().out)["path"].endswith("f.npz")
    assert code_of("grid", "import", tmp_path / "f.npz") == 0
    assert "f.zarr: " in capsys.readouterr().out
    assert code_of("grid", "preview", tmp_path / "f.zarr", "-o", tmp_path / "p.png") == 0
    with Image.open(tmp_path / "p.png") as image:
        assert image.width > 600
    assert code_of("grid", "info", tmp_path / "nothing.zarr") == 1
    assert "no such grid" in capsys.readouterr().err
