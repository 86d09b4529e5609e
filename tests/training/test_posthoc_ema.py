"""Averages of the weights whose width is chosen after the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ssl_tilegen.config.train import RunSettings
from ssl_tilegen.errors import SettingError
from ssl_tilegen.system.atomic import temporary_beside
from ssl_tilegen.training.posthoc_ema import EMAWidths, PowerEMA, combination, exponent_of
from ssl_tilegen.workflows.train import train
from tests.training import runs


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.2])
def test_the_profile_of_an_exponent_has_the_width_it_was_made_of(width):
    power = exponent_of(width)
    assert (power + 1) ** 0.5 / ((power + 2) * (power + 3) ** 0.5) == pytest.approx(width, rel=1e-6)


def walk(steps: int) -> list[float]:
    return list(np.random.default_rng(0).normal(size=steps).cumsum())


def averaged(values: list[float], width: float) -> float:
    """By the profile itself: the value at update i counts by the integral of tau^power over (i - 1, i)."""
    power, ends = exponent_of(width), np.arange(len(values) + 1) / len(values)
    return float((np.diff(ends ** (power + 1)) * values).sum())


@pytest.mark.parametrize("width", [0.05, 0.1])
def test_the_running_average_has_the_profile_of_its_width(width):
    module = nn.Linear(1, 1)
    ema = PowerEMA(module, width)
    for value in walk(300):
        nn.init.constant_(module.weight, value)
        ema.update(module)
    assert ema.module.weight.item() == pytest.approx(averaged(walk(300), width), rel=1e-4)


@pytest.mark.parametrize("width", [0.03, 0.07, 0.15])
def test_a_width_chosen_afterwards_is_near_what_would_have_been_kept(tmp_path, width):
    module, run = nn.Linear(1, 1), RunSettings(steps=400, snapshots=20, ema_width=width)
    ema_widths, values = EMAWidths(module, run, tmp_path), walk(400)
    for step, value in enumerate(values):
        nn.init.constant_(module.weight, value)
        ema_widths.update(module)
        ema_widths.keep(step + 1, write=True)
    assert len(list((tmp_path / "snapshots").iterdir())) == 2 * 20
    error = abs(ema_widths.chosen(module).weight.item() - averaged(values, width))
    assert error < 0.05 * float(np.std(values))


def test_a_snapshot_s_own_width_is_that_snapshot():
    profiles = [(float(n), width) for n in (100, 200, 300) for width in (0.05, 0.1)]
    assert np.allclose(combination(profiles, 0.1), [0, 0, 0, 0, 0, 1], atol=1e-6)


def test_snapshots_stay_bounded_when_a_run_is_lengthened(tmp_path):
    module = nn.Linear(1, 1)
    for steps in (40, 90):
        ema_widths = EMAWidths(module, RunSettings(steps=steps, snapshots=8), tmp_path)
        for step in range(1, steps + 1):
            ema_widths.update(module)
            ema_widths.keep(step, write=True)
    kept = {path.name.split("-")[0] for path in (tmp_path / "snapshots").iterdir()}
    assert len(kept) <= 9 and "00000090" in kept


def test_a_finished_run_is_exported_again_with_another_horizon(tmp_path):
    runs.draw_images(tmp_path)
    config = runs.write_config(tmp_path, "autoencoder")
    out, file = tmp_path / "run", tmp_path / "run/bundle/autoencoder"

    def weights(*overrides: str) -> dict[str, torch.Tensor]:
        train("autoencoder", config, out, overrides=["run.snapshots=4", *overrides], device="cpu")
        return load_file(next(file.glob("*.safetensors")))

    weights("run.steps=2")
    kept = weights()
    narrow, wide = weights("run.ema_width=0.05"), weights("run.horizon=0.1")
    assert (out / "autoencoder/checkpoint/average-2.safetensors").exists()
    name = "to_pixels.weight"
    assert not torch.equal(narrow[name], wide[name]) and not torch.equal(narrow[name], kept[name])
    last = sorted((out / "autoencoder/snapshots").glob("*-0.05.safetensors"))[-1]
    assert torch.allclose(load_file(last)[name].float(), narrow[name].float(), atol=1e-4)


def test_a_run_without_snapshots_has_no_choice_and_says_so_before_it_trains(tmp_path):
    runs.draw_images(Path(tmp_path))
    config = runs.write_config(tmp_path, "autoencoder")
    with pytest.raises(SettingError, match="has no snapshots"):
        train("autoencoder", config, tmp_path / "run", overrides=["run.ema_width=0.1", "run.steps=1"], device="cpu")
    assert not (tmp_path / "run/autoencoder/checkpoint").exists()


def test_a_run_stopped_before_its_first_snapshot_keeps_what_it_has(tmp_path):
    module = nn.Linear(1, 1)
    ema_widths = EMAWidths(module, RunSettings(steps=40, snapshots=4, ema_width=0.1), tmp_path)
    ema_widths.update(module)
    ema_widths.keep(1, write=True)
    before = module.weight.clone()
    assert torch.equal(ema_widths.chosen(module).weight, before)


def test_only_snapshots_are_averaged(tmp_path):
    module = nn.Linear(1, 1)
    ema_widths = EMAWidths(module, RunSettings(steps=8, snapshots=4, ema_width=0.1), tmp_path)
    for step in range(8):
        nn.init.constant_(module.weight, step)
        ema_widths.update(module)
        ema_widths.keep(step + 1, write=True)
    before = ema_widths.chosen(module).weight.clone()
    cut = temporary_beside(tmp_path / "snapshots" / "00000008-0.1.safetensors")
    cut.write_bytes(b"half of it")
    save_file({"weight": torch.zeros(3)}, tmp_path / "snapshots" / "mine.safetensors")
    ema_widths.keep(8, write=True)
    assert torch.equal(ema_widths.chosen(module).weight, before)
    assert cut.exists() and (tmp_path / "snapshots" / "mine.safetensors").exists()


def test_weights_that_do_not_learn_stay_to_the_bit(tmp_path):
    module = nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 3))
    ema_widths = EMAWidths(module, RunSettings(steps=8, snapshots=4, ema_width=0.07), tmp_path)
    for step in range(8):
        nn.init.normal_(module[1].weight)
        ema_widths.update(module)
        ema_widths.keep(step + 1, write=True)
    before = [part.weight.clone() for part in module]
    chosen = ema_widths.chosen(module)
    assert torch.equal(chosen[0].weight, before[0]) and not torch.equal(chosen[1].weight, before[1])
