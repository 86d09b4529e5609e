"""`embed` on real and made images: what the grid holds, resuming, sharing, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from rasterio.transform import from_origin

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.errors import InputError, Interrupted, OutputError, ResolutionError, SettingError
from ssl_tilegen.geometry import Resolution, Size
from ssl_tilegen.grids import EmbeddingGrid, GridData, Validity, is_complete, unfinished_grid
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.system.launch import worker_shard
from ssl_tilegen.workflows.embed.run import EmbedIncomplete, EmbedReport, embed
from tests.bundles import DIM, TILE_PX, encoder_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def encoder(bundle: Path) -> Encoder:
    return BundleEncoder(ModelBundle.load(bundle))


def raster(path: Path, rows: int = 300, cols: int = 500, **options: object) -> Path:
    """A georeferenced GeoTIFF of noise, 0.15 m/px."""
    pixels = np.random.default_rng(0).integers(1, 255, (3, rows, cols), np.uint8)
    pixels[:, :, : int(options.pop("blank", 0))] = 0  # type: ignore[call-overload]
    profile = {"count": 3, "dtype": "uint8", "crs": "EPSG:32614", "transform": from_origin(1000, 2000, 0.15, 0.15)}
    with rasterio.open(path, "w", driver="GTiff", height=rows, width=cols, **profile | options) as file:
        file.write(pixels)
    return path


def run(inputs: Path | list[Path], bundle: Path, **options: object) -> list[EmbedReport]:
    paths = inputs if isinstance(inputs, list) else [inputs]
    return embed(paths, EmbedSettings(model=str(bundle), device="cpu", **options))  # type: ignore[arg-type]


def same(first: GridData, second: GridData) -> None:
    for name in ("embedding", "valid", "tissue"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_a_slide(data_dir: Path, bundle: Path, encoder: Encoder, tmp_path: Path) -> None:
    slide = data_dir / "slides" / "cmu-1-small-region.svs"
    report = run(slide, bundle, out=tmp_path / "g.zarr")[0]
    grid = EmbeddingGrid.open(tmp_path / "g.zarr")
    assert report.status == "done" and grid.shape == Size(2967, 2220).ceil_div(TILE_PX) and grid.dim == DIM
    assert grid.spec.resolution == Resolution(0.499, "um") and grid.spec.factor == 1
    assert grid.spec.source.kind == "slide" and grid.spec.bundle and grid.spec.bundle["id"] == "stub"
    cells = grid.read()
    assert 0.2 < (cells.valid == Validity.OK).mean() < 0.8 and set(np.unique(cells.valid)) == {0, 1}
    assert cells.usable.all() and min(grid.spec.background) > 200
    row, col = np.argwhere(cells.valid == Validity.OK)[7]
    with open_raster(slide) as source:
        tile = source.read(grid.spec.lattice.window(int(row), int(col))).rgb
    np.testing.assert_allclose(encoder.embed(tile[None])[0], cells.embedding[row, col], atol=2e-2)


def test_tissue_only_leaves_glass_without_an_embedding(data_dir: Path, bundle: Path, tmp_path: Path) -> None:
    slide = data_dir / "slides" / "cmu-1-small-region.svs"
    run(slide, bundle, out=tmp_path / "g.zarr", tissue_only=True, mpp=4.0)
    cells = EmbeddingGrid.open(tmp_path / "g.zarr").read()
    background = cells.valid == Validity.BACKGROUND
    assert (
        background.any() and not cells.embedding[background].any() and cells.embedding[~background].any(axis=-1).all()
    )


def test_a_raster_keeps_its_sampling_and_its_place(data_dir: Path, bundle: Path, tmp_path: Path) -> None:
    source = data_dir / "rasters" / "neon_bart.tif"
    run(source, bundle, out=tmp_path / "g.zarr")
    spec = EmbeddingGrid.open(tmp_path / "g.zarr").spec
    with rasterio.open(source) as file:
        assert spec.crs == str(file.crs) and spec.transform == pytest.approx(tuple(file.transform)[:6])
    assert spec.resolution and spec.resolution.value == pytest.approx(0.1)
    assert spec.shape == Size(1106, 1213).ceil_div(TILE_PX)


def test_gsd_reads_coarser(bundle: Path, tmp_path: Path) -> None:
    run(raster(tmp_path / "a.tif"), bundle, gsd=0.3)
    spec = EmbeddingGrid.open(tmp_path / "a.zarr").spec
    assert spec.lattice.size == Size(150, 250) and spec.factor == 2 and spec.resolution == Resolution(0.3, "m")
    assert spec.transform == pytest.approx((0.3, 0, 1000, 0, -0.3, 2000))


def test_stride_makes_denser_grids(bundle: Path, tmp_path: Path) -> None:
    source = raster(tmp_path / "a.tif", 200, 260)
    run(source, bundle, out=tmp_path / "tile.zarr")
    run(source, bundle, out=tmp_path / "half.zarr", stride=32)
    whole, half = (EmbeddingGrid.open(tmp_path / f"{name}.zarr").read().embedding for name in ("tile", "half"))
    assert half.shape[:2] == (6, 8) and whole.shape[:2] == (4, 5)
    np.testing.assert_allclose(half[:5:2, :7:2].astype(float), whole[:3, :4].astype(float), atol=2e-2)


def test_places_without_data_are_marked_and_not_embedded(bundle: Path, tmp_path: Path) -> None:
    run(raster(tmp_path / "a.tif", nodata=0, blank=100), bundle)
    cells = EmbeddingGrid.open(tmp_path / "a.zarr").read()
    assert (cells.valid[:, :2] == Validity.NODATA).all() and (cells.valid[:, 2:] == Validity.OK).all()
    assert not cells.embedding[:, :2].any() and cells.embedding[:, 2:].any(axis=-1).all()
    assert cells.tissue[0].tolist() == pytest.approx([0, 28 / 64, 1, 1, 1, 1, 1, 1], abs=1e-3)


@pytest.mark.parametrize("stride", [TILE_PX, 32])
@pytest.mark.parametrize("shape", [(128, 192), (75, 1025), (100, 128 + 63)])
def test_every_pixel_lies_under_a_cell(shape, stride: int, bundle: Path, encoder: Encoder, tmp_path: Path) -> None:
    """The last cells are those of the image mirrored at its edge, also where a block of reading ends just before it."""
    rgb = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    run(tmp_path / "a.png", bundle, gsd=0.15, stride=stride)
    grid = EmbeddingGrid.open(tmp_path / "a.zarr")
    lattice = grid.spec.lattice
    assert lattice.size == Size(*shape) and lattice.partial == (shape != (128, 192))
    mirrored = np.pad(rgb, ((0, TILE_PX), (0, TILE_PX), (0, 0)), "symmetric")
    last = (lattice.shape.rows - 1, lattice.shape.cols - 1)
    assert lattice.window(*last).row_end >= shape[0] and lattice.window(*last).col_end >= shape[1]
    cells = grid.read()
    assert (cells.valid == Validity.OK).all() and (cells.tissue == 1).all()
    for cell in (last, (0, last[1]), (last[0], 0)):
        tile = mirrored[lattice.window(*cell).slices]
        np.testing.assert_allclose(cells.embedding[cell], encoder.embed(tile[None])[0], atol=2e-2)


def test_an_image_smaller_than_a_tile_is_one_mirrored_cell(bundle: Path, encoder: Encoder, tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (20, 50, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    run(tmp_path / "a.png", bundle, gsd=0.15)
    cells = EmbeddingGrid.open(tmp_path / "a.zarr").read()
    mirrored = np.pad(rgb, ((0, 44), (0, 14), (0, 0)), "symmetric")
    assert cells.valid.tolist() == [[Validity.OK]]
    np.testing.assert_allclose(cells.embedding[0, 0], encoder.embed(mirrored[None])[0], atol=2e-2)


def test_pictures_say_their_resolution_by_option(bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ResolutionError, match="--mpp"):
        run(tmp_path / "a.png", bundle)
    run(tmp_path / "a.png", bundle, mpp=0.25)
    spec = EmbeddingGrid.open(tmp_path / "a.zarr").spec
    assert spec.resolution == Resolution(0.5, "um") and spec.lattice.size == Size(128, 128)


def test_a_run_that_is_stopped_and_continued_equals_one_that_is_not(bundle: Path, tmp_path: Path) -> None:
    source = raster(tmp_path / "a.tif", 40 * 32, 70 * 32)
    calls = []

    def stop(stage: str, done: int, total: int) -> None:
        calls.append((done, total))
        if len(calls) == 25:
            raise Interrupted("stopped", 15)

    settings = EmbedSettings(model=str(bundle), stride=32, out=tmp_path / "stopped.zarr")
    with pytest.raises(Interrupted):
        embed([source], settings, stop)
    assert unfinished_grid(tmp_path / "stopped.zarr").exists() and not (tmp_path / "stopped.zarr").exists()
    before = len(calls)
    report = embed([source], settings, lambda *state: calls.append(state[1:]))[0]
    assert report.status == "done" and calls[before][1] < calls[0][1], "finished shards are kept"
    embed([source], settings.model_copy(update={"out": tmp_path / "whole.zarr"}))
    same(EmbeddingGrid.open(tmp_path / "stopped.zarr").read(), EmbeddingGrid.open(tmp_path / "whole.zarr").read())


def test_two_processes_share_one_grid(bundle: Path, tmp_path: Path) -> None:
    source = raster(tmp_path / "a.tif", 40 * 32, 40 * 32)
    first = run(source, bundle, stride=32, out=tmp_path / "s.zarr", shard=(0, 2))[0]
    assert first.status == "partial" and not (tmp_path / "s.zarr").exists()
    assert run(source, bundle, stride=32, out=tmp_path / "s.zarr", shard=(1, 2))[0].status == "done"
    run(source, bundle, stride=32, out=tmp_path / "w.zarr")
    same(EmbeddingGrid.open(tmp_path / "s.zarr").read(), EmbeddingGrid.open(tmp_path / "w.zarr").read())


def test_many_images_are_dealt_out(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        raster(tmp_path / f"{name}.tif", 100, 100)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
    assert [report.input.name for report in run(tmp_path, bundle)] == ["b.tif"]
    assert [r.input.name for r in run([tmp_path / "*.tif"], bundle, shard=(0, 2))] == ["a.tif", "c.tif"]


def array(monkeypatch: pytest.MonkeyPatch, tasks: list[int], own: int) -> None:
    """The environment of a task of a Slurm array."""
    step = tasks[1] - tasks[0] if len(tasks) > 1 else 1
    facts = {"ID": own, "COUNT": len(tasks), "MIN": tasks[0], "MAX": tasks[-1], "STEP": step}
    for name, value in facts.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))


@pytest.mark.parametrize("tasks", [[0, 1, 2], [1, 2, 3], [0, 10, 20], [5, 7, 9, 11], [4]])
def test_every_task_of_an_array_has_its_own_share(tasks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for own in tasks:
        array(monkeypatch, tasks, own)
        shares.append(worker_shard())
    assert shares == [(i, len(tasks)) for i in range(len(tasks))]


def test_an_array_with_gaps_has_no_shares(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        raster(tmp_path / f"{name}.tif", 100, 100)
    array(monkeypatch, [3, 4, 9], 9)
    monkeypatch.setenv("SLURM_ARRAY_TASK_STEP", "1")
    with pytest.raises(SettingError, match="--shard"):
        run(tmp_path, bundle)
    assert [r.status for r in run(tmp_path, bundle, shard=(0, 1))] == ["done", "done"]


def test_a_task_with_an_image_of_its_own_does_all_of_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = raster(tmp_path / "a.tif", 40 * 32, 40 * 32)
    array(monkeypatch, [1, 2, 3], 2)
    assert run(source, bundle, stride=32)[0].status == "done"


def test_failures_among_many_are_listed_and_the_others_are_done(bundle: Path, tmp_path: Path) -> None:
    raster(tmp_path / "good.tif", 100, 100)
    (tmp_path / "bad.svs").write_text("not a slide")
    with pytest.raises(EmbedIncomplete, match=r"1 of 2 inputs failed.*bad\.svs") as caught:
        run(tmp_path, bundle)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    assert [report.status for report in caught.value.reports] == ["failed", "done"]
    assert is_complete(tmp_path / "good.zarr")


def test_finished_grids_are_refused_skipped_or_replaced(bundle: Path, tmp_path: Path) -> None:
    source = raster(tmp_path / "a.tif", 100, 100)
    run(source, bundle)
    with pytest.raises(OutputError, match="--overwrite"):
        run(source, bundle)
    assert run(source, bundle, skip_existing=True)[0].status == "skipped"
    assert run(source, bundle, overwrite=True)[0].status == "done"
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(OutputError, match="not made by this program"):
        run(source, bundle, out=tmp_path / "b.zarr", skip_existing=True)


def test_a_place_that_cannot_be_read_is_marked_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    """A real TIFF with one tile's bytes overwritten."""
    source = raster(tmp_path / "a.tif", 256, 512, tiled=True, blockxsize=128, blockysize=128, compress="jpeg",
                    photometric="rgb")  # fmt: skip
    offset = _offset_of_second_tile(source)
    content = bytearray(source.read_bytes())
    content[offset : offset + 400] = b"\xff" * 400
    source.write_bytes(content)
    run(source, bundle)
    valid = EmbeddingGrid.open(tmp_path / "a.zarr").read().valid
    damaged = valid == Validity.READ_ERROR
    assert damaged[:2, 2:4].all() and damaged.sum() == 4 and (valid[~damaged] == Validity.OK).all()
    assert not EmbeddingGrid.open(tmp_path / "a.zarr").read().embedding[damaged].any()


