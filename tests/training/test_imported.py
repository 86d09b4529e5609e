"""Published models trained on: their encoder by name, their conditioner and null as in sampling, on real tissue."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.cli import main
from ssl_tilegen.config import EmbedSettings, GenerateSettings
from ssl_tilegen.encoders.bundle_encoder import encoder_of
from ssl_tilegen.errors import InputError, SettingError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.view import view_at
from ssl_tilegen.training.conditioning import conditioning_of
from ssl_tilegen.training.inherit import inherit
from ssl_tilegen.training.init_config import init_config
from ssl_tilegen.workflows.embed.run import embed
from ssl_tilegen.workflows.generate.run import generate
from ssl_tilegen.workflows.train import train
from tests.bundle.importers.families import DIM, IMPORTS, named_encoder, run_command
from tests.training.test_painter import BACKBONE

torch.set_num_threads(1)
SMALL = ["run.steps=2", "run.batch=2", "run.sample_every=9", "run.save_every=2", "run.readers=1", "offsets=1"]
SMALL += ["run.log_every=1", "run.warmup=0", "run.lr=0.001", 'run.precision="no"']
PAINTER = [*(line.replace(" = ", "=") for line in BACKBONE.splitlines()), "times=[1.0, 0.5]", "discriminator_width=8"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return named_encoder(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def tissue(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one piece of a real slide, at 0.5 um/px."""
    folder = tmp_path_factory.mktemp("tissue")
    with open_raster(data_dir / "slides" / "cmu-1-small-region.svs") as slide:
        piece = view_at(slide, Resolution(0.5, "um")).read(Window(900, 700, 264, 264))
    Image.fromarray(piece.rgb).save(folder / "tissue.png")
    return folder


def configured(stage: str, bundle: Path, images: Path, out: Path) -> Path:
    """What `train init` writes for images at the bundle's resolution, but for one turn of each instead of eight."""
    init_config(stage, str(bundle), images, out)
    text = out.read_text()
    assert text.count("# turns = 8") == 1
    out.write_text(text.replace("# turns = 8", "turns = 1"))
    return out


