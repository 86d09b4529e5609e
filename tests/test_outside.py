"""What comes from outside is validated: bundles, grids, priors, images, features and tables; each fault is one line."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from PIL import Image

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.config.networks import check_timm
from ssl_tilegen.errors import FormatError, InputError, TilegenError
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.nets import build_component, build_encoder
from ssl_tilegen.system.csv_table import defused, restored
from ssl_tilegen.workflows.embed.run import embed
from ssl_tilegen.workflows.grid.import_features import import_features
from ssl_tilegen.workflows.labelled_images import read_manifest
from tests.bundles import encoder_bundle, prior_bundle

INF, NAN = float("inf"), float("nan")


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prior_bundle(tmp_path_factory.mktemp("b") / "bundle")


def changed(folder: Path, file: str, place: list[Any], value: Any) -> None:
    """Change one value of a JSON file."""
    facts = json.loads((folder / file).read_text())
    at = facts
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    (folder / file).write_text(json.dumps(facts))


def one_line(call: Callable[[], Any], kind: type[TilegenError] = TilegenError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


BUNDLE: list[tuple[list[Any], list[Any]]] = [
    (["name"], [None, 3, "x" * 1000]),
    (["encoder"], [None, [], {}]),
    (["encoder", "tile_px"], [-1, 1.5, "x", 1 << 40, None]),
    (["encoder", "dim"], [-1, 1 << 40]),
    (["encoder", "layout_dim"], [17, -1]),
    (["encoder", "std"], [[0, 1, 1], [1, 1], [NAN, 1, 1]]),
    (["encoder", "mean"], [[INF, 0, 0], "0"]),
    (["locality"], ["both", 3]),
    (["window_px"], [-8, 1 << 40]),
    (["stride_px"], [[0], [-64], 64]),
    (["resolutions"], [{"he": [0, "um"]}, {"he": [-1, "um"]}, {"he": [INF, "um"]}, {"he": [0.5, "px"]}, {"he": 0.5}]),
    (["latent_scale"], [[0.0] * 4, [-1.0] * 4, [NAN] * 4, [1.0] * 3, "1"]),
    (["latent_mean"], [[INF] * 4, [0.0] * 5]),
    (["prediction_type"], ["noise", 1]),
    (["time_scale"], [0, -1, INF]),
    (["sampling", "steps"], [0, -3, 1 << 40, 2.5]),
    (["sampling", "update"], ["evil", 3]),
    (["sampling", "guidance"], [-1, NAN, 1e9]),
    (["sampling", "guidance_interval"], [[-1, 2], [0.1], [NAN, 1]]),
    (["format"], [2, "1", None]),
]


@pytest.mark.parametrize(("place", "values"), BUNDLE, ids=[".".join(map(str, place)) for place, _ in BUNDLE])
def test_every_fact_of_a_bundle_is_checked(drawing: Path, tmp_path: Path, place: list[Any], values: list[Any]) -> None:
    for n, value in enumerate(values):
        folder = tmp_path / str(n)
        folder.mkdir()
        shutil.copy(drawing / "bundle.json", folder)
        changed(folder, "bundle.json", place, value)
        assert "bundle.json" in one_line(lambda folder=folder: ModelBundle(folder), FormatError), f"{place} = {value}"


PRIOR: list[tuple[list[Any], list[Any]]] = [
    (["stride_px"], [0, -64, "x"]),
    (["labels", "rock", "resolution"], [[0, "m"], [INF, "m"], [0.1, "ft"]]),
    (["labels", "rock", "background"], [[300, 0, 0], [0, 0]]),
    (["labels"], [{"": {"domain": "he", "resolution": [0.5, "um"]}}, []]),
    (["vector_dim"], [-1, 1 << 40]),
    (["sampling", "steps"], [0, 1 << 40]),
    (["sampling", "guidance"], [-1.0, 2000]),
    (["text"], [{"name": "x", "dim": 0, "sha256": ""}, {"name": "x"}]),
]


@pytest.mark.parametrize(("place", "values"), PRIOR, ids=[".".join(place) for place, _ in PRIOR])
def test_every_fact_of_a_prior_is_checked(drawing: Path, tmp_path: Path, place: list[Any], values: list[Any]) -> None:
    for n, value in enumerate(values):
        folder = tmp_path / str(n)
        (folder / "prior").mkdir(parents=True)
        for file in ("bundle.json", "prior/prior.json", "prior/config.json"):
            shutil.copy(drawing / file, folder / file)
        changed(folder, "prior/prior.json", place, value)
        said = one_line(lambda folder=folder: ModelBundle(folder).prior_info, FormatError)
        assert "prior.json" in said, f"{place} = {value}"


NETWORKS: dict[str, dict[str, Any]] = {
    "a pipeline": {"_class_name": "StableDiffusionPipeline"},
    "a function": {"_class_name": "logging"},
    "no name": {"_class_name": ["FieldUNet"]},
    "a huge width": {"_class_name": "FieldUNet", "widths": [10**9, 1, 1]},
    "a billion blocks": {"_class_name": "FieldUNet", "down_blocks": [10**9, 1, 1]},
    "a width that is none": {"_class_name": "FieldUNet", "hidden": NAN},
}


@pytest.mark.parametrize("case", NETWORKS)
def test_networks_are_built_from_lists_and_within_bounds(case: str) -> None:
    one_line(lambda: build_component(NETWORKS[case]), FormatError)


@pytest.mark.parametrize(
    ("arch", "arguments"),
    [
        ("vit_tiny_patch16_224", {"checkpoint_path": "/etc/passwd"}),
        ("vit_tiny_patch16_224", {"pretrained": True}),
        ("vit_tiny_patch16_224", {"pretrained_cfg": {"file": "x"}}),
        ("vit_tiny_patch16_224", {"cache_dir": "x"}),
        ("vit_tiny_patch16_224", {"mlp_layer": "Module"}),
        ("vit_tiny_patch16_224", {"depth": 10**6}),
        ("vit_tiny_patch16_224", ["depth"]),
        ("hf-hub:somebody/model", {}),
        ("local-dir:/tmp", {}),
        ("no_such_network", {}),
        (None, {}),
    ],
)
def test_timm_gets_no_argument_that_reads_or_fetches(arch: Any, arguments: Any) -> None:
    one_line(lambda: check_timm(arch, arguments), FormatError)
    config = {"arch": arch, "arch_args": arguments, "tile_px": 32, "dim": 4}
    one_line(lambda: build_encoder(config), FormatError)


def test_a_network_that_does_not_fit_its_weights_is_never_allocated(drawing: Path, tmp_path: Path) -> None:
    """A configuration of 40 GiB beside weights of a few KiB: refused by the shapes in the files' headers."""
    folder = Path(shutil.copytree(drawing, tmp_path / "b"))
    changed(folder, "denoiser/config.json", ["widths"], [50_000, 50_000, 50_000])
    assert "tensors differ" in one_line(lambda: ModelBundle(folder).denoiser, FormatError)


