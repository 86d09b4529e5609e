"""Many processes, parts of a batch, recomputed activations: the same training, told otherwise."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ssl_tilegen.errors import SettingError, TilegenError
from ssl_tilegen.training.autoencoder import AutoencoderStage
from ssl_tilegen.training.data import load_corpus
from ssl_tilegen.training.loop import train_stage
from ssl_tilegen.training.settings import RunSettings, load_settings
from ssl_tilegen.training.team import Team
from tests.training import runs

ROOT = Path(__file__).parents[2]


def process(*words: object, **variables: object) -> subprocess.Popen[str]:
    given = {name: str(value) for name, value in variables.items()}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | given
    return subprocess.Popen(
        [sys.executable, *map(str, words)], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def trained(config: Path, out: Path, *overrides: str) -> nn.Module:
    settings = load_settings("autoencoder", config, list(overrides))
    stage = AutoencoderStage(settings, load_corpus(settings.data))
    return train_stage(stage, settings.run, out, lambda record: None, Team("cpu"), lambda: False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    runs.draw_pictures(tmp_path)
    return runs.write_config(tmp_path, "autoencoder")


@pytest.mark.slow
def test_two_processes_reach_the_same_loss_as_one(tmp_path):
    """For all stages and both losses of the encoder, with the same global batch."""
    runs.draw_pictures(tmp_path)
    configs = [runs.write_config(tmp_path, stage) for stage in ("encoder", "autoencoder", "denoiser")]
    configs.append(runs.write_config(tmp_path, "encoder", runs.DINO, "encoder-dino"))
    runs.main(tmp_path / "one", configs)
    port = free_port()
    slurm = {"SLURM_NTASKS": 2, "SLURM_STEP_NUM_TASKS": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pair = [
        process("-m", "tests.training.runs", tmp_path / "two", *configs, SLURM_PROCID=i, SLURM_LOCALID=i, **slurm)
        for i in range(2)
    ]
    for one in pair:
        _, errors = one.communicate(timeout=300)
        assert one.returncode == 0, errors
    for run in ("encoder", "autoencoder", "denoiser", "encoder-dino/encoder"):
        alone, together = (runs.losses(tmp_path / folder / run) for folder in ("one", "two"))
        assert len(alone) == 4 and alone == pytest.approx(together, rel=2e-4), run
    a, b = (load_file(tmp_path / folder / "autoencoder/checkpoint/weights.safetensors") for folder in ("one", "two"))
    assert all(torch.allclose(a[key], b[key], rtol=1e-2, atol=1e-3) for key in a)


def test_a_batch_in_parts_gives_the_same_steps(config, tmp_path):
    whole, parts = trained(config, tmp_path / "1"), trained(config, tmp_path / "2", "run.accumulate=2")
    assert runs.losses(tmp_path / "1") == pytest.approx(runs.losses(tmp_path / "2"), rel=1e-4)
    pairs = zip(whole.parameters(), parts.parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in pairs)


def test_a_batch_that_cannot_be_shared_says_what_would_do(config, tmp_path):
    with pytest.raises(SettingError, match="use a multiple of 3"):
        trained(config, tmp_path / "x", "run.accumulate=3")


def test_recomputed_activations_change_nothing(config, tmp_path):
    kept, again = trained(config, tmp_path / "1"), trained(config, tmp_path / "2", "run.recompute=true")
    assert any(getattr(part, "gradient_checkpointing", False) for part in again.modules())
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), again.parameters(), strict=True))


def test_half_precision_trains_and_continues_with_its_scale(config, tmp_path):
    trained(config, tmp_path / "x", "run.precision=fp16", "run.steps=2")
    trained(config, tmp_path / "x", "run.precision=fp16")
    assert len(runs.losses(tmp_path / "x")) == 4
    assert '"scale"' in (tmp_path / "x" / "checkpoint" / "state.json").read_text()


class Cliff:
    """A stage whose loss stays finite when its gradient does not."""

    def __init__(self) -> None:
        self.module: Any = nn.Linear(1, 1)
        nn.init.ones_(self.module.weight)

    def item(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"x": np.ones(1, np.float32)}

    def loss(self, module: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        out = module(batch["x"])
        return ((out - out.detach()).abs() ** 0.5).sum(), {}

    def sample(self, module: Any, path: Path) -> dict[str, float]:
        return {}


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(tmp_path):
    stage = Cliff()
    with pytest.raises(TilegenError, match="the gradient became nan at step 1"):
        train_stage(stage, RunSettings(steps=3, batch=2), tmp_path, lambda record: None, Team("cpu"), lambda: False)
    assert torch.equal(stage.module.weight, torch.ones(1, 1)) and not (tmp_path / "checkpoint").exists()


def started(config: Path, out: Path, steps: int = 400) -> subprocess.Popen[str]:
    """The command as a user starts it, once it has saved a checkpoint."""
    words = ("-m", "ssl_tilegen", "train", "autoencoder", "--config", config, "--out", out)
    words += ("--set", f"run.steps={steps}", "--set", "run.cooldown=0")
    run = process(*words)
    deadline = time.monotonic() + 120
    while not (out / "autoencoder" / "checkpoint").exists() and time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.05)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_ends_with_143(config, tmp_path, number):
    run = started(config, tmp_path / "x")
    run.send_signal(number)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 143 and "the same command continues" in errors
    folder = tmp_path / "x" / "autoencoder"
    assert len(runs.losses(folder)) == load_step(folder)


@pytest.mark.slow
def test_killed_runs_go_on_to_the_same_bits(config, tmp_path):
    """Three kills at odd moments while a checkpoint is written every second step, then the rest: as if never killed."""
    for delay in (0.0, 0.11, 0.23):
        run = started(config, tmp_path / "x")
        time.sleep(delay)
        run.kill()
        run.communicate()
    done = load_step(tmp_path / "x" / "autoencoder")
    whole = [trained(config, tmp_path / folder, f"run.steps={done + 3}", "run.cooldown=0")
             for folder in ("x/autoencoder", "y")]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(*(w.parameters() for w in whole), strict=True))
    assert runs.losses(tmp_path / "x" / "autoencoder") == runs.losses(tmp_path / "y")


def load_step(folder: Path) -> int:
    kept = next(f for f in (folder / "checkpoint", folder / "checkpoint.old") if f.exists())
    return int(json.loads((kept / "state.json").read_text())["step"])
