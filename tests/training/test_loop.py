"""Laws of the training loop, on real images drawn for the test."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ssl_tilegen.config.train import RunSettings, load_stage_settings
from ssl_tilegen.errors import FormatError, InputError, SettingError, TilegenError
from ssl_tilegen.training.autoencoder import AutoencoderStage
from ssl_tilegen.training.data.corpus import apply_d4, load_corpus
from ssl_tilegen.training.distributed import Processes
from ssl_tilegen.training.loop import rate, train_stage
from ssl_tilegen.training.optim import orthogonalised
from ssl_tilegen.workflows.train import train
from tests.training import runs


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of the smallest autoencoder on three images."""
    rng = np.random.default_rng(0)
    for number in range(3):
        coarse = rng.integers(0, 255, (12, 12, 3), np.uint8)
        Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(tmp_path / f"p{number}.png")
    path = tmp_path / "autoencoder.toml"
    path.write_text(
        "window_px = 32\n[net]\nlatent_channels = 4\nfine_width = 16\nencoder_width = 16\ndecoder_width = 16\n"
        "[run]\nsteps = 8\nbatch = 2\nlog_every = 2\nsave_every = 4\nsample_every = 4\nwarmup = 2\n"
        '[data]\n[[data.sources]]\npaths = ["*.png"]\nmpp = 0.5\n'
    )
    return path


def run(config: Path, out: Path, *overrides: str, stop_after: int | None = None) -> torch.nn.Module:
    settings = load_stage_settings("autoencoder", config, list(overrides))
    stage = AutoencoderStage(settings, load_corpus(settings.data))
    asked = iter(range(10_000))
    stop = lambda: stop_after is not None and next(asked) + 1 >= stop_after  # noqa: E731
    return train_stage(stage, settings.run, out, lambda record: None, Processes("cpu"), stop)[0]


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(config, tmp_path, optimiser):
    choice = f"run.optimiser={optimiser}"
    whole = run(config, tmp_path / "whole", choice)
    run(config, tmp_path / "parts", choice, stop_after=4)
    assert json.loads((tmp_path / "parts" / "checkpoint" / "state.json").read_text())["step"] < 8
    parts = run(config, tmp_path / "parts", choice)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("stage", ["encoder", "encoder-dino", "denoiser"])
def test_a_stage_that_was_stopped_ends_in_the_weights_of_one_that_was_not(base, tmp_path, stage):
    config = base / f"{stage}.toml"
    if stage == "encoder-dino":
        config = runs.write_config(base, "encoder", runs.DINO, stage)
    overrides = [f"bundle='{base / 'run' / 'bundle'}'"] if stage == "denoiser" else []
    name = stage.split("-")[0]
    for out, when in (("whole", 9), ("parts", 2), ("parts", 9)):
        asked = itertools.count(1)
        stop = lambda when=when, asked=asked: next(asked) >= when  # noqa: E731
        train(name, config, tmp_path / out, overrides=overrides, device="cpu", stop=stop)
        if when == 2:
            assert len(runs.losses(tmp_path / out / name)) == 2
            assert (tmp_path / out / "bundle" / "encoder" / "config.json").exists() == (stage == "denoiser")
    last = Path(name) / "checkpoint" / "weights.safetensors"
    whole, parts = (load_file(tmp_path / out / last) for out in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)


def test_the_data_do_not_depend_on_the_number_of_readers(config, tmp_path):
    one, four = run(config, tmp_path / "1", "run.readers=1"), run(config, tmp_path / "4", "run.readers=4")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), four.parameters(), strict=True))


def test_training_lowers_the_loss_and_writes_its_log_and_samples(config, tmp_path):
    run(config, tmp_path / "run", "run.steps=40", "run.lr=2e-3", "run.log_every=10", "run.sample_every=40")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert all(line["images_per_s"] > 0 for line in lines if "loss" in line)
    assert Image.open(tmp_path / "run" / "sample-0000040.png").size == (6 * 32, 2 * 32)


def test_a_run_that_goes_on_with_other_settings_says_which(config, tmp_path):
    said: list[str] = []
    for overrides in (["run.steps=2"], ["run.steps=2"], ["run.steps=4", "run.batch=3"]):
        report = lambda record: said.append(str(record.get("message", "")))  # noqa: E731
        train("autoencoder", config, tmp_path / "run", overrides=overrides, device="cpu", report=report)
    (line,) = [text for text in said if "other settings" in text]
    assert line.endswith("with other settings: run.batch 2 -> 3, run.steps 2 -> 4")


def test_a_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_checkpoint(config, tmp_path):
    run(config, tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint" / "weights.safetensors").read_bytes()
    with pytest.raises(TilegenError, match=r"at step \d+: lower run.lr"):
        run(config, tmp_path / "run", "run.steps=60", "run.lr=1e12", "run.warmup=0", "run.clip=1e12")
    assert (tmp_path / "run" / "checkpoint" / "weights.safetensors").read_bytes() == before


def test_a_checkpoint_of_another_network_is_refused_in_one_line(config, tmp_path):
    run(config, tmp_path / "run")
    with pytest.raises(FormatError, match="use --restart"):
        run(config, tmp_path / "run", "net.decoder_width=32")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run.stepz=3", "run.stepz"),
        ("run.steps=-1", "run.steps"),
        ("run.steps", "expected key=value"),
    ],
)
def test_bad_settings_name_the_key(config, text, message):
    with pytest.raises(SettingError, match=message):
        load_stage_settings("autoencoder", config, [text])


def test_missing_files_are_one_line(config, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        load_stage_settings("autoencoder", tmp_path / "nowhere.toml")
    settings = load_stage_settings("autoencoder", config, ['data.sources=[{paths=["*.tiff"]}]'])
    with pytest.raises(InputError, match="no training image matches"):
        load_corpus(settings.data)


def test_the_rate_warms_up_stays_and_falls_to_zero():
    settings = RunSettings(steps=100, warmup=10, cooldown=0.3)
    rates = [rate(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[10:70] == [1.0] * 60 and rates[100] == pytest.approx(0)
    assert all(a >= b for a, b in itertools.pairwise(rates[70:]))


def test_the_eight_turns_differ_and_keep_the_pixels():
    image = np.arange(12).reshape(2, 2, 3)
    seen = {apply_d4(image, turn).tobytes() for turn in range(8)}
    assert len(seen) == 8
    assert all(sorted(apply_d4(image, turn).ravel()) == list(range(12)) for turn in range(8))


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (16, 16)])
def test_orthogonalised_updates_have_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    assert values.min() > 0.3 and values.max() < 1.4
