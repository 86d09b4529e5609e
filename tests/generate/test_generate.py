"""`generate` from grids of made images with a small random model: place, pixels, files, resuming, what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
import torch
import zarr
from PIL import Image
from rasterio.transform import from_origin

from ssl_tilegen.bundle import Sampling, update_info
from ssl_tilegen.cli import main
from ssl_tilegen.config import EmbedSettings, GenerateSettings, load_settings
from ssl_tilegen.errors import Interrupted, TilegenError
from ssl_tilegen.geometry import Resolution, Size
from ssl_tilegen.grids import EmbeddingGrid, Validity
from ssl_tilegen.io.pyramid import ImageSpec, open_writer, unfinished_image
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.workflows.embed.run import embed
from ssl_tilegen.workflows.generate.run import GenerateReport, generate
from ssl_tilegen.workflows.generate.sampling import LOOSE_ABOVE
from tests.bundles import DIM, WINDOW_PX, encoder_bundle, painting_bundle

torch.set_num_threads(1)
RASTER, SLIDE = Size(300, 500), Size(448, 640)
BACKGROUND = (242, 240, 244)


@dataclass(frozen=True)
class World:
    """Bundles of both kinds and grids of a slide, a map and an image, all under one folder."""

    folder: Path
    bundle: Path
    window_bundle: Path

    def grid(self, name: str) -> Path:
        return self.folder / f"{name}.zarr"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    bundle = painting_bundle(folder / "bundle")
    made = World(folder, bundle, painting_bundle(folder / "window_bundle", window=True))
    rng = np.random.default_rng(0)
    write_map(folder / "map.tif", rng)
    write_slide(folder / "slide.ome.tif", rng)
    Image.fromarray(rng.integers(0, 255, (130, 200, 3), np.uint8)).save(folder / "picture.png")
    embed([folder / "map.tif", folder / "slide.ome.tif"], EmbedSettings(model=str(bundle)))
    embed([folder / "picture.png"], EmbedSettings(model=str(bundle), gsd=0.15))
    embed(
        [folder / "slide.ome.tif"],
        EmbedSettings(model=str(bundle), out=made.grid("tissue"), tissue_only=True, stride=32),
    )
    return made


def write_map(path: Path, rng: np.random.Generator) -> None:
    """0.2 m/px, without data on the left, brighter to the right."""
    pixels = rng.integers(1, 120, (3, RASTER.rows, RASTER.cols), np.uint8)
    pixels += np.linspace(0, 120, RASTER.cols).astype(np.uint8)
    pixels[:, :, :70] = 0
    place = {"crs": "EPSG:32614", "transform": from_origin(1000, 2000, 0.2, 0.2)}
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "nodata": 0} | place
    with rasterio.open(path, "w", height=RASTER.rows, width=RASTER.cols, **profile) as file:
        file.write(pixels)


def write_slide(path: Path, rng: np.random.Generator) -> None:
    """0.5 um/px, tissue in the lower left, glass elsewhere."""
    pixels = np.full((SLIDE.rows, SLIDE.cols, 3), BACKGROUND, np.uint8)
    pixels[120:, :300] = rng.integers((120, 40, 120), (200, 120, 200), (SLIDE.rows - 120, 300, 3))
    with open_writer(path, ImageSpec(SLIDE, Resolution(0.5, "um"))) as writer:
        writer.write(pixels)


def run(
    world: World, name: str, out: Path, progress: Callable[..., None] | None = None, **options: object
) -> GenerateReport:
    given = {"grid": world.grid(name), "out": out, "model": str(world.bundle), "device": "cpu"} | options
    settings = load_settings(GenerateSettings, None, given)
    return generate(settings, progress) if progress else generate(settings)


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


# Where


def test_the_whole_grid_is_painted_beside_it_without_any_option(world: World) -> None:
    for name, file in (("map", "map-synthetic.tif"), ("slide", "slide-synthetic.ome.tif")):
        report = run(world, name, None, steps=1)  # type: ignore[arg-type]
        assert report.out == world.folder / file and report.out.is_file() and report.fit == "whole"
        assert not unfinished_image(report.out).exists() and report.seconds > 0 and report.network_calls > 0
    assert run(world, "picture", None, steps=1).out.name == "picture-synthetic.ome.tif"  # type: ignore[arg-type]


def test_a_picture_follows_its_source_to_the_last_pixel(world: World, tmp_path: Path) -> None:
    """Two sources that differ beyond their last whole tile alone make images that differ there, of the same size."""
    pixels = np.random.default_rng(5).integers(0, 255, (150, 170, 3), np.uint8)
    for name in ("one", "two"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        pixels[:, 128:] = 255 - pixels[:, 128:] // 2
    embed([tmp_path / "one.png", tmp_path / "two.png"], EmbedSettings(model=str(world.bundle), gsd=0.15))
    one, two = (pixels_of(run(world, name, tmp_path / f"{name}-made.png", grid=tmp_path / f"{name}.zarr").out)
                for name in ("one", "two"))  # fmt: skip
    assert one.shape == two.shape == pixels.shape
    change = np.abs(one - two).mean((0, 2))
    assert change[-16:].mean() > 3 * change[:64].mean()


def test_a_map_lies_on_its_ground(world: World, tmp_path: Path) -> None:
    ground = {
        "whole": ({}, (500, 300), (0.2, 0, 1000, 0, -0.2, 2000)),
        "region": ({"region": "64,128,100,77"}, (100, 77), (0.2, 0, 1012.8, 0, -0.2, 1974.4)),
        "stretch": ({"size": "1000x450", "fit": "stretch"}, (1000, 450), (0.1, 0, 1000, 0, -0.4 / 3, 2000)),
        "part": (
            {"size": "1000x450", "region": "900,400,90,50"},
            (90, 50),
            (0.1, 0, 1090, 0, -0.4 / 3, 2000 - 160 / 3),
        ),
    }
    for name, (options, size, transform) in ground.items():
        report = run(world, "map", tmp_path / f"{name}.tif", steps=1, **options)  # type: ignore[arg-type]
        with rasterio.open(report.out) as file:
            assert (file.width, file.height) == size == report.size and str(file.crs) == "EPSG:32614"
            assert tuple(file.transform)[:6] == pytest.approx(transform)
            assert file.read().std() > 1


def test_the_crop_of_a_slide_has_the_most_tissue(world: World, tmp_path: Path) -> None:
    report = run(world, "slide", tmp_path / "a.png", size="256", steps=1)
    x, y, *_ = report.region
    assert report.fit == "crop" and (x % 64, y % 64) == (0, 0) and x <= 64 and y >= 128
    assert run(world, "slide", tmp_path / "b.png", size="640x448", steps=1).fit == "whole"
    assert run(world, "slide", tmp_path / "c.png", size="641x448", steps=1).fit == "stretch"
    everywhere = run(world, "picture", tmp_path / "d.png", size="64", steps=1)
    assert everywhere.region[:2] == (64, 64)  # all alike: the crop in the middle


@pytest.mark.parametrize("size", ["64", "65", "131x203", "203x66"])
def test_any_size_is_painted_whole(size: str, world: World, tmp_path: Path) -> None:
    for bundle in (world.bundle, world.window_bundle):
        report = run(world, "map", tmp_path / f"{bundle.name}.png", size=size, model=str(bundle), steps=2)
        image = pixels_of(report.out)
        shape = image.shape
        assert (shape[1], shape[0]) == report.size == tuple(map(int, (size.split("x") * 2)[:2]))
        assert min(edge.std() for edge in (image[:8], image[-8:], image[:, :8], image[:, -8:])) > 5


SUFFIXES = (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".png", ".jpg", ".zarr")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_opens_with_its_size_resolution_and_story(suffix: str, world: World, tmp_path: Path) -> None:
    report = run(world, "slide", tmp_path / f"a{suffix}", size="333x257", steps=1, seed=5, preview=True)
    story = json.loads((tmp_path / f"a{suffix}.json").read_text())
    facts = story["provenance"]
    assert story["synthetic"] and facts["seed"] == 5 and facts["source"] == "slide.ome.tif" and facts["model"] == "stub"
    assert facts["region_px"][2:] == [333, 257] and len(facts["model_sha256"]) == len(facts["grid_sha256"]) == 64
    assert facts["software"].startswith("ssl-tilegen ") and facts["steps"] == 1 and "2026" not in json.dumps(facts)
    assert report.preview == tmp_path / "a.preview.png" and pixels_of(report.preview).shape == (257, 333, 3)
    if suffix == ".zarr":
        level = zarr.open_group(report.out, mode="r")["0"]
        assert isinstance(level, zarr.Array) and {257, 333} <= set(level.shape)
        return
    with open_raster(report.out, mpp=0.5 if suffix in (".png", ".jpg") else None) as raster:
        assert (
            raster.size == Size(257, 333) and raster.resolution and raster.resolution.value == pytest.approx(0.5, 1e-3)
        )
    if suffix == ".ome.tif":
        with openslide.OpenSlide(report.out) as slide:
            assert slide.dimensions == (333, 257) and float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        with tifffile.TiffFile(report.out) as tiff:
            assert tiff.is_ome


@pytest.mark.parametrize(("said", "recorded"), [
    ({"layout": "free"}, {"layout": "free"}), ({"layout": "exact"}, {"layout": "exact"}), ({}, {"layout": "exact"}),
    ({"layout": "loose"}, {"layout": "loose", "layout_above": LOOSE_ABOVE}),
])  # fmt: skip
def test_the_layout_is_recorded_in_the_words_of_the_option(said, recorded, world: World, tmp_path: Path) -> None:
    run(world, "slide", tmp_path / "a.png", size="64", steps=1, **said)
    facts = json.loads((tmp_path / "a.png.json").read_text())["provenance"]
    assert {name: value for name, value in facts.items() if name.startswith("layout")} == recorded


# What


@pytest.mark.parametrize("kind", ["bundle", "window_bundle"])
def test_same_seed_same_picture_for_any_batch(kind: str, world: World, tmp_path: Path) -> None:
    def paint(name: str, **options: object) -> np.ndarray:
        options = {"size": "203x131", "model": str(getattr(world, kind)), "grid": world.grid("slide")} | options
        return pixels_of(run(world, "slide", tmp_path / f"{name}.png", **options).out)

    image = paint("a")
    assert np.abs(paint("b", batch=1) - image).max() <= 1 and np.abs(paint("c", batch=7) - image).max() <= 1
    assert np.array_equal(paint("d"), image)
    for name, option in (("seed", {"seed": 1}), ("grid", {"grid": world.grid("map")}), ("guidance", {"guidance": 4}),
                       ("steps", {"steps": 4}), ("update", {"update": "ancestral"})):  # fmt: skip
        assert np.abs(paint(name, **option) - image).max() > 1, name


def test_the_bundle_says_what_the_user_leaves_open(world: World, tmp_path: Path) -> None:
    assert run(world, "map", tmp_path / "a.png", dry_run=True).steps == 3
    assert run(world, "map", tmp_path / "a.png", dry_run=True, steps=7).steps == 7
    calls = [run(world, "map", tmp_path / "a.png", dry_run=True, guidance=w).network_calls for w in (1.0, 0.0, 2.0)]
    assert calls[0] < calls[1] == calls[2]
    assert "trained at" in run(world, "map", tmp_path / "a.png", dry_run=True).remarks[0]  # 0.2 m/px; it was at 0.15


def test_a_few_step_bundle_brings_its_times_and_calls_the_network_once_a_step(world: World, tmp_path: Path) -> None:
    painting_bundle(tmp_path / "few", sampling=Sampling(times=(1.0, 0.75, 0.5, 0.25)))
    few = {"model": str(tmp_path / "few"), "size": "128"}
    report = run(world, "map", tmp_path / "a.png", **few)
    assert report.steps == report.network_calls == 4 and report.windows == 1
    facts = json.loads(Image.open(report.out).text["Description"])
    assert (facts["update"], facts["guidance"], facts["times"]) == ("renoise", 1.0, [1.0, 0.75, 0.5, 0.25])
    for steps in (1, 3, 9):
        assert run(world, "map", tmp_path / f"{steps}.png", steps=steps, **few).network_calls == steps
    image = pixels_of(report.out)
    assert np.abs(pixels_of(run(world, "map", tmp_path / "b.png", batch=1, **few).out) - image).max() <= 1
    assert np.abs(pixels_of(tmp_path / "3.png") - image).max() > 1


def test_neighbouring_regions_meet_without_a_seam(world: World, tmp_path: Path) -> None:
    """One step of a model of halo 32 needs 32 latents around; more steps would need more, at falling weight."""
    for name, region in (("whole", "0,0,500,300"), ("left", "0,0,216,300"), ("right", "216,0,284,300")):
        run(world, "map", tmp_path / f"{name}.png", region=region, steps=1)
    whole, left, right = (pixels_of(tmp_path / f"{name}.png") for name in ("whole", "left", "right"))
    assert np.abs(np.concatenate([left, right], 1) - whole).max() <= 1
    for name, region in (("left", "0,0,203,300"), ("right", "203,0,297,300"), ("whole", "0,0,500,300")):
        run(world, "map", tmp_path / f"{name}8.png", region=region, steps=8)
    whole, left, right = (pixels_of(tmp_path / f"{name}8.png") for name in ("whole", "left", "right"))
    assert np.abs(np.concatenate([left, right], 1) - whole)[:, 195:211].mean() < 0.5


@pytest.mark.parametrize("kind", ["bundle", "window_bundle"])
def test_glass_is_free_and_looks_like_the_slide(kind: str, world: World, tmp_path: Path) -> None:
    report = run(world, "slide", tmp_path / "a.png", model=str(getattr(world, kind)))
    everything = run(world, "map", tmp_path / "b.png", model=str(getattr(world, kind)), size="640x448", dry_run=True)
    assert report.network_latents < (0.6 if kind == "window_bundle" else 1.01) * everything.network_latents
    background = pixels_of(report.out)[:40, 424:].reshape(5, 8, 27, 8, 3)
    assert background.std(axis=(0, 2)).max() == 0  # the same latent everywhere
    assert np.abs(background.mean(axis=(0, 1, 2, 3)) - BACKGROUND).max() < 5
    assert pixels_of(report.out)[200:400, 50:200].std() > 5


def test_debris_on_glass_is_painted_and_costs_what_it_takes(tmp_path: Path) -> None:
    """Too little for a cell of tissue, in one of 12 x 9 cells; by the built-in model, which knows its colours."""
    clear = np.full((576, 768, 3), BACKGROUND, np.uint8)
    with_debris = clear.copy()
    with_debris[200:212, 210:245] = (120, 60, 130)
    painted, latents = [], []
    for name, pixels in (("clear", clear), ("debris", with_debris)):
        source, grid = tmp_path / f"{name}.ome.tif", tmp_path / f"{name}.zarr"
        pixels[500:, 600:] = np.random.default_rng(0).integers((120, 40, 120), (200, 120, 200), (76, 168, 3))
        with open_writer(source, ImageSpec(Size(576, 768), Resolution(0.5, "um"))) as writer:
            writer.write(pixels)
        embed([source], EmbedSettings(out=grid))
        assert EmbeddingGrid.open(grid).read().valid[3, 3] == Validity.BACKGROUND
        report = generate(GenerateSettings(grid=grid, out=tmp_path / f"{name}.png", model="tiny", device="cpu"))
        painted.append(pixels_of(report.out))
        latents.append(report.network_latents)
    assert painted[1][200:212, 210:245].mean() < painted[0][200:212, 210:245].mean() - 40
    assert np.abs(painted[1][:60, :60] - BACKGROUND).max() < 5 and latents[0] < latents[1]


def test_background_without_embeddings_is_filled_with_that_of_a_plain_tile(world: World, tmp_path: Path) -> None:
    cells = EmbeddingGrid.open(world.grid("tissue")).read()
    assert not cells.embedding[cells.valid == Validity.BACKGROUND].any()
    embed(
        [world.folder / "slide.ome.tif"], EmbedSettings(model=str(world.bundle), out=tmp_path / "full.zarr", stride=32)
    )
    sparse = pixels_of(run(world, "tissue", tmp_path / "a.png").out)
    full = pixels_of(run(world, "tissue", tmp_path / "b.png", grid=tmp_path / "full.zarr").out)
    assert np.abs(sparse - full).mean() < 3


# Going on


class Stop:
    """A progress callback that interrupts once ``stage`` is ``share`` done, and remembers what it saw."""

    def __init__(self, stage: str = "", share: float = 2.0) -> None:
        self.stage, self.share, self.seen = stage, share, list[tuple[str, float]]()

    def __call__(self, stage: str, done: float, total: float) -> None:
        self.seen.append((stage, done / total))
        if stage == self.stage and done / total >= self.share:
            raise Interrupted("stopped", 15)


@pytest.mark.parametrize("suffix", [".png", ".ome.tif"])
@pytest.mark.parametrize("kind", ["bundle", "window_bundle"])
def test_an_interrupted_run_goes_on_to_the_same_bytes(kind: str, suffix: str, world: World, tmp_path: Path) -> None:
    options = {"size": "96x2309", "model": str(getattr(world, kind)), "steps": 3}  # two bands
    straight = run(world, "map", tmp_path / f"straight{suffix}", **options)
    out = tmp_path / f"a{suffix}"
    for stage, share in (("paint", 0.4), ("develop", 0.7)):
        with pytest.raises(Interrupted):
            run(world, "map", out, Stop(stage, share), **options)
        assert not out.exists() and unfinished_image(out).is_dir()
    last = Stop()
    run(world, "map", out, last, **options)
    assert {stage for stage, _ in last.seen} == {"develop"} and min(share for _, share in last.seen) > 0.7
    assert np.array_equal(tifffile.imread(out) if suffix != ".png" else pixels_of(out),
                          tifffile.imread(straight.out) if suffix != ".png" else pixels_of(straight.out))  # fmt: skip
    assert not unfinished_image(out).exists()


def test_an_unfinished_run_of_other_settings_is_not_continued(world: World, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(world, "map", tmp_path / "a.png", Stop("develop", 0.5), size="96x1301", steps=2)
    with pytest.raises(TilegenError, match="--restart"):
        run(world, "map", tmp_path / "a.png", size="96x1301", steps=2, seed=1)
    run(world, "map", tmp_path / "a.png", size="96x1301", steps=2, seed=1, restart=True)
    run(world, "map", tmp_path / "b.png", size="96x1301", steps=2, seed=1)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_preview_is_the_picture_made_small(world: World, tmp_path: Path) -> None:
    for suffix in (".tif", ".zarr"):
        out = tmp_path / f"of{suffix[1:]}{suffix}"  # two outputs of one stem would share a preview, and are refused
        report = run(world, "map", out, size="2100x64", fit="stretch", steps=1, preview=True)
        whole = run(world, "map", tmp_path / "whole.png", size="2100x64", fit="stretch", steps=1, overwrite=True).out
        small = np.asarray(Image.open(whole).resize((1024, 31), Image.Resampling.BOX)).astype(int)
        assert report.preview and np.abs(pixels_of(report.preview) - small).mean() < 6


def test_a_dry_run_writes_nothing(world: World, tmp_path: Path) -> None:
    report = run(world, "map", tmp_path / "deep" / "a.tif", dry_run=True)
    assert report.status == "planned" and not list(tmp_path.iterdir())
    assert report.network_calls and report.memory_mib and report.disk_mib and "nothing was written" in report.line()
    assert report.windows and report.estimated_s and " a step" in report.line()


# What goes wrong


def other_encoder(world: World, tmp_path: Path) -> dict[str, object]:
    embed([world.folder / "map.tif"],
          EmbedSettings(model=str(encoder_bundle(tmp_path / "other", seed=9)), out=tmp_path / "g.zarr"))  # fmt: skip
    return {"grid": tmp_path / "g.zarr"}


def broken_grid(world: World, tmp_path: Path) -> dict[str, object]:
    (Path(shutil.copytree(world.grid("map"), tmp_path / "g.zarr")) / "zarr.json").write_text("{")
    return {"grid": tmp_path / "g.zarr"}


def there_already(world: World, tmp_path: Path) -> dict[str, object]:
    (tmp_path / "there.png").write_text("mine")
    return {"out": tmp_path / "there.png"}


def no_folder(world: World, tmp_path: Path) -> dict[str, object]:
    (tmp_path / "file").write_text("")
    return {"out": tmp_path / "file" / "a.png"}


def no_weights(world: World, tmp_path: Path) -> dict[str, object]:
    shutil.copytree(world.bundle, tmp_path / "b")
    (tmp_path / "b" / "denoiser" / "diffusion_pytorch_model.safetensors").unlink()
    return {"model": str(tmp_path / "b")}


def encoder_only(world: World, tmp_path: Path) -> dict[str, object]:
    return {"model": str(encoder_bundle(tmp_path / "b"))}


def other_dim(world: World, tmp_path: Path) -> dict[str, object]:
    shutil.copytree(world.bundle, tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "encoder")
    from ssl_tilegen.bundle import EncoderInfo

    update_info(tmp_path / "b", encoder=EncoderInfo(id="stub-0", tile_px=64, dim=DIM + 1))
    return {"model": str(tmp_path / "b")}


def given(**options: object) -> Callable[[World, Path], dict[str, object]]:
    return lambda world, tmp_path: options


BAD = {
    "a grid of another encoder": (other_encoder, "made by encoder stub-9.*stub-0.*embed the source"),
    "a grid of another dimension": (other_dim, f"{DIM}-d.*{DIM + 1}-d"),
    "a broken grid": (broken_grid, "g.zarr.*embed"),
    "no grid": (given(grid=Path("/no/such.zarr")), "/no/such.zarr: no such grid"),
    "no bundle": (given(model="/no/such"), "not a model bundle"),
    "no weights": (no_weights, "denoiser.*weights"),
    "a bundle that only embeds": (encoder_only, "incomplete"),
    "smaller than a window": (given(size="63x200"), f"--size 63 x 200.*{WINDOW_PX}"),
    "a crop larger than the grid": (given(size="2000", fit="crop"), "--fit crop.*500 x 300.*stretch"),
    "a region beyond the canvas": (given(region="450,0,64,64"), "--region 450,0,64,64.*500 x 300"),
    "a negative region": (given(region="-1,0,64,64"), "--region -1,0,64,64"),
    "two sizes": (given(size="128", region="0,0,64,64"), "leave out --size"),
    "an existing output": (there_already, "there.png.*--overwrite"),
    "a folder that cannot be written": (no_folder, "file.*another"),
    "an unknown suffix": (given(out=Path("a.bmp")), "a.bmp.*unknown kind.*.ome.tif"),
    "no suffix": (given(out=Path("a")), "unknown kind"),
    "no such device": (given(device="cuda:99"), "--device cuda:99"),
    "merge of another kind": (given(merge="whole", model="window"), "merge 'whole'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_done_is_said_in_one_line_and_leaves_nothing(
    case: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD[case]
    spoilt = make(world, tmp_path)
    if spoilt.get("model") == "window":
        spoilt["model"] = str(world.window_bundle)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TilegenError, match=message) as caught:
        run(world, "map", **({"out": tmp_path / "a.png"} | spoilt))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_grid_that_shows_nothing(world: World, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((130, 200, 4), np.uint8)).save(tmp_path / "a.png")
    embed([tmp_path / "a.png"], EmbedSettings(model=str(world.bundle), gsd=0.15))
    with pytest.raises(TilegenError, match=r"a.zarr: no cell shows anything"):
        run(world, "a", tmp_path / "b.png", grid=tmp_path / "a.zarr")


def test_the_command_line(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "generate",
        "--grid",
        str(world.grid("map")),
        "--model",
        str(world.bundle),
        "-o",
        str(tmp_path / "a.tif"),
    ]
    for more, code in ((["--size", "128", "--json"], 0), ([], 1), (["--guidance-interval", "0.9,0.1"], 2)):
        with pytest.raises(SystemExit) as caught:
            main([*command, *more])
        out, err = capsys.readouterr()
        assert (caught.value.code or 0) == code and "Traceback" not in err
        if code == 0:
            report = json.loads(out)
            assert report["status"] == "done" and report["size"] == [128, 128] and out.count("\n") == 1


@pytest.mark.parametrize(("kind", "options", "is_said"), [
    ("picture", {"size": "448x384"}, True),
    ("picture", {"size": "448x384", "layout": "free"}, False),
    ("picture", {"size": "220x140"}, False),
    ("map", {"size": "1000x600"}, False),
])  # fmt: skip
def test_what_is_stretched_with_the_grid_is_said_where_no_scale_tells_it(
    kind: str, options: dict, is_said: bool, world: World, tmp_path: Path
) -> None:
    grid = tmp_path / "grid.zarr"
    source = world.folder / {"picture": "picture.png", "map": "map.tif"}[kind]
    embed([source], EmbedSettings(model="tiny", out=grid, **({"mpp": 0.5} if kind == "picture" else {})))
    report = run(world, kind, tmp_path / "a.png", grid=grid, model="tiny", dry_run=True, **options)
    assert any("--layout free" in remark for remark in report.remarks) == is_said


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file systems that hold no name but UTF-8")
@pytest.mark.parametrize("suffix", [".png", ".ome.tif"])
def test_a_grid_whose_name_is_not_utf8_is_recorded_escaped(world: World, tmp_path: Path, suffix: str) -> None:
    odd = tmp_path / os.fsdecode(b"odd_\xff.zarr")
    shutil.copytree(world.grid("slide"), odd)
    out = odd.with_suffix(suffix)
    generate(GenerateSettings(grid=odd, out=out, model=str(world.bundle), size=128, preview=True))
    record = json.loads(out.with_name(f"{out.name}.json").read_text(encoding="utf-8"))["provenance"]
    assert record["grid"] == r"odd_\udcff.zarr"