@pytest.fixture(scope="module")
def small_grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    bundle = encoder_bundle(folder / "bundle")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 192, 3), np.uint8)).save(folder / "x.png")
    embed([folder / "x.png"], EmbedSettings(model=str(bundle), mpp=0.5, out=folder / "x.zarr"))
    return folder / "x.zarr"


GRID: list[tuple[list[Any], list[Any]]] = [
    (["tile_px"], [0, -64, 1 << 40, "64", None]),
    (["stride_px"], [0, 2.5]),
    (["size_px"], [[0, 1], [1], [-1, 5], [1 << 40, 1]]),
    (["factor"], [0, -1, INF, NAN, "x"]),
    (["resolution"], [{"value": INF, "unit": "um"}, {"value": 0.5}, {"value": 0.5, "unit": "px"}, 3]),
    (["background"], [[256, 0, 0], [0, 0], None]),
    (["source"], [None, {}, {"name": 3}]),
    (["source", "kind"], ["film"]),
    (["source", "size_px"], [[0, 0], "x"]),
    (["encoder", "mean"], [[NAN], "x"]),
    (["encoder"], [None, {"id": "x"}]),
    (["bundle"], ["x", 3]),
    (["spatial:transform"], [[1, 2], [INF, 0, 0, 0, 1, 0], "x"]),
    (["proj:code"], [3, ["EPSG:1"]]),
]


@pytest.mark.parametrize(("place", "values"), GRID, ids=[".".join(place) for place, _ in GRID])
def test_every_attribute_of_a_grid_is_checked(
    small_grid: Path, tmp_path: Path, place: list[Any], values: list[Any]
) -> None:
    for n, value in enumerate(values):
        folder = Path(shutil.copytree(small_grid, tmp_path / f"{n}.zarr"))
        changed(folder, "zarr.json", ["attributes", *place], value)
        assert "damaged grid" in one_line(lambda folder=folder: EmbeddingGrid.open(folder), FormatError), f"{value}"


def test_attributes_of_others_do_not_disturb_a_grid(small_grid: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_grid, tmp_path / "x.zarr"))
    changed(folder, "zarr.json", ["attributes", "note"], {"mine": 1})
    assert EmbeddingGrid.open(folder).spec == EmbeddingGrid.open(small_grid).spec


