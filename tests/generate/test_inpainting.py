"""`generate --open_inpainting`: a part of a real image repainted, everything else as it was to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
import torch
import zarr
from PIL import Image

from ssl_tilegen.bundle import Sampling
from ssl_tilegen.config import EmbedSettings, GenerateSettings, load_settings
from ssl_tilegen.diffusion.inpainting import border_ramp
from ssl_tilegen.diffusion.row_parallel import Ranks
from ssl_tilegen.errors import Interrupted, TilegenError
from ssl_tilegen.geometry import Resolution, Window
from ssl_tilegen.io.pyramid import ImageSpec, open_writer
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.workflows.embed.run import embed
from ssl_tilegen.workflows.generate.inpainting import Inpainting
from ssl_tilegen.workflows.generate.run import GenerateReport, generate
from tests.bundles import painting_bundle

torch.set_num_threads(1)
REGION = (120, 90, 100, 77)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles, a lossy slide, a map, and a grid of each."""
    folder = tmp_path_factory.mktemp("keep")
    bundle = painting_bundle(folder / "local")
    painting_bundle(folder / "window", window=True)
    painting_bundle(folder / "few", sampling=Sampling(times=(1.0, 0.6, 0.3)))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (301, 403, 3), np.uint8)
    with open_writer(folder / "slide.ome.tif", ImageSpec(size_of(pixels), Resolution(0.5, "um"))) as writer:
        writer.write(pixels)
    place = {"crs": "EPSG:32614", "transform": rasterio.transform.from_origin(0, 0, 0.15, 0.15)}
    with rasterio.open(folder / "map.tif", "w", driver="GTiff", height=301, width=403, count=3, dtype="uint8",
                       **place) as file:  # fmt: skip
        file.write(pixels.transpose(2, 0, 1))
    embed([folder / "slide.ome.tif", folder / "map.tif"], EmbedSettings(model=str(bundle)))
    return folder


def size_of(pixels: np.ndarray):
    from ssl_tilegen.geometry import Size

    return Size(*pixels.shape[:2])


def run(world: Path, name: str, out: Path, progress=None, *, kind: str = "local", **options: object) -> GenerateReport:
    image = next(world.glob(f"{name}.*tif"))
    given = {"grid": world / f"{name}.zarr", "keep": str(image), "region": ",".join(map(str, REGION)), "out": out,
             "model": str(world / kind), "device": "cpu"} | options  # fmt: skip
    settings = load_settings(GenerateSettings, None, given)
    return generate(settings, progress) if progress else generate(settings)


def source(world: Path, name: str) -> np.ndarray:
    with open_raster(next(world.glob(f"{name}.*tif"))) as raster:
        return raster.read(Window.of(raster.size)).rgb


def pixels_of(path: Path) -> np.ndarray:
    if path.suffix == ".zarr":
        return np.asarray(zarr.open_group(path, mode="r")["0"]).transpose(1, 2, 0)
    return np.asarray(Image.open(path).convert("RGB")) if path.suffix == ".png" else tifffile.imread(path)


@pytest.mark.parametrize(("name", "suffix", "kind"), [
    ("slide", ".ome.tif", "local"), ("slide", ".tif", "window"), ("slide", ".zarr", "local"),
    ("slide", ".png", "few"), ("map", ".tif", "local"),
])  # fmt: skip
def test_all_but_the_region_stays_to_the_bit(name, suffix, kind, world: Path, tmp_path: Path) -> None:
    report = run(world, name, tmp_path / f"a{suffix}", kind=kind)
    made, real = pixels_of(report.out).copy(), source(world, name)
    x, y, width, height = REGION
    assert report.size == (403, 301) and report.region == REGION and "repainted" in report.line()
    inside = np.s_[y : y + height, x : x + width]
    assert np.abs(made[inside][32:-32, 32:-32].astype(int) - real[inside][32:-32, 32:-32]).mean() > 10
    made[inside] = real[inside]
    assert np.array_equal(made, real)
    if name == "map":
        with rasterio.open(report.out) as file:
            assert str(file.crs) == "EPSG:32614" and file.bounds.right == pytest.approx(403 * 0.15)


def test_the_border_is_blended_and_the_edge_of_the_image_is_none(world: Path, tmp_path: Path) -> None:
    """The first pixels inside are still the image's, those in the middle of a side at the image's edge are not."""
    made = pixels_of(run(world, "map", tmp_path / "a.png", region="0,90,200,100").out).astype(int)
    change = np.abs(made - source(world, "map"))[90:190, :200].mean(-1)
    assert change[0].max() == change[-1].max() == change[:, -1].max() == 0
    assert change[1, 40:150].mean() < change[12, 40:150].mean() / 3
    assert change[40:60, 0].mean() > change[40:60, 80].mean() / 2


def test_the_first_process_meets_the_others_where_only_rows_below_the_region_are_left(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, out = run(world, "map", tmp_path / "straight.png"), tmp_path / "a.png"

    def stopped(self: Inpainting, first: int, end: int):
        raise Interrupted("stopped", 15)

    with monkeypatch.context() as patched:
        own_rows = Inpainting._own_rows
        patched.setattr(Inpainting, "_own_rows", lambda *at: (stopped if at[1] > REGION[1] else own_rows)(*at))
        with pytest.raises(Interrupted):
            run(world, "map", out)
    waited: list[Ranks] = []
    monkeypatch.setattr(Ranks, "wait", lambda ranks: waited.append(ranks))
    run(world, "map", out)
    assert len(waited) == 1 and np.array_equal(pixels_of(out), pixels_of(straight.out))


def test_a_repainting_goes_on_where_it_was_stopped(world: Path, tmp_path: Path) -> None:
    def stop_at(stage: str):
        def progress(now: str, done: float, total: float) -> None:
            if now == stage and done / total > 0.5:
                raise Interrupted("stopped", 15)

        return progress

    straight = run(world, "map", tmp_path / "straight.png", steps=4)
    for stage in ("paint", "develop"):
        with pytest.raises(Interrupted):
            run(world, "map", tmp_path / "a.png", stop_at(stage), steps=4)
    again = run(world, "map", tmp_path / "a.png", steps=4)
    assert np.array_equal(pixels_of(again.out), pixels_of(straight.out))


@pytest.mark.parametrize(("options", "message"), [
    ({"region": None}, "--keep goes with --region"),
    ({"size": "128"}, "no --size"),
    ({"out": Path("a.jpg")}, "JPEG would change"),
    ({"out": Path("a.svs")}, "JPEG would change"),
    ({"keep": "slide"}, "not the image that the grid was made from"),
    ({"keep": "/no/such.tif"}, "/no/such.tif: no such file"),
    ({"region": "400,0,50,50"}, "reaches beyond the canvas"),
])  # fmt: skip
def test_what_cannot_be_kept_is_said_in_one_line(options, message, world: Path, tmp_path: Path) -> None:
    if options.get("keep") == "slide":
        options = {"keep": str(world / "slide.ome.tif")}
    with pytest.raises(TilegenError, match=message):
        run(world, "map", **({"out": tmp_path / "a.png"} | options))
    assert not list(tmp_path.iterdir())


def test_the_ramp_rises_inside_only_and_not_at_an_end_of_the_axis() -> None:
    assert border_ramp(0, 20, 4, 16, 3).tolist() == pytest.approx(
        [0] * 5 + [1 / 3, 2 / 3] + [1] * 6 + [2 / 3, 1 / 3] + [0] * 5)  # fmt: skip
    assert border_ramp(0, 8, 0, 8, 3).tolist() == [1] * 8
