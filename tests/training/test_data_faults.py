"""What a lab's images do to a run: moved weights, changed files, small ones, unknown and mixed resolutions, stops."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config.train import DataSettings, DenoiserSettings, SourceSettings, load_stage_settings
from ssl_tilegen.errors import InputError, Interrupted, ResolutionError, SettingError
from ssl_tilegen.geometry import Resolution, Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.base import Raster, ReadError
from ssl_tilegen.nets import timm_network
from ssl_tilegen.system.device import pick_device
from ssl_tilegen.training.data import latent_cache as cache
from ssl_tilegen.training.data.corpus import Corpus, load_corpus
from ssl_tilegen.training.data.latent_cache import LatentScene, scenes_of
from ssl_tilegen.training.data.latent_cache_key import cache_folder
from ssl_tilegen.training.data.window_sampler import WindowSampler
from ssl_tilegen.workflows.train import train
from tests.io import samples
from tests.training import runs


def source(*paths: Path, **more: object) -> SourceSettings:
    return SourceSettings(paths=[str(path) for path in paths], **{"mpp": 0.5, "turns": 2, **more})  # type: ignore[arg-type]


def settings(base: Path, *sources: SourceSettings) -> DenoiserSettings:
    known = load_stage_settings("denoiser", base / "denoiser.toml")
    assert isinstance(known, DenoiserSettings)
    return known.model_copy(update={"data": known.data.model_copy(update={"sources": list(sources)})})


@pytest.fixture(scope="module")
def bundle(base: Path) -> ModelBundle:
    return ModelBundle.load(base / "run" / "bundle")


def cached(asked: DenoiserSettings, bundle: ModelBundle, folder: Path) -> tuple[list[LatentScene], list[str]]:
    said: list[str] = []
    return scenes_of(load_corpus(asked.data), bundle, asked, folder, said.append), said


def files_in(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def with_data(asked: DenoiserSettings, changes: dict[str, Any]) -> DenoiserSettings:
    return asked.model_copy(update={"data": asked.data.model_copy(update=changes)})


def earlier_key(corpus: Corpus, bundle: ModelBundle, asked: DenoiserSettings) -> str:
    """The key as version 0.1.0 made it."""
    of_sources = {"__all__": {"paths", "exclude", "weight"}}
    options = asked.data.model_dump(
        exclude={"sources": of_sources, "flat_keep": True, "group": True, "validation_share": True}  # type: ignore[arg-type]
    )
    files = [(p.path, p.path.stat()) for p in corpus.images]
    known = [(path.name, [stat.st_size, stat.st_mtime_ns]) for path, stat in files]
    sizes = [((p.size.rows, p.size.cols), p.source) for p in corpus.images]
    hashes = [bundle.component_hash("encoder"), bundle.component_hash("autoencoder")]
    facts = [
        [(*a, *b) for a, b in zip(known, sizes, strict=True)],
        [],
        options,
        [asked.offsets, asked.run.seed, *hashes],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def shares(scenes: list[LatentScene]) -> np.ndarray:
    return np.bincount([scene.origin.image for scene in scenes], [scene.chance for scene in scenes])


def test_weights_count_though_latents_are_cached(base: Path, bundle: ModelBundle, tmp_path: Path) -> None:
    p0, p1 = base / "p0.png", base / "p1.png"
    even, _ = cached(settings(base, source(p0), source(p1)), bundle, tmp_path)
    before = files_in(tmp_path)
    odd, _ = cached(settings(base, source(p0), source(p1, weight=3)), bundle, tmp_path)
    assert files_in(tmp_path) == before
    assert shares(even) == pytest.approx([0.5, 0.5]) and shares(odd) == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize(
    ("of_source", "of_data", "is_new"),
    [
        ({"domain": "aerial"}, {}, False),
        ({"weight": 9}, {"flat_keep": 1.0, "memory_mib": 4000, "group": "p"}, False),
        ({"turns": 3}, {}, True),
        ({"mpp": 0.25}, {}, True),
        ({"shrink": 2}, {}, True),
        ({}, {"stain": 0.05}, True),
        ({}, {"brightness": 0.1}, True),
        ({}, {"memory_mib": 1}, True),  # the images no longer fit
    ],
)
def test_latents_are_computed_anew_only_where_they_differ(
    base: Path, bundle: ModelBundle, tmp_path: Path, of_source: dict[str, Any], of_data: dict[str, Any], is_new: bool
) -> None:
    for number in range(2):
        Image.fromarray(samples.texture(600, 600)).save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{number}.png" for number in range(2)]
    os.utime(files[1], ns=(0, 0))
    names = [
        cache_folder(tmp_path, load_corpus(asked.data).images, bundle, asked).name
        for asked in (settings(base, source(*files)), with_data(settings(base, source(*files, **of_source)), of_data))
    ]
    assert (names[0] != names[1]) == is_new


def test_the_role_of_a_source_is_no_part_of_the_cache_s_name(base: Path, bundle: ModelBundle, tmp_path: Path) -> None:
    train, apart = source(base / "p0.png"), source(base / "p1.png", role="validation")
    swapped = [train.model_copy(update={"role": "validation"}), apart.model_copy(update={"role": "train"})]
    one, other = settings(base, train, apart), settings(base, *swapped)
    held_out = load_corpus(one.data).validation
    assert held_out
    name = cache_folder(tmp_path, held_out.images, bundle, one)
    assert name == cache_folder(tmp_path, load_corpus(other.data).images, bundle, other)


def test_a_cache_of_an_earlier_version_is_found(base: Path, bundle: ModelBundle, tmp_path: Path) -> None:
    asked = settings(base, source(base / "p0.png"))
    made, _ = cached(asked, bundle, tmp_path)
    (folder,) = tmp_path.glob("latents-*")
    folder.rename(tmp_path / f"latents-{earlier_key(load_corpus(asked.data), bundle, asked)}")
    before = files_in(tmp_path)
    found, _ = cached(asked, bundle, tmp_path)
    assert files_in(tmp_path) == before and len(found) == len(made)


def test_a_changed_file_is_cached_anew(base: Path, bundle: ModelBundle, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    shades = []
    for shade in (0, 255):
        Image.fromarray(samples.texture(64, 64) // 2 + shade // 2).save(path)
        os.utime(path, ns=(0, shade))
        (scene, *_), _ = cached(settings(base, source(path)), bundle, tmp_path / "kept")
        shades.append(scene.latents.astype(np.float32))
    assert np.abs(shades[0] - shades[1]).max() > 0.1


def test_caching_that_was_stopped_goes_on_to_the_same_scenes(
    base: Path, bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.draw_images(tmp_path, 5)
    asked = settings(base, source(*(tmp_path / f"p{number}.png" for number in range(5)), turns=8))
    whole, _ = cached(asked, bundle, tmp_path / "whole")
    monkeypatch.setattr(cache, "_PER_FILE", 2)
    seen = iter(range(100))

    def stop(what: str) -> None:
        if next(seen) == 20:  # nine times an image
            raise Interrupted(what, 15)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(cache, "check_stop", stop)
        cached(asked, bundle, tmp_path / "parts")
    counted: list[tuple[int, int]] = []
    areas = [image.size.area * 8 for image in load_corpus(asked.data).images]
    parts = scenes_of(load_corpus(asked.data), bundle, asked, tmp_path / "parts", lambda text: None,
                      lambda done, total: counted.append((done, total)))  # fmt: skip
    assert counted[0] == (sum(areas[:2]), sum(areas)) and counted[-1] == (sum(areas), sum(areas))
    assert counted == sorted(counted) and len(set(counted)) == 3 * 8 + 1
    assert len(parts) == len(whole) == 40
    for one, other in zip(parts, whole, strict=True):
        assert one.origin == other.origin and np.array_equal(one.latents, other.latents)
        assert all(np.array_equal(a.cells, b.cells) for a, b in zip(one.grids, other.grids, strict=True))


def test_images_smaller_than_a_cell_are_left_out_and_said(base: Path, bundle: ModelBundle, tmp_path: Path) -> None:
    Image.new("RGB", (20, 200)).save(tmp_path / "thin.png")
    scenes, said = cached(settings(base, source(base / "p0.png", tmp_path / "thin.png")), bundle, tmp_path / "kept")
    assert {scene.origin.image for scene in scenes} == {0}
    assert any(line.startswith("1 of 2 images are smaller than a cell") for line in said)
    with pytest.raises(InputError, match=r"no training image is as large as a cell \(32 px\)"):
        cached(settings(base, source(tmp_path / "thin.png")), bundle, tmp_path / "kept")


def test_images_that_show_nothing_end_the_run(base: Path, bundle: ModelBundle, tmp_path: Path) -> None:
    Image.new("RGB", (80, 80), (240, 240, 240)).save(tmp_path / "glass.png")
    blank = DataSettings(sources=[source(tmp_path / "glass.png")], flat_keep=0)
    with pytest.raises(InputError, match=r"data\.flat_keep"):
        load_corpus(blank).sample(np.random.default_rng(0), 32)
    asked = settings(base).model_copy(update={"data": blank})
    scenes, _ = cached(asked, bundle, tmp_path / "kept")
    with pytest.raises(InputError, match=r"data\.flat_keep"):
        WindowSampler(scenes, 8, 0)(np.random.default_rng(0))


def test_a_tiff_that_does_not_say_its_resolution_is_read_as_the_source_says(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples.texture(96, 96), photometric="rgb")
    corpus = load_corpus(DataSettings(sources=[source(tmp_path / "a.tif")]))
    assert corpus.images[0].resolution == Resolution(0.5, "um") and corpus.images[0].size.rows == 96


def opened_by(monkeypatch: pytest.MonkeyPatch) -> list[list[bool]]:
    """Of each raster that is opened for training from now on, whether it was closed."""
    closed: list[list[bool]] = []

    def opened(*given: Any, **options: Any) -> Raster:
        raster, mark = open_raster(*given, **options), [False]
        close = raster.close
        closed.append(mark)
        monkeypatch.setattr(raster, "close", lambda: (mark.__setitem__(0, True), close())[1])
        return raster

    monkeypatch.setattr("ssl_tilegen.training.data.images.open_raster", opened)
    return closed


@pytest.mark.parametrize("memory_mib", [1, 8192], ids=["streamed", "in memory"])
def test_a_damaged_tile_is_no_part_of_the_data_and_the_rest_is(tmp_path: Path, memory_mib: int) -> None:
    image = np.full((1024, 1024, 3), 240, np.uint8)
    image[100:900, 100:900] = (190, 110, 160)
    path = samples.write_damaged_slide(tmp_path / "a.tif", image, slice(27, 28))  # row and column 3
    (read,) = load_corpus(DataSettings(sources=[source(path)], memory_mib=memory_mib)).images
    assert read.in_memory == (memory_mib > 1)
    _, valid = read.take(Window(384, 384, 128, 128))
    assert valid is not None and not valid.any()
    rgb, valid = read.take(Window(640, 640, 128, 128))
    assert (valid is None or valid.all()) and np.abs(rgb.astype(int) - (190, 110, 160)).max() < 8
    if not read.in_memory:
        assert read.seems_empty(Window(384, 384, 128, 128)) and not read.seems_empty(Window(640, 640, 128, 128))


@pytest.mark.parametrize("memory_mib", [1, 8192], ids=["streamed", "in memory"])
def test_a_file_of_which_nothing_can_be_read_ends_the_run_and_is_closed(
    tmp_path: Path, memory_mib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = samples.write_damaged_slide(tmp_path / "a.tif", samples.texture(1024, 1024), slice(None))
    monkeypatch.setattr("ssl_tilegen.io.salvage._LEAST_PX", 512)
    closed = opened_by(monkeypatch)
    with pytest.raises(ReadError, match=r"a\.tif"):
        load_corpus(DataSettings(sources=[source(path)], memory_mib=memory_mib))
    assert closed == [[True], [True]]


def test_a_file_without_a_usable_resolution_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = samples.write_slide(tmp_path / "a.ome.tif", samples.texture(256, 256))
    tifffile.imwrite(tmp_path / "b.tif", samples.texture(96, 96), photometric="rgb")
    closed = opened_by(monkeypatch)
    for path, gsd, message in ((slide, 0.5, "cannot be read at"), (tmp_path / "b.tif", None, "is unknown")):
        with pytest.raises(ResolutionError, match=message):
            load_corpus(DataSettings(sources=[source(path, mpp=None, gsd=gsd)]))
    assert closed == [[True], [True]]


def test_slides_are_read_at_the_bundle_s_resolution_unless_told_otherwise(tmp_path: Path) -> None:
    slide = samples.write_slide(tmp_path / "a.ome.tif", samples.texture(256, 256), mpp=0.25)
    said: list[str] = []
    for mpp, usual, rows in ((None, None, 256), (None, 0.5, 128), (0.25, 0.5, 256)):
        bundles = {"he": Resolution(usual, "um")} if usual else {}
        asked = DataSettings(sources=[source(slide, mpp=mpp, domain="he")])
        assert load_corpus(asked, said.append, bundles).images[0].size.rows == rows
    (warning,) = [line for line in said if line.startswith("warning")]
    assert "domain he are read at 0.25 um/px to 0.5 um/px, the bundle is for 0.5 um/px" in warning


def test_a_share_that_keeps_nothing_apart_is_said(base: Path) -> None:
    said: list[str] = []
    asked = DataSettings(sources=[source(base / "p0.png")], validation_share=1e-6)
    assert load_corpus(asked, said.append).validation is None
    assert any("keeps none of 1 images apart" in line for line in said)


def test_a_run_says_when_its_images_have_changed_and_restarts_only_with_good_ones(tmp_path: Path) -> None:
    runs.draw_images(tmp_path, 2)
    config = runs.write_config(tmp_path, "autoencoder")
    said: list[str] = []
    for count in (2, 2, 3):
        runs.draw_images(tmp_path, count)
        report = lambda record: said.append(str(record.get("message", "")))  # noqa: E731
        train("autoencoder", config, tmp_path / "run", device="cpu", report=report)
    assert len([line for line in said if "with other images" in line]) == 1
    with pytest.raises(InputError, match="no training image"):
        train("autoencoder", config, tmp_path / "run", overrides=["data.sources.0.paths=['none']"], restart=True)
    assert (tmp_path / "run" / "autoencoder" / "checkpoint").is_dir()


@pytest.mark.parametrize(
    ("override", "message"),
    [("window_lat=10", "window_lat = 10: this network takes multiples of 4"), ("start_from='tiny'", "nothing of its")],
)
def test_a_network_that_cannot_be_is_one_line(base: Path, override: str, message: str, tmp_path: Path) -> None:
    model = f"bundle='{base / 'run' / 'bundle'}'"
    with pytest.raises(SettingError, match=message):
        train("denoiser", base / "denoiser.toml", tmp_path / "out", overrides=[model, override], device="cpu")


def test_a_run_without_images_leaves_no_folder(base: Path, tmp_path: Path) -> None:
    nothing = ["data.sources.0.paths=['none']"]
    with pytest.raises(InputError, match="no training image"):
        train("autoencoder", base / "autoencoder.toml", tmp_path / "out", overrides=nothing, device="cpu")
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_starts_from_the_built_in_one_is_not_taken_for_it(base: Path, tmp_path: Path) -> None:
    overrides = ["bundle='tiny'", "run.steps=1", "run.batch=1", "window_lat=8"]
    out = tmp_path / "mine"
    train("denoiser", base / "denoiser.toml", out, overrides=overrides, device="cpu")
    info = ModelBundle.load(out / "bundle").info
    assert info.name == "mine" and info.scores == {} and info.encoder == ModelBundle.load("tiny").info.encoder
    assert not (out / "bundle" / "CARD.md").exists()


@pytest.mark.parametrize("arch", ["deit_tiny_patch16_224", "beit_base_patch16_224", "swin_tiny_patch4_window7_224"])
def test_networks_of_other_families_take_tiles_of_the_side_asked(arch: str) -> None:
    small = {"depths": [1, 1, 1, 1]} if arch.startswith("swin") else {"depth": 1}
    assert timm_network(arch, 64, 8, small)(torch.zeros(1, 3, 64, 64)).shape == (1, 8)


@pytest.mark.parametrize(("rank", "name", "index"), [(0, "auto", 0), (3, "auto", 1), (1, "cuda", 1), (2, "cuda:1", 1)])
def test_a_process_knows_its_card_by_number(rank: int, name: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda.set_device refuses a device without one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device(name, rank) == torch.device("cuda", index)
