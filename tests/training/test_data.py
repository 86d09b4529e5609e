"""What windows are made of: splits, memory, colours, grids beside the images; pretrained encoders and probes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models import save_for_hf

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.config.train import DataSettings, SourceSettings, load_stage_settings
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.encoders.timm_encoder import load_timm_encoder
from ssl_tilegen.errors import FormatError, InputError, SettingError
from ssl_tilegen.geometry import Window
from ssl_tilegen.training.data.colour_jitter import jittered_colours
from ssl_tilegen.training.data.corpus import load_corpus
from ssl_tilegen.training.data.latent_cache import embedded_grid, scenes_of
from ssl_tilegen.training.objectives.dino import balanced, spread_out
from ssl_tilegen.workflows.embed.run import embed
from ssl_tilegen.workflows.train import train
from tests.training import runs


def data(folder: Path, *names: str, **more: object) -> DataSettings:
    paths = [str(folder / name) for name in names or ("*.png",)]
    return DataSettings(sources=[SourceSettings(paths=paths, mpp=0.5)], **more)  # type: ignore[arg-type]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    runs.draw_images(tmp_path, 8)
    return tmp_path


def test_windows_are_the_same_whether_images_are_held_or_read_window_by_window(images):
    held, viewed = load_corpus(data(images)), load_corpus(data(images, memory_mib=1))
    assert all(p.in_memory for p in held.images)
    for path in images.glob("*.png"):  # more than the cap
        Image.open(path).resize((640, 544)).save(path)
    held, viewed = load_corpus(data(images)), load_corpus(data(images, memory_mib=1))
    assert sum(p.in_memory for p in viewed.images) == 1 and viewed.nbytes <= 1 << 20 < held.nbytes
    for seed in range(20):
        a, b = (corpus.crop(np.random.default_rng(seed), 64) for corpus in (held, viewed))
        assert np.array_equal(a, b)


def test_a_real_slide_read_by_windows_shows_tissue_not_glass(data_dir):
    source = SourceSettings(paths=[str(data_dir / "slides" / "*.svs")], mpp=0.499)
    corpus = load_corpus(DataSettings(sources=[source], memory_mib=1, flat_keep=0.0))
    assert not corpus.images[0].in_memory
    windows = [corpus.sample(np.random.default_rng(seed), 128) for seed in range(20)]
    assert all(window.std() > 6 for window in windows)


def test_groups_go_to_one_side_whole_and_stay_there(images):
    for number in range(40):
        for copy in range(2):
            Image.new("RGB", (64, 64)).save(images / f"g{number:03d}_{copy}.png")
    names = [f"g{number:03d}_*.png" for number in range(40)]
    corpus = load_corpus(data(images, *names, group="g[0-9]+", validation_share=0.3))
    assert corpus.validation is not None
    groups = [{p.path.name[:4] for p in side.images} for side in (corpus, corpus.validation)]
    assert not groups[0] & groups[1] and 4 <= len(groups[1]) <= 20 and len(groups[0] | groups[1]) == 40
    fewer = load_corpus(data(images, *names[:20], group="g[0-9]+", validation_share=0.3))
    assert fewer.validation and {p.path.name[:4] for p in fewer.validation.images} <= groups[1]
    with pytest.raises(SettingError, match="no regular expression"):
        load_corpus(data(images, group="g[", validation_share=0.3))


def test_a_source_of_role_validation_is_never_trained_on(images):
    own = [SourceSettings(paths=[str(images / "p0.png")], mpp=0.5),
           SourceSettings(paths=[str(images / "p1.png")], mpp=0.5, role="validation")]  # fmt: skip
    corpus = load_corpus(DataSettings(sources=own))
    assert [p.path.name for p in corpus.images] == ["p0.png"]
    assert corpus.validation and [p.path.name for p in corpus.validation.images] == ["p1.png"]
    assert corpus.fingerprint()["validation"]["files"][0]["name"] == "p1.png"
    with pytest.raises(InputError, match="every image is kept for validation"):
        load_corpus(DataSettings(sources=own[1:]))


def test_stain_jitter_moves_stains_and_leaves_glass_and_layout(data_dir):
    path = next((data_dir / "tiles" / "he" / "train").rglob("*.jpg"))
    tile = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(jittered_colours(np.random.default_rng(0), tile, 0, 0), tile)
    changed = jittered_colours(np.random.default_rng(0), tile, 0.1, 0)
    assert 0.5 < np.abs(changed.astype(int) - tile).mean() < 40
    assert np.corrcoef(changed.mean(2).ravel(), tile.mean(2).ravel())[0, 1] > 0.97
    many = [jittered_colours(np.random.default_rng(seed), tile, 0, 0.2) for seed in range(8)]
    ratios = np.stack([one.mean((0, 1)) / tile.mean((0, 1)) for one in many])
    assert np.ptp(ratios, axis=1).max() < 0.06 and 0.05 < ratios.mean(1).std() < 0.2


def test_stain_jitter_leaves_colours_that_no_stain_makes():
    colours = np.array([[[30, 120, 40], [40, 90, 160], [240, 200, 80], [255, 255, 255], [12, 12, 12]]], np.uint8)
    assert np.array_equal(jittered_colours(np.random.default_rng(0), colours, 1e-9, 0), colours)
    for seed in range(20):
        changed = jittered_colours(np.random.default_rng(seed), colours, 0.05, 0)
        assert np.abs(changed.astype(int) - colours).max() < 45


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("grids")
    runs.draw_images(folder, 2)
    for stage in ("encoder", "autoencoder"):
        train(stage, runs.write_config(folder, stage), folder / "run", device="cpu")
    return folder


def test_a_grid_beside_an_image_tells_what_embedding_it_on_the_way_tells(base, tmp_path):
    model = base / "run" / "bundle"
    for name in ("p0", "p1"):
        embed([base / f"{name}.png"], EmbedSettings(out=base / f"{name}.zarr", model=str(model), mpp=0.5))
    config = runs.write_config(base, "denoiser", data=runs.DATA + 'grids = "{stem}.zarr"\n', name="denoiser-grids")
    settings, bundle = load_stage_settings("denoiser", config), ModelBundle.load(model)
    corpus = load_corpus(settings.data)
    scenes = scenes_of(corpus, bundle, settings, tmp_path, lambda text: None)
    encoder = BundleEncoder(bundle)
    for scene, image in zip(scenes, corpus.images, strict=True):
        rgb, _ = image.take(Window.of(image.size))
        fresh = embedded_grid(encoder, rgb, (0, 0))
        rows, cols, _ = fresh.cells.shape  # of whole cells; the grid has partial ones beside them
        cells = scene.grids[0].cells[:rows, :cols]
        assert cells.shape == fresh.cells.shape and scene.grids[0].corner_px == (0, 0)
        assert np.allclose(cells.astype(float), fresh.cells.astype(float), atol=2e-3)
    train("denoiser", config, tmp_path / "run", overrides=[f'bundle="{model}"'], device="cpu")
    assert len(runs.losses(tmp_path / "run" / "denoiser")) == 4


def test_a_grid_of_another_encoder_or_image_is_refused(base, tmp_path):
    runs.draw_images(tmp_path, 1)
    Image.open(base / "p0.png").resize((96, 96)).save(tmp_path / "q.png")
    model = str(base / "run" / "bundle")
    embed([tmp_path / "q.png"], EmbedSettings(out=tmp_path / "p0.zarr", model=model, mpp=0.5))
    config = runs.write_config(tmp_path, "denoiser", data=runs.DATA.replace("*", "p0") + 'grids = "{stem}.zarr"\n')
    with pytest.raises(FormatError, match="is it of another image"):
        train("denoiser", config, tmp_path / "run", overrides=[f'bundle="{model}"'], device="cpu")
    embed([tmp_path / "p0.png"], EmbedSettings(out=tmp_path / "p0.zarr", model="tiny", mpp=0.5, overwrite=True))
    with pytest.raises(FormatError, match="embed the image with this bundle"):
        train("denoiser", config, tmp_path / "run", overrides=[f'bundle="{model}"'], device="cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A small ViT as timm saves it for a hub."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2}
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes)
    folder = tmp_path_factory.mktemp("hub") / "small-vit"
    save_for_hf(net, str(folder), model_args=sizes)
    return folder


def test_a_pretrained_encoder_is_taken_into_the_bundle_as_it_is(images, saved):
    out = images / "run"
    config = runs.write_config(images, "encoder")
    train("encoder", config, out, overrides=[f"pretrained='local-dir:{saved}'"], device="cpu")
    bundle = ModelBundle.load(out / "bundle")
    ours, theirs = BundleEncoder(bundle), load_timm_encoder(f"local-dir:{saved}")
    tiles = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
    assert np.allclose(ours.embed(tiles), theirs.embed(tiles), atol=1e-6)
    assert (bundle.info.encoder.id, bundle.info.encoder.dim) == ("small-vit", 24)
    assert str(saved.parent) not in (out / "bundle" / "encoder" / "config.json").read_text()
    for stage in ("autoencoder", "denoiser"):
        train(stage, runs.write_config(images, stage), out, device="cpu")
    assert ModelBundle.load(out / "bundle").has("denoiser")


def test_a_probe_tells_classes_that_differ_from_ones_that_do_not(images):
    rng = np.random.default_rng(0)
    for name, colours in (("easy", ((200, 60, 60), (60, 60, 200))), ("none", ((120, 120, 120), (120, 120, 120)))):
        for side in ("train", "test"):
            for label, colour in enumerate(colours):
                folder = images / name / side / str(label)
                folder.mkdir(parents=True)
                for i in range(6):
                    noise = rng.integers(-40, 40, (64, 64, 3)) + np.array(colour)
                    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    found = {}
    for name in ("easy", "none"):
        probe = f'[probe]\ntrain = "{name}/train"\ntest = "{name}/test"\n'
        text = runs.ENCODER.replace("[arch_args]", f"{probe}[arch_args]")
        train("encoder", runs.write_config(images, "encoder", text), images / f"run-{name}", device="cpu")
        lines = (images / f"run-{name}" / "encoder" / "log.jsonl").read_text().splitlines()
        found[name] = json.loads(lines[-1])
    assert found["easy"]["knn_probe"] == 1.0 and found["easy"]["linear_probe"] == 1.0
    assert found["none"]["knn_probe"] < 0.9


def test_self_distillation_lowers_its_loss_and_moves_its_teacher(images):
    over = ["run.steps=30", "run.log_every=5", "run.sample_every=30", "run.save_every=30", "teacher_decay=0.9"]
    config = runs.write_config(images, "encoder", runs.DINO)
    train("encoder", config, images / "run", overrides=over, device="cpu")
    values = runs.losses(images / "run" / "encoder")
    assert values[-1] < values[0]
    lines = [json.loads(line) for line in (images / "run" / "encoder" / "log.jsonl").read_text().splitlines()]
    assert lines[-2]["patches"] < lines[0]["patches"] and lines[-1]["effective_rank"] > 2
    kept = load_file(images / "run" / "encoder" / "checkpoint" / "weights.safetensors")
    names = [name for name in kept if name.startswith("net.blocks")]
    assert any(not torch.equal(kept[f"teacher.0.{name[4:]}"], kept[name]) for name in names)
    assert ModelBundle.load(images / "run" / "bundle").info.encoder.dim == 12


def test_a_run_leaves_its_curves_its_data_and_its_settings(images):
    train("autoencoder", runs.write_config(images, "autoencoder"), images / "run", device="cpu")
    folder, record = images / "run" / "autoencoder", images / "run" / "bundle" / "training" / "autoencoder.json"
    curves = np.asarray(Image.open(folder / "curves.png").convert("RGB"))
    assert (curves == (31, 78, 140)).all(-1).sum() > 200
    facts = json.loads(record.read_text())
    assert facts["settings"]["window_px"] == 32 and facts["images"] == 8 and str(images) not in record.read_text()
    assert facts["data_sha256"] == json.loads((folder / "data.json").read_text())["sha256"]


def test_the_held_out_images_make_the_figures(images):
    corpus = load_corpus(data(images, validation_share=0.4))
    assert corpus.validation is not None and corpus.held_out is corpus.validation
    assert replace(corpus, validation=None).held_out.images is corpus.images


def test_balanced_distributions_use_all_prototypes_alike():
    torch.manual_seed(0)
    logits = 0.1 * torch.randn(256, 8) + torch.tensor([0.3, *[0.0] * 7])  # all prefer the first
    q = balanced(logits)
    assert torch.allclose(q.sum(1), torch.ones(256), atol=1e-5)
    assert (q.mean(0) - 1 / 8).abs().max() < 0.04 and (logits / 0.04).softmax(1).mean(0)[0] > 0.8
    scaling = q.log() - logits / 0.04  # of rows and columns only
    rest = scaling - scaling.mean(0) - scaling.mean(1, keepdim=True) + scaling.mean()
    assert rest.abs().max() < 1e-3


def test_koleo_pushes_the_nearest_apart():
    z = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=1).requires_grad_()
    loss = spread_out(z)
    loss.backward()
    moved = (z - 0.1 * z.grad).detach()
    assert float(spread_out(moved)) < float(loss)
