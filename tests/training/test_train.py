"""The three stages one after the other, through the command's own function, into a bundle that embeds and paints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EmbedSettings, GenerateSettings
from ssl_tilegen.config.train import load_stage_settings
from ssl_tilegen.errors import InputError, SettingError
from ssl_tilegen.training.data.corpus import load_corpus
from ssl_tilegen.training.data.latent_cache import scenes_of
from ssl_tilegen.workflows.embed.run import embed
from ssl_tilegen.workflows.generate.run import generate
from ssl_tilegen.workflows.train import train

DATA = '[data]\n[[data.sources]]\npaths = ["*.png"]\nmpp = 0.5\nturns = 2\n'
RUN = "[run]\nsteps = 3\nbatch = 4\nlog_every = 1\nsave_every = 3\nsample_every = 3\n"
ENCODER = (
    "tile_px = 32\nfeatures = 12\ndim = 12\nlayout_dim = 6\nlocal_px = 16\nfit_tiles = 200\n"
    "[arch_args]\npatch_size = 8\ndepth = 1\nembed_dim = 24\nnum_heads = 2\n"
)
AUTOENCODER = "window_px = 32\n[net]\nlatent_channels = 4\nfine_width = 16\nencoder_width = 16\ndecoder_width = 16\n"
DENOISER = "window_lat = 8\nmargin_lat = 1\n[net]\nwidths = [16, 16, 32]\nhidden = 16\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """The folder of the configurations and images, and that of the run."""
    folder = tmp_path_factory.mktemp("train")
    rng = np.random.default_rng(0)
    for number in range(3):
        coarse = rng.integers(0, 255, (20, 20, 3), np.uint8)
        Image.fromarray(coarse).resize((160, 136), Image.Resampling.BICUBIC).save(folder / f"p{number}.png")
    out = folder / "run"
    for stage, text in (("encoder", ENCODER), ("autoencoder", AUTOENCODER), ("denoiser", DENOISER)):
        (folder / f"{stage}.toml").write_text(f"{text}{RUN}{DATA}")
        train(stage, folder / f"{stage}.toml", out, device="cpu")
    return folder, out


def test_every_stage_leaves_its_log_samples_settings_and_component(trained):
    _, out = trained
    for stage in ("encoder", "autoencoder", "denoiser"):
        assert (out / stage / "settings.json").exists() and list((out / stage).glob("sample-*.png"))
        lines = [json.loads(line) for line in (out / stage / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
        assert ModelBundle.load(out / "bundle").has(stage)


def test_the_bundle_knows_what_it_was_trained_for(trained):
    info = ModelBundle.load(trained[1] / "bundle").info
    assert (info.encoder.tile_px, info.encoder.dim, info.stride_px, info.window_px) == (32, 12, [32], 64)
    assert info.resolutions == {"image": (0.5, "um")} and info.prediction_type == "flow"
    assert len(info.latent_mean) == len(info.latent_scale) == 4


def test_the_bundle_embeds_and_paints(trained, tmp_path):
    folder, out = trained
    model = str(out / "bundle")
    embed([folder / "p0.png"], EmbedSettings(out=tmp_path / "g.zarr", model=model, mpp=0.5))
    report = generate(GenerateSettings(grid=tmp_path / "g.zarr", out=tmp_path / "x.png", model=model, steps=2))
    assert report.size == (160, 136)
    exact = np.asarray(Image.open(tmp_path / "x.png"))
    assert exact.std() > 1
    generate(GenerateSettings(grid=tmp_path / "g.zarr", out=tmp_path / "y.png", model=model, steps=2, layout="free"))
    assert (np.asarray(Image.open(tmp_path / "y.png")) != exact).any()


def test_the_sketch_says_more_of_the_latents_than_their_mean(trained):
    folder, out = trained
    bundle = ModelBundle.load(out / "bundle")
    settings = load_stage_settings("denoiser", folder / "denoiser.toml")
    scenes = scenes_of(load_corpus(settings.data), bundle, settings, out / "denoiser" / "cache", lambda text: None)
    told = spread = 0.0
    for scene in scenes:
        (row, col), cells = scene.grids[0].corner_px, scene.grids[0].cells.astype(np.float32)
        with torch.no_grad():
            sketch = bundle.denoiser.decode_cells(torch.from_numpy(cells))
        sketch = sketch.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2).numpy()
        under = scene.latents[:, row // 8 :, col // 8 :][:, : sketch.shape[1], : sketch.shape[2]].astype(np.float32)
        mean, scale = (np.array(v)[:, None, None] for v in (bundle.info.latent_mean, bundle.info.latent_scale))
        clean = (under - mean) * scale
        told += np.square(clean - sketch).sum()
        spread += np.square(clean - clean.mean((1, 2), keepdims=True)).sum()
    assert told < 0.7 * spread


def test_layout_must_leave_room_for_content(trained):
    with pytest.raises(SettingError, match="layout_dim 12"):
        load_stage_settings("encoder", trained[0] / "encoder.toml", ["layout_dim=12"])


def test_the_latents_are_cached_once_and_cells_fit_their_pixels(trained):
    folder, out = trained
    settings = load_stage_settings("denoiser", folder / "denoiser.toml")
    corpus, bundle = load_corpus(settings.data), ModelBundle.load(out / "bundle")
    cache = out / "denoiser" / "cache"
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    scenes = scenes_of(corpus, bundle, settings, cache, lambda text: None)
    assert before == {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert len(scenes) == 3 * 2
    for scene in scenes:
        rows, cols = scene.dull.shape
        assert scene.latents.shape == (4, rows, cols) and {rows, cols} == {17, 20}
        for grid in scene.grids:
            last = [start + 32 * cells for start, cells in zip(grid.corner_px, grid.cells.shape, strict=False)]
            assert last[0] <= 8 * rows and last[1] <= 8 * cols


def test_warm_start_takes_the_weights_of_the_named_bundle(trained, tmp_path):
    folder, out = trained
    overrides = [f'bundle="{out / "bundle"}"', f'start_from="{out / "bundle"}"', "run.lr=1e-12", "run.warmup=0"]
    train("denoiser", folder / "denoiser.toml", tmp_path, overrides=overrides, device="cpu")
    ours = ModelBundle.load(tmp_path / "bundle").denoiser.state_dict()
    theirs = ModelBundle.load(out / "bundle").denoiser.state_dict()
    assert all(np.allclose(ours[key], theirs[key], atol=2e-3) for key in ours)


def test_a_denoiser_without_its_encoder_says_what_to_train_first(trained, tmp_path):
    with pytest.raises(InputError, match="ssl-tilegen train encoder"):
        train("denoiser", trained[0] / "denoiser.toml", tmp_path, device="cpu")