@pytest.mark.parametrize("name", ["../secret.zarr/0", "/etc", "link", "", 3, None])
def test_a_dataset_of_ome_zarr_stays_in_its_store(tmp_path: Path, name: Any) -> None:
    secret = zarr.create_group(tmp_path / "secret.zarr")
    secret.create_array("0", shape=(64, 64), dtype="uint8")
    group = zarr.create_group(tmp_path / "x.zarr")
    group.create_array("0", shape=(64, 64), dtype="uint8")
    (tmp_path / "x.zarr" / "link").symlink_to(tmp_path / "secret.zarr" / "0")
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    for path in ("0", name):
        multiscale = {"axes": axes, "datasets": [{"path": path, "coordinateTransformations": []}]}
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
        if path == "0":
            open_raster(tmp_path / "x.zarr", mpp=0.5).close()
    one_line(lambda: open_raster(tmp_path / "x.zarr", mpp=0.5), InputError)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_rasters_are_refused(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x.tif"
    with rasterio.open(path, "w", driver="GTiff", width=64, height=64, count=1, dtype=dtype, crs="EPSG:32617",
                       transform=rasterio.Affine(1, 0, 0, 0, -1, 64)):  # fmt: skip
        pass
    assert "complex" in one_line(lambda: open_raster(path), InputError)


def test_complex_channels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.ome.tif", np.ones((2, 64, 64), np.complex64), metadata={"axes": "CYX"})
    assert "complex" in one_line(lambda: open_raster(tmp_path / "x.ome.tif", mpp=0.5), InputError)


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_resolutions_that_are_no_numbers_are_one_line(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        EmbedSettings(mpp=value)
    path = tmp_path / "x.tif"
    with rasterio.open(path, "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8", crs="EPSG:32617",
                       transform=rasterio.Affine(value, 0, 0, 0, -1, 64)):  # fmt: skip
        pass
    one_line(lambda: open_raster(path).close())


CORNERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "left of the image": ([[-64, 0], [0, 0]], {}),
    "above it": ([[0, -1], [64, 0]], {}),
    "right of what the file says": ([[0, 0], [640, 0]], {"level0_width": 640}),
    "not a number": ([[NAN, 0], [0, 0]], {}),
    "infinite": ([[0, INF], [0, 0]], {}),
    "a patch of no size": ([[0, 0], [64, 0]], {"patch_size": 0}),
    "a negative factor": ([[0, 0], [64, 0]], {"factor": -1}),
    "an infinite factor": ([[0, 0], [64, 0]], {"factor": 1e400}),
    "overlapping more than a patch": ([[0, 0], [64, 0]], {"overlap": 64}),
}


@pytest.mark.parametrize("case", CORNERS)
def test_imported_corners_lie_in_the_image(tmp_path: Path, case: str) -> None:
    corners, facts = CORNERS[case]
    told = json.dumps({"patch_size": 64, "patch_size_level0": 64, **facts})
    np.savez(tmp_path / "f.npz", features=np.ones((2, 4), np.float32), coords=np.array(corners), attributes=told)
    one_line(lambda: import_features(tmp_path / "f.npz", mpp=0.5), InputError)
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_features_of_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=np.array([["a", "b"]]), coords=np.zeros((1, 2), int))
    one_line(lambda: import_features(tmp_path / "f.npz", mpp=0.5, tile=64), InputError)


CELLS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\tx", "\r=x", "'=x", "''=x", "'", "plain", "", "it's",
         "-0.5", "+3e5", "1", "a=b"]  # fmt: skip


@pytest.mark.parametrize("text", CELLS)
def test_cells_are_text_to_a_spreadsheet_and_themselves_to_us(text: str) -> None:
    cell = defused(text)
    assert restored(cell) == text
    assert defused(Path(text)) == defused(str(Path(text)))
    if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        float(cell)


def test_a_manifest_with_formulas_is_read_back(tmp_path: Path) -> None:
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["path", "label"])
        table.writeheader()
        table.writerow({"path": defused("=a/x.png"), "label": defused("@b")})
    assert read_manifest(tmp_path) == {"=a/x.png": {"path": "=a/x.png", "label": "@b"}}
    assert "'=a" in (tmp_path / "manifest.csv").read_text()


@pytest.mark.filterwarnings("ignore")
def test_an_image_of_which_nothing_can_be_read_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    bundle = encoder_bundle(tmp_path / "bundle")
    rgb = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, rgb, tile=(256, 256), compression="zlib", photometric="rgb", resolution=(20000, 20000),
                     resolutionunit="CENTIMETER")  # fmt: skip
    with tifffile.TiffFile(path) as tiff:
        places = list(zip(tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts, strict=True))
    data = bytearray(path.read_bytes())
    for offset, count in places:
        data[offset : offset + count] = bytes(count)
    path.write_bytes(data)
    settings = EmbedSettings(model=str(bundle), mpp=0.5, out=tmp_path / "x.zarr")
    assert "none of its" in one_line(lambda: embed([path], settings), InputError)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bundle", "x.tif"]
