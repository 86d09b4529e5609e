"""`train init` writes a configuration that trains as it is; the help of `train` names and explains every key."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.cli import main
from ssl_tilegen.config.describe import brief, full, tables_of
from ssl_tilegen.config.train import STAGES, load_stage_settings
from ssl_tilegen.errors import InputError, OutputError, SettingError
from ssl_tilegen.training.init_config import init_config
from ssl_tilegen.workflows.train import train
from ssl_tilegen.workflows.train_paths import write_config
from tests.training import runs
from tests.training.test_painter import BACKBONE

SMALL = ["run.steps=2", "run.batch=4", "run.sample_every=2", "run.save_every=2", "run.readers=1"]
MORE = {
    "encoder": ["fit_tiles=200", "local_px=16"],
    "painter": [line.replace(" = ", "=") for line in BACKBONE.splitlines()],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in two folders, one per class."""
    folder = tmp_path_factory.mktemp("images")
    for name in ("left", "right"):
        (folder / name).mkdir()
        runs.draw_images(folder / name, 2)
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_a_configuration_from_a_bundle_trains_as_it_is(base, images, tmp_path, stage):
    bundle = base / "run" / "bundle"
    config = tmp_path / "configs" / "my.toml"
    written = init_config(stage, str(bundle), images, config)
    assert written == ([config, config.with_suffix(".csv")] if stage == "prior" else [config])
    train(stage, config, tmp_path / "run", overrides=SMALL + MORE.get(stage, []), device="cpu")
    made = ModelBundle.load(tmp_path / "run" / "bundle")
    kept, new = ModelBundle.load(bundle).info, made.info
    assert made.has("denoiser" if stage == "painter" else stage)
    if stage in ("denoiser", "painter"):
        same = ("latent_mean", "latent_scale", "window_px", "prediction_type")
        assert all(getattr(new, name) == getattr(kept, name) for name in same)
        assert made.denoiser.config.widths == ModelBundle.load(bundle).denoiser.config.widths
    if stage == "autoencoder":
        assert made.has("denoiser")  # the latents are the same, so the rest of the bundle stays
    if stage == "prior":
        assert set(made.prior_info.labels) == {"left", "right"}
    else:
        assert new.resolutions == {"image": (0.5, "um")}


@pytest.mark.parametrize("stage", STAGES)
def test_every_key_of_the_stage_is_in_the_file_with_its_meaning(base, images, tmp_path, stage):
    config = tmp_path / "my.toml"
    init_config(stage, str(base / "run" / "bundle"), images, config)
    lines = config.read_text().splitlines()
    for table in tables_of(STAGES[stage].settings):
        for option in table.options:
            found = [line for line in lines if line.removeprefix("# ").startswith(f"{option.name} = ")]
            assert found or option.kind == "table", option.name
            assert option.meaning, option.name


def test_the_built_in_bundle_may_be_named_and_rasters_keep_their_own_resolution(tmp_path, images):
    shutil.copytree(images, tmp_path / "pictures")
    with pytest.raises(InputError, match=r"give --mpp or --gsd \(the bundle's: he 0.499"):
        init_config("painter", "tiny", tmp_path / "pictures", tmp_path / "a.toml")
    sample = Path(__file__).parents[2] / "examples" / "sample"
    shutil.copy(sample / "tissue.ome.tif", tmp_path / "pictures" / "left")
    code = ["train", "init", "denoiser", "--from", "tiny", "--images", tmp_path / "pictures", "--gsd", 0.1]
    with pytest.raises(SystemExit):
        main([*map(str, code), "--out", str(tmp_path / "b.toml")])
    read = tomllib.loads((tmp_path / "b.toml").read_text())
    assert read["bundle"] == read["start_from"] == "tiny"
    sources = {source["domain"]: source for source in read["data"]["sources"]}
    assert sources["aerial"]["gsd"] == 0.1 and sources["aerial"]["paths"] == ["pictures/**/*.png"]
    assert "mpp" not in sources["he"] and sources["he"]["paths"] == ["pictures/**/*.tif"]
    assert load_stage_settings("denoiser", tmp_path / "b.toml").window_lat == ModelBundle.load("tiny").window_lat


def test_what_cannot_be_made_is_one_line(base, images, tmp_path):
    bundle, config = str(base / "run" / "bundle"), tmp_path / "my.toml"
    with pytest.raises(SettingError, match="unknown stage 'sculptor'"):
        init_config("sculptor", bundle, images, config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no images"):
        init_config("encoder", bundle, tmp_path / "empty", config)
    part = shutil.copytree(bundle, tmp_path / "part", ignore=shutil.ignore_patterns("denoiser"))
    with pytest.raises(SettingError, match="has no denoiser"):
        init_config("painter", str(part), images, config)
    assert not config.exists()


@pytest.mark.parametrize("stage", ["autoencoder", "prior"])
def test_what_was_edited_or_is_a_user_s_is_never_replaced(base, images, tmp_path, stage):
    bundle, config = str(base / "run" / "bundle"), tmp_path / "my.toml"
    written = write_config(stage, bundle, images, config)
    with pytest.raises(OutputError, match="give --overwrite"):
        write_config(stage, bundle, images, config)
    assert write_config(stage, bundle, images, config, overwrite=True) == written
    for path in written:
        kept = path.read_bytes()
        path.write_bytes(kept + b"# mine\n")
        with pytest.raises(OutputError, match="left as it is"):
            write_config(stage, bundle, images, config, overwrite=True)
        assert path.read_bytes() == kept + b"# mine\n"
        path.write_bytes(kept)
    assert sorted(tmp_path.iterdir()) == sorted(written)


@pytest.mark.parametrize("stage", STAGES)
def test_help_names_every_key_in_sixty_lines_and_help_config_explains_each(stage, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["train", stage, "--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 60
    with pytest.raises(SystemExit):
        main(["train", stage, "--help-config"])
    explained = capsys.readouterr().out
    for table in tables_of(STAGES[stage].settings):
        for option in table.options:
            assert option.name in text and f"\n{option.name}  ({option.kind}" in explained
    assert explained.strip() == full(STAGES[stage].settings).strip()


def test_the_keys_with_their_units_and_defaults():
    (top, run, *_), explained = brief(STAGES["denoiser"].settings), full(STAGES["denoiser"].settings)
    assert "drop=0.1" in top and "batch=32" in run and run.startswith("run: steps, ")
    assert "window_lat  (int > 0, in latents; default: 24)" in explained
    assert "steps  (int >= 0, in steps; required)" in explained


def test_help_of_train_loads_nothing_heavy():
    program = (
        "import sys, runpy; sys.argv = ['ssl-tilegen', 'train', 'painter', '--help-config']\n"
        "try: runpy.run_module('ssl_tilegen', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'timm', 'zarr', 'numpy', 'rasterio', 'openslide'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
