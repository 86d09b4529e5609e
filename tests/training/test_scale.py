"""Many processes, parts of a batch, recomputed activations: the same training, told otherwise."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ssl_tilegen.config.train import RunSettings, load_stage_settings
from ssl_tilegen.errors import SettingError, TilegenError
from ssl_tilegen.training.autoencoder import AutoencoderStage
from ssl_tilegen.training.checkpoint import load_checkpoint, save_checkpoint
from ssl_tilegen.training.data.corpus import load_corpus
from ssl_tilegen.training.distributed import Processes
from ssl_tilegen.training.ema import EMA
from ssl_tilegen.training.loop import train_stage
from ssl_tilegen.training.stage import Stage
from ssl_tilegen.workflows.train import train
from tests.processes import command, forked, free_port, wait_until
from tests.training import runs


def together(out: Path, *configs: Path, launcher: str = "torchrun", backend: str = "inductor", count: int = 2) -> None:
    """``count`` processes that run the configurations one after the other, started as ``launcher`` starts them."""
    own = {"torchrun": ("RANK", "LOCAL_RANK", "WORLD_SIZE"), "srun": ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")}
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "SLURM_STEP_NUM_TASKS": count}
    shared["TORCHINDUCTOR_CACHE_DIR"] = out / "kernels"  # a run that was killed leaves broken ones in the common cache
    out.mkdir(parents=True, exist_ok=True)
    logs, team = [out / f"{i}.log" for i in range(count)], []
    for i, heard in enumerate(logs):
        facts = dict(zip(own[launcher], (i, i, count), strict=True)) | shared
        team.append(forked(heard, runs.main, out, list(configs), backend, **facts))
    for one, heard in zip(team, logs, strict=True):
        one.join(900)
        assert one.exitcode == 0, heard.read_text()


def made(config: Path, *overrides: str) -> AutoencoderStage:
    settings = load_stage_settings("autoencoder", config, list(overrides))
    return AutoencoderStage(settings, load_corpus(settings.data))


def trained(config: Path, out: Path, *overrides: str) -> nn.Module:
    return run_of(made(config, *overrides), out)


def run_of(stage: AutoencoderStage, out: Path) -> nn.Module:
    settings = stage.settings
    return train_stage(stage, settings.run, out, lambda record: None, Processes("cpu"), lambda: False)[0]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    runs.draw_images(tmp_path)
    return runs.write_config(tmp_path, "autoencoder")


@pytest.mark.slow
def test_two_processes_reach_the_same_loss_as_one(base, tmp_path):
    """For all stages and both losses of the encoder, with the same global batch."""
    configs = [base / f"{stage}.toml" for stage in runs.TEXTS]
    configs.append(runs.write_config(base, "encoder", runs.DINO, "encoder-dino"))
    runs.main(base / "run", configs[-1:])
    together(tmp_path / "two", *configs, launcher="srun")
    for run in ("encoder", "autoencoder", "denoiser", "encoder-dino/encoder"):
        one, two = (runs.losses(folder / run) for folder in (base / "run", tmp_path / "two"))
        assert len(one) == 4 and one == pytest.approx(two, rel=2e-4), run
    name = "autoencoder/checkpoint/weights.safetensors"
    a, b = (load_file(folder / name) for folder in (base / "run", tmp_path / "two"))
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
    stage = made(config, "run.recompute=true")
    kept, again = trained(config, tmp_path / "1"), run_of(stage, tmp_path / "2")
    assert any(getattr(part, "gradient_checkpointing", False) for part in stage.module.modules())
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), again.parameters(), strict=True))


def test_half_precision_without_a_gpu_says_what_to_use(config, tmp_path):
    with pytest.raises(SettingError, match="fp16: needs a GPU; use bf16"):
        trained(config, tmp_path / "x", "run.precision=fp16")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="fp16 needs a GPU")
def test_half_precision_trains_and_continues_with_its_scale(config, tmp_path):
    for steps in ("run.steps=2", "run.steps=4"):
        train("autoencoder", config, tmp_path, overrides=["run.precision=fp16", steps], device="cuda")
    assert len(runs.losses(tmp_path / "autoencoder")) == 4
    assert '"scale"' in (tmp_path / "autoencoder" / "checkpoint" / "state.json").read_text()


def test_the_scaler_s_state_is_kept_with_the_checkpoint(config, tmp_path):
    """Loss scaling itself, on the processor at hand: its scale survives a checkpoint."""
    module = nn.Linear(2, 1)
    ema, optimiser = EMA(module, 0.9), torch.optim.AdamW(module.parameters())
    scaler, again = (torch.amp.GradScaler("cpu", init_scale=scale) for scale in (256.0, 2.0))
    scaler.scale(module(torch.ones(1, 2)).sum()).backward()
    scaler.step(optimiser)
    scaler.update(512.0)
    save_checkpoint(tmp_path, 3, module, ema, optimiser, scaler=scaler)
    assert load_checkpoint(tmp_path, module, ema, optimiser, scaler=again) == 3
    assert again.get_scale() == 512.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sharding", "stage", "backend"), [("none", "autoencoder", "aot_eager"), ("fsdp", "denoiser", "eager")]
)
def test_compiled_networks_train_as_plain_ones_on_one_process(base, tmp_path, sharding, stage, backend):
    """Without the compiler's own kernels: where the graph is cut is the same, in a tenth of the time."""
    told = f'bundle = "{base / "run" / "bundle"}"\n{runs.DENOISER}' if stage == "denoiser" else None
    config = runs.write_config(base, stage, told, f"{stage}-fused")
    config.write_text(config.read_text().replace("[run]\n", f'[run]\ncompile = true\nsharding = "{sharding}"\n'))
    together(tmp_path / "fused", config, backend=backend)
    one, fused = runs.losses(base / "run" / stage), runs.losses(tmp_path / "fused" / f"{stage}-fused" / stage)
    assert len(one) == 4 and one == pytest.approx(fused, rel=1e-3)