def losses_differ(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    assert before.keys() == after.keys()
    return any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("family", IMPORTS)
def test_a_denoiser_and_a_painter_are_trained_on_from_an_import(family, encoder, tissue, tmp_path):
    IMPORTS[family](tmp_path / "import", encoder)
    source, images = tmp_path / "import" / "bundle", tissue
    theirs = ModelBundle.load(source)
    for stage, more in (("denoiser", []), ("painter", PAINTER)):
        config = configured(stage, source, images, tmp_path / stage / f"{stage}.toml")
        assert tomllib.loads(config.read_text())["window_lat"] == theirs.window_lat
        train(stage, config, tmp_path / stage, overrides=[*SMALL, *more], device="cpu")
        ours = ModelBundle.load(tmp_path / stage / "bundle")
        assert losses_differ(theirs.denoiser.state_dict(), ours.denoiser.state_dict())
        kept = ("encoder", "conditioning", "window_px", "latent_mean", "latent_scale", "prediction_type", "time_scale")
        kept += ("exact_autoencoder", "l2_condition", "locality", "resolutions")
        assert all(getattr(ours.info, name) == getattr(theirs.info, name) for name in kept)
        same = ("conditioner", "autoencoder")
        assert all(ours.component_hash(name) == theirs.component_hash(name) for name in same)
        assert ours.info.recipes == ({} if stage == "painter" else theirs.info.recipes)
        painted(ours, images / "tissue.png", tmp_path / f"{stage}.png", steps=2)


FAST = (("encoder", "ldm"), ("autoencoder", "lid"), ("prior", "ldm"))
OTHERS = [pytest.param(stage, family, marks=() if (stage, family) in FAST else pytest.mark.slow)
          for stage in ("encoder", "autoencoder", "prior") for family in IMPORTS]  # fmt: skip


@pytest.mark.parametrize(("stage", "family"), OTHERS)
def test_the_other_stages_are_trained_from_an_import_too(stage, family, encoder, tissue, tmp_path):
    IMPORTS[family](tmp_path / "import", encoder)
    source, config = tmp_path / "import" / "bundle", tmp_path / "run" / f"{stage}.toml"
    said = Resolution(0.5, "um")
    init_config(stage, str(source), tissue, config, said)
    small = ["run.steps=2", "run.batch=2", "run.readers=1", "run.sample_every=9", 'run.precision="no"']
    small += ["net.width=16", "net.blocks=1", "turns=1", "window_cells=4"] if stage == "prior" else []
    train(stage, config, tmp_path / "run", overrides=small, device="cpu")
    theirs, ours = ModelBundle.load(source), ModelBundle.load(tmp_path / "run" / "bundle")
    assert ours.has(stage) and ours.info.encoder.dim == DIM
    if stage == "autoencoder":  # the latents are the same, so the rest of the bundle stays
        assert ours.component_hash("denoiser") == theirs.component_hash("denoiser")
        before, after = theirs.autoencoder.state_dict(), ours.autoencoder.state_dict()
        assert losses_differ(before, after)
        codes = "quantize.embedding.weight"
        assert codes not in before or torch.equal(before[codes], after[codes])  # in float32


def test_an_import_may_keep_its_encoder(encoder, tmp_path, capsys):
    """Then grids are those of the named one, and nothing asks for its weights."""
    IMPORTS["pixcell-256"](tmp_path / "named", encoder)
    weights = Path(encoder.removeprefix("local-dir:")) / "model.safetensors"
    more = ("--encoder", encoder, "--encoder-weights", weights)
    run_command("models", "import", tmp_path / "named" / "source", "-o", tmp_path / "kept", *more)
    named, kept = ModelBundle.load(tmp_path / "named" / "bundle"), ModelBundle.load(tmp_path / "kept")
    assert kept.has("encoder") and kept.info.encoder.input_px == 224 and "the encoder" in kept.info.licence
    tiles = np.random.default_rng(0).integers(0, 255, (2, 256, 256, 3), np.uint8)
    assert np.array_equal(encoder_of(named).embed(tiles), encoder_of(kept).embed(tiles))
    assert encoder_of(kept).weights_sha256 == kept.component_hash("encoder")
    words = (
        "models",
        "import",
        tmp_path / "named" / "source",
        "-o",
        tmp_path / "kept2",
        *more,
        "--encoder",
        "hipt-vit256",
    )
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code and not (tmp_path / "kept2").exists()
    assert "do not fit hipt-vit256" in capsys.readouterr().err


def test_an_import_makes_training_images(encoder, tissue, tmp_path):
    """`augment`: its encoder by name, windows one by one."""
    IMPORTS["ldm"](tmp_path, encoder)
    folder = tmp_path / "in" / "stroma"
    folder.mkdir(parents=True)
    Image.open(tissue / "tissue.png").crop((0, 0, 64, 64)).save(folder / "a.png")
    run_command("augment", folder.parent, "--model", tmp_path / "bundle", "-o", tmp_path / "out", "--per-image", "1",
                "--steps", "2", "--originals", "none")  # fmt: skip
    [made] = (tmp_path / "out").rglob("*.png")
    assert Image.open(made).size == (64, 64)


def painted(bundle: ModelBundle, image: Path, out: Path, steps: int) -> None:
    """One window from the image's own grid, by the bundle."""
    grid, model, side = out.with_suffix(".zarr"), str(bundle.folder), bundle.info.window_px
    at = bundle.info.resolution("um")
    embed([image], EmbedSettings(out=grid, model=model, mpp=at and at.value))
    size = Size(side, side)
    report = generate(GenerateSettings(grid=grid, out=out, model=model, steps=steps, size=size, fit="crop", batch=1))
    assert report.size == (side, side) and np.asarray(Image.open(out)).std() > 1


def test_training_tells_a_window_what_sampling_does(encoder, tmp_path):
    """The same kind of condition, of the same cells, and the same tokens of it; the null too."""
    IMPORTS["pixcell-1024"](tmp_path, encoder)
    bundle = ModelBundle.load(tmp_path / "bundle")
    ours = conditioning_of(bundle.denoiser, bundle, bundle.window_lat)
    assert ours == bundle.conditioning and ours.quantum_lat == 8
    with pytest.raises(SettingError, match="window_lat = 16: windows of pixcell-256 are 4 x 4 cells; set 32"):
        conditioning_of(bundle.denoiser, bundle, 16)


def test_a_bundle_whose_encoder_is_named_takes_no_other(encoder, tmp_path):
    IMPORTS["ldm"](tmp_path / "a", encoder)
    other = named_encoder(tmp_path / "other")
    IMPORTS["ldm"](tmp_path / "b", other)
    target = tmp_path / "run" / "bundle"
    assert set(inherit(tmp_path / "a" / "bundle", target)) == {"autoencoder", "denoiser", "conditioner", "scheduler"}
    assert ModelBundle.load(target).info.encoder == ModelBundle.load(tmp_path / "a" / "bundle").info.encoder
    inherit(tmp_path / "a" / "bundle", target, ("encoder", "autoencoder"))
    with pytest.raises(InputError, match="another encoder"):
        inherit(tmp_path / "b" / "bundle", target, ("encoder",))


def test_vectors_with_gradients_are_those_of_the_grid(encoder, tmp_path):
    """A cell of 64 px is shown at 224 in both; only the grid rounds to whole values in between."""
    IMPORTS["ldm"](tmp_path, encoder)
    named = encoder_of(ModelBundle.load(tmp_path / "bundle"))
    tiles = np.random.default_rng(0).integers(0, 255, (2, named.tile_px, named.tile_px, 3), np.uint8)
    images = (torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255).requires_grad_()
    vectors = named.vectors(images)
    assert vectors.shape == (2, DIM)
    np.testing.assert_allclose(vectors.detach().numpy(), named.embed(tiles), atol=0.02)
    vectors[:, 0].sum().backward()  # the sum of all is constant after a layer norm
    assert images.grad is not None and images.grad.abs().sum() > 0