def _offset_of_second_tile(path: Path) -> int:
    with tifffile.TiffFile(path) as file:
        return int(file.pages[0].dataoffsets[1])


@pytest.mark.parametrize(
    ("name", "content", "options", "error", "message"),
    [
        ("missing.svs", None, {}, InputError, "no such file"),
        ("text.svs", b"hello", {}, InputError, "text.svs"),
        ("empty.tif", b"", {}, InputError, "empty"),
        ("cut.tif", b"II*\0\x08\0\0\0", {}, InputError, "cut.tif"),
        ("nothing", "folder", {}, InputError, "no images there"),
        ("*.svs", None, {}, InputError, "no images there"),
        ("good.tif", "raster", {"model": "/no/bundle"}, InputError, "not a model bundle"),
        ("good.tif", "raster", {"encoder": "nonsense"}, InputError, "unknown"),
        ("good.tif", "raster", {"device": "cuda:99"}, SettingError, "CUDA devices"),
        ("good.tif", "raster", {"device": "tpu9"}, SettingError, "use auto"),
        ("good.tif", "raster", {"mpp": 0.5}, ResolutionError, "--gsd|--mpp"),
        ("good.tif", "raster", {"bands": (7,)}, InputError, "--bands"),
        ("good.tif", "raster", {"out": Path("/proc/nope/a.zarr")}, OutputError, "cannot write here"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    bundle: Path, tmp_path: Path, name: str, content: bytes | str | None, options: dict[str, object],
    error: type[Exception], message: str,
) -> None:  # fmt: skip
    path = tmp_path / name
    if content == "raster":
        raster(path, 100, 100)
    elif content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(error, match=message) as caught:
        embed([path], EmbedSettings(**{"model": str(bundle)} | options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.zarr*")) and not list(tmp_path.glob(".*zarr*"))


def test_outputs_do_not_clash(bundle: Path, tmp_path: Path) -> None:
    raster(tmp_path / "a.tif", 100, 100)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(OutputError, match=r"would both become"):
        run(tmp_path, bundle)
    with pytest.raises(SettingError, match="--out-dir"):
        run(tmp_path, bundle, out=tmp_path / "x.zarr")


def test_a_grid_of_another_encoder_is_not_continued(bundle: Path, tmp_path: Path) -> None:
    source = raster(tmp_path / "a.tif", 40 * 32, 40 * 32)
    run(source, bundle, stride=32, shard=(0, 2))
    other = encoder_bundle(tmp_path / "other", seed=1)
    with pytest.raises(OutputError, match=r"encoder.*--restart"):
        run(source, other, stride=32)
    with pytest.raises(SettingError, match=r"--restart: 2 processes make .*a.zarr together"):
        run(source, other, stride=32, restart=True, shard=(1, 2))  # it would throw away what the first has made
    assert run(source, other, stride=32, restart=True)[0].status == "done"