class Bend(nn.Module):
    """The hyperbolic tangent of a multiple."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).tanh()


class OneWeight(Stage):
    """A stage with one small layer, whose compiled kernels are few."""

    def __init__(self) -> None:
        self.module: Any = Bend()

    def item(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"x": 1 + rng.random(1, np.float32)}

    def loss(self, module: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return (module(batch["x"]) - 0.1).square().mean(), {}

    def sample(self, module: Any, path: Path) -> dict[str, float]:
        return {}


def train_one_weight(out: Path, fused: bool) -> None:
    import torch._inductor.config as inductor

    inductor.cpp_cache_precompile_headers = False  # they pay from the second kernel on
    run = RunSettings(steps=4, batch=2, log_every=1, lr=0.1, warmup=0, precision="no", compile=fused)
    train_stage(OneWeight(), run, out, lambda record: None, Processes("cpu"), lambda: False)


@pytest.mark.slow
def test_the_compiler_s_own_kernels_train_as_plain_operations(tmp_path):
    """Those of one small layer: the C++ compiler takes seconds for each."""
    heard = tmp_path / "heard.log"  # a run that was killed leaves broken kernels in the common cache
    fused = forked(heard, train_one_weight, tmp_path / "fused", True, TORCHINDUCTOR_CACHE_DIR=tmp_path / "kernels",
                   TORCHINDUCTOR_VEC_ISA_OK=1)  # fmt: skip
    fused.join(900)
    assert fused.exitcode == 0, heard.read_text()
    assert list((tmp_path / "kernels").rglob("*.so")), "nothing was compiled"
    train_one_weight(tmp_path / "plain", False)
    plain = runs.losses(tmp_path / "plain")
    assert (
        len(plain) == 4 and plain[-1] < plain[0] and runs.losses(tmp_path / "fused") == pytest.approx(plain, rel=1e-4)
    )


class Cliff(OneWeight):
    """A stage whose loss stays finite when its gradient does not."""

    def loss(self, module: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        out = module(batch["x"])
        return ((out - out.detach()).abs() ** 0.5).sum(), {}


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(tmp_path):
    stage = Cliff()
    with pytest.raises(TilegenError, match="the gradient became nan at step 1"):
        run = RunSettings(steps=3, batch=2)
        train_stage(stage, run, tmp_path, lambda record: None, Processes("cpu"), lambda: False)
    assert torch.equal(stage.module.weight, torch.ones(1, 1)) and not (tmp_path / "checkpoint").exists()


def started(config: Path, out: Path, steps: int = 400) -> Any:
    """The command as a user starts it, once it has saved a checkpoint."""
    words = ("train", "autoencoder", "--config", config, "--out", out, "--device", "cpu")
    run = command(config.with_suffix(".log"), [*words, "--set", f"run.steps={steps}", "--set", "run.cooldown=0"])
    wait_until((out / "autoencoder" / "checkpoint").exists, run, config.with_suffix(".log"))
    return run


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_ends_with_143(config, tmp_path, number):
    run = started(config, tmp_path / "x")
    os.kill(run.pid, number)
    run.join(300)
    assert run.exitcode == 143 and "the same command continues" in config.with_suffix(".log").read_text()
    folder = tmp_path / "x" / "autoencoder"
    assert len(runs.losses(folder)) == load_step(folder)


def two_commands(config: Path, out: Path) -> list[tuple[Any, Path]]:
    """A long run of two processes as a user starts them, and what each says."""
    words = ("train", "autoencoder", "--config", config, "--out", out, "--device", "cpu", "--set", "run.steps=4000")
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": 2}
    logs = [config.with_name(f"{rank}.log") for rank in range(2)]
    return [(command(log, words, RANK=rank, LOCAL_RANK=rank, **shared), log) for rank, log in enumerate(logs)]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_loses_the_other_ends_with_one_line(config, tmp_path, killed):
    """So a launcher that kills on a bad exit finds nothing to kill, and one that does not leaves nothing behind."""
    runs_of_two = two_commands(config, tmp_path / "x")
    (lost, _), (other, said) = runs_of_two[killed], runs_of_two[1 - killed]
    wait_until((tmp_path / "x" / "autoencoder" / "checkpoint").exists, other, said, 300)
    lost.kill()
    other.join(300)
    assert other.exitcode == 1 and "another process of this run is gone" in said.read_text().splitlines()[-1]
    done = load_step(tmp_path / "x" / "autoencoder")
    trained(config, tmp_path / "x" / "autoencoder", f"run.steps={done + 1}")
    assert load_step(tmp_path / "x" / "autoencoder") == done + 1


@pytest.mark.slow
def test_a_signal_to_one_process_ends_both_with_143(config, tmp_path):
    (first, said), (second, heard) = two_commands(config, tmp_path / "x")
    wait_until((tmp_path / "x" / "autoencoder" / "checkpoint").exists, first, said, 300)
    os.kill(second.pid, signal.SIGTERM)
    for process in (first, second):
        process.join(300)
    assert (first.exitcode, second.exitcode) == (143, 143), said.read_text() + heard.read_text()
    assert "another process of this run was interrupted" in said.read_text().splitlines()[-1]


def test_what_the_first_process_refuses_ends_them_all(config, tmp_path):
    (tmp_path / "x" / "autoencoder").mkdir(parents=True)
    (tmp_path / "x" / "autoencoder" / "thesis.docx").touch()
    (first, why), (second, said) = two_commands(config, tmp_path / "x")
    for process in (first, second):
        process.join(300)
    assert first.exitcode == 1 and "not made by this program" in why.read_text()
    assert second.exitcode == 1 and "another process of this run is gone" in said.read_text().splitlines()[-1]


@pytest.mark.slow
def test_killed_runs_go_on_to_the_same_bits(config, tmp_path):
    """Three kills at odd moments while a checkpoint is written every second step, then the rest: as if never killed."""
    for delay in (0.0, 0.11, 0.23):
        run = started(config, tmp_path / "x")
        time.sleep(delay)
        run.kill()
        run.join()
    done = load_step(tmp_path / "x" / "autoencoder")
    whole = [trained(config, tmp_path / folder, f"run.steps={done + 3}", "run.cooldown=0")
             for folder in ("x/autoencoder", "y")]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(*(w.parameters() for w in whole), strict=True))
    assert runs.losses(tmp_path / "x" / "autoencoder") == runs.losses(tmp_path / "y")


def load_step(folder: Path) -> int:
    kept = next(f for f in (folder / "checkpoint", folder / "checkpoint.old") if f.exists())
    return int(json.loads((kept / "state.json").read_text())["step"])
