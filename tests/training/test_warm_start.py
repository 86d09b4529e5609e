"""Warm starts of the autoencoder, and training its decoder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ssl_tilegen.cli import main
from ssl_tilegen.config.train import load_stage_settings
from ssl_tilegen.errors import SettingError
from ssl_tilegen.training import run_metadata
from ssl_tilegen.workflows import train as workflow
from ssl_tilegen.workflows.train import train
from tests.training import runs

DECODING = ("decoder.", "synthesis.", "to_pixels.")


def weights(bundle: Path, component: str = "autoencoder"):
    return load_file(next((bundle / component).glob("*.safetensors")))


def decoder_only(base: Path, out: Path, text: str = "", name: str = "autoencoder-warm") -> Path:
    head = f'window_px = 32\nstart_from = "run/bundle"\ntrain_only = "decoder"\n{text}'
    config = runs.write_config(base, "autoencoder", head, name)
    train("autoencoder", config, out, overrides=["run.steps=3"], device="cpu")
    return out / "bundle"


def test_only_the_decoder_learns_and_the_bundle_keeps_its_denoiser(base, tmp_path):
    before = weights(base / "run" / "bundle")
    bundle = decoder_only(base, tmp_path, "posterior_noise = 0\nsquare_weight = 1.0\n")
    after = weights(bundle)
    kept = [name for name in before if not name.startswith(DECODING)]
    assert kept and all(before[name].equal(after[name]) for name in kept)
    changed = [name for name in before if name.startswith(DECODING) and not before[name].equal(after[name])]
    assert len(changed) > 4
    for component in ("encoder", "denoiser"):
        theirs = weights(base / "run" / "bundle", component)
        assert all(value.equal(theirs[name]) for name, value in weights(bundle, component).items())
    old, new = (json.loads((b / "bundle.json").read_text()) for b in (base / "run" / "bundle", bundle))
    assert old["latent_scale"] == new["latent_scale"] and old["window_px"] == new["window_px"]


def test_a_larger_decoder_starts_as_the_old_one(base, tmp_path):
    text = "[net]\ndecoder_fine_blocks = 4\n"
    head = f'window_px = 32\nstart_from = "run/bundle"\ntrain_only = "decoder"\n{text}'
    config = runs.write_config(base, "autoencoder", head, "autoencoder-larger")
    train("autoencoder", config, tmp_path, overrides=["run.steps=1", "run.lr=1e-12"], device="cpu")
    after = weights(tmp_path / "bundle")
    before = weights(base / "run" / "bundle")
    assert len(after) > len(before)
    assert all(after[name].equal(value) for name, value in before.items())


def test_a_warm_start_of_everything_begins_where_the_other_ended(base, tmp_path):
    config = runs.write_config(base, "autoencoder", 'window_px = 32\nstart_from = "run/bundle"\n', "autoencoder-all")
    train("autoencoder", config, tmp_path, overrides=["run.lr=1e-12"], device="cpu")
    old = runs.losses(base / "run" / "autoencoder")
    assert runs.losses(tmp_path / "autoencoder")[0] < old[0]
    assert not (tmp_path / "bundle" / "denoiser").exists()


def test_latents_may_be_added_and_the_denoiser_goes_on_from_the_old_ones(base, tmp_path):
    channels = json.loads((base / "run" / "bundle" / "autoencoder" / "config.json").read_text())["latent_channels"]
    head = 'window_px = 32\nstart_from = "run/bundle"\n'
    config = runs.write_config(
        base, "autoencoder", f"{head}[net]\nlatent_channels = {channels + 2}\n", "autoencoder-more"
    )
    train("autoencoder", config, tmp_path, overrides=["run.lr=1e-12"], device="cpu")
    losses = runs.losses(tmp_path / "autoencoder"), runs.losses(base / "run" / "autoencoder")
    assert losses[0][0] < losses[1][0]
    after, before = weights(tmp_path / "bundle"), weights(base / "run" / "bundle")
    assert after["analysis.1.weight"].shape[0] == channels + 2
    assert after["analysis.1.weight"][:channels].allclose(before["analysis.1.weight"])


def test_another_encoder_cannot_be_kept(base, tmp_path):
    with pytest.raises(SettingError, match="does not fit the encoder"):
        decoder_only(base, tmp_path, "[net]\nencoder_width = 24\n")


def test_a_decoder_alone_needs_a_bundle(base):
    config = runs.write_config(base, "autoencoder", 'train_only = "decoder"\n', "autoencoder-none")
    with pytest.raises(SettingError, match="start_from"):
        load_stage_settings("autoencoder", config)


def test_folders_of_models_beside_the_file_are_found_from_anywhere(tmp_path, monkeypatch):
    encoder = runs.write_config(tmp_path, "encoder", 'pretrained = "local-dir:mine"\n')
    prior = runs.write_config(tmp_path, "prior", 'table = "t.csv"\ntext_encoder = "words"\n', data="")
    assert load_stage_settings("encoder", encoder).pretrained == "local-dir:mine"
    assert load_stage_settings("prior", prior).text_encoder == "words"
    for name in ("mine", "words", "resnet18"):
        (tmp_path / name).mkdir()
    assert load_stage_settings("encoder", encoder, ["pretrained=resnet18"]).pretrained == "resnet18"
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, Path()):
        found = load_stage_settings("encoder", folder / encoder.name).pretrained
        assert found == f"local-dir:{tmp_path / 'mine'}"
        assert load_stage_settings("prior", folder / prior.name).text_encoder == str(tmp_path / "words")


def test_an_encoder_of_the_command_line_is_looked_for_where_one_is(tmp_path, monkeypatch):
    config = runs.write_config(tmp_path, "encoder")
    (tmp_path / "o'brien").mkdir()
    monkeypatch.chdir(tmp_path / "o'brien")
    found = []

    def train(stage, config, out, *, overrides, **more):
        found.append(load_stage_settings(stage, config, overrides))
        return {"bundle": "b", "run": "r", "stopped": False}

    monkeypatch.setattr(workflow, "train", train)
    for name in ("local-dir:mine", "resnet18"):
        with pytest.raises(SystemExit):
            main(["train", "encoder", "--config", str(config), "--encoder", name, "--weights", "w.pth"])
    assert [each.pretrained for each in found] == [f"local-dir:{Path('mine').resolve()}", "resnet18"]
    assert found[0].weights == str(Path("w.pth").resolve())


def test_a_record_names_no_folder_of_the_machine(tmp_path):
    settings = {"pretrained": f"local-dir:{tmp_path / 'mine'}", "text_encoder": str(tmp_path / "words"), "arch": "vit"}
    found = run_metadata._relative(settings, tmp_path)
    assert found == {"pretrained": "local-dir:mine", "text_encoder": "words", "arch": "vit"}


def test_a_built_in_bundle_by_name_unless_a_folder_beside_the_file_has_it(tmp_path, monkeypatch):
    names = 'bundle = "tiny"\nstart_from = "tiny"\n'
    config = runs.write_config(tmp_path, "denoiser", names + runs.DENOISER)
    built_in = load_stage_settings("denoiser", config)
    assert built_in.bundle == built_in.start_from == "tiny"
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    for path in (config, Path(config.name)):
        own = load_stage_settings("denoiser", path)
        assert own.bundle == own.start_from == str(tmp_path / "tiny")
