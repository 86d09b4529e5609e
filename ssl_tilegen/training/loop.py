"""The training loop that all stages share: one process or many, steps, moving average, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_tilegen.config.train import RunSettings
from ssl_tilegen.errors import SettingError, TilegenError
from ssl_tilegen.system.device import fast_dtype, seed_all
from ssl_tilegen.training.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from ssl_tilegen.training.data.batches import Batch, Batches
from ssl_tilegen.training.distributed import Processes
from ssl_tilegen.training.ema import EMA
from ssl_tilegen.training.log import Log, LogProgress
from ssl_tilegen.training.posthoc_ema import EMAWidths
from ssl_tilegen.training.sharding import shard, whole
from ssl_tilegen.training.stage import Stage


def train_stage(
    stage: Stage, run: RunSettings, out: Path, progress: LogProgress, team: Processes, stop: Callable[[], bool]
) -> tuple[nn.Module, bool]:
    """Train ``stage.module`` to ``run.steps``, continuing from the checkpoint in ``out`` where there is one.

    Returns the module with the averaged weights, and whether the run was stopped. ``stop`` is asked after every step;
    when it says yes in any process the state is saved and the loop of all returns early. Raises TilegenError when the
    loss or its gradient is no longer finite (the last checkpoint stays).
    """
    batch_slots = team.batch_slots(run)
    layout = torch.contiguous_format if team.is_sharded(run) else torch.channels_last
    module = stage.module.to(team.device, memory_format=layout)
    ema, ema_widths = EMA(module, run.ema), EMAWidths(module, run, out)
    stepper = TrainingStepper(stage, run, team)
    ema.follow(module)
    ema_widths.follow(module)
    kept: dict[str, Any] = {"others": ema_widths.averages, "scaler": stepper.scaler}
    start = load_checkpoint(out, module, ema, stepper.optimiser, **kept)
    stepper.prepare(compiled=run.compile and start < run.steps)
    log = Log(out, run, progress, start) if team.is_first else None
    stopping = False
    with Batches(stage, run, start, batch_slots, team.device) as batches:
        for step, parts in batches:
            values, stopping = stepper.step(step, parts, out, stop)
            ema.update(module)
            ema_widths.update(module)
            done, number = step + 1 == run.steps, step + 1
            if log:
                log.add(number, values, batches.waited_s, run.lr * rate(step, run))
            if done or number % run.sample_every == 0:
                averaged = ema.gather()
                if log:
                    log.write(number, stage.sample(averaged, out / f"sample-{number:07d}.png"))
                    log.write_curves()
            ema_widths.keep(number, write=team.is_first)
            if done or number % run.save_every == 0 or stopping:
                save_checkpoint(out, number, module, ema, stepper.optimiser, write=team.is_first, **kept)
            if stopping:
                break
    team.wait()
    return ema_widths.chosen(ema.gather()), stopping


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers below 1e-38 count as zero in this thread: small gradients are full of them, and processors compute with
    them up to ten times slower."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class TrainingStepper:
    """One optimiser step: the loss of every part of the batch, its gradient, and the update."""

    def __init__(self, stage: Stage, run: RunSettings, team: Processes) -> None:
        self.stage, self.run, self.team, self.module = stage, run, team, stage.module
        self.objective: nn.Module = _Objective(stage, self.module)
        if team.is_sharded(run):
            shard(self.objective, team.device)
        self.optimiser = stage.optimiser(run)
        self.groups = stage.gradient_groups()
        self.precision = precision_of(run, team.device)
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=self.precision is torch.float16)
        if run.recompute:
            recompute_activations(self.module)

    def prepare(self, *, compiled: bool) -> None:
        """To be called once the weights are loaded."""
        if compiled:
            self.objective.network = self.stage.compiled(self.module)
        if not self.team.is_sharded(self.run):
            self.objective = self.team.wrapped(self.objective)

    def step(self, step: int, parts: list[Batch], out: Path, stop: Callable[[], bool]) -> tuple[dict[str, float], bool]:
        """The values of the step, averaged over all processes, and whether any process was asked to stop."""
        seed_all(self.run.seed * 1_000_003 + step, self.team.device)
        _set_rate(self.optimiser, self.run.lr * rate(step, self.run))
        totals: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            with self.team.unsynchronised(self.objective, number + 1 < len(parts)):
                with self._autocast():
                    loss, values = self.objective(part)
                self.scaler.scale(loss / len(parts)).backward()
            for key, value in {"loss": loss.detach(), **values}.items():
                totals[key] = totals.get(key, 0) + value.float() / len(parts)
        self.scaler.unscale_(self.optimiser)
        norm = max(float(whole(nn.utils.clip_grad_norm_(group, self.run.clip))) for group in self.groups)
        local = torch.stack([*totals.values(), torch.tensor(float(stop()), device=self.team.device)])
        *means, stopping = self.team.mean(local).tolist()
        self._check(means[0], norm, step, out)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return dict(zip(totals, means, strict=True)), stopping > 0

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.team.device.type, self.precision) if self.precision else nullcontext()

    def _check(self, loss: float, norm: float, step: int, out: Path) -> None:
        """Raise before the weights are touched. (An overflow of fp16 gradients is the scaler's to mend.)"""
        what = "loss" if not math.isfinite(loss) else "gradient"
        if not math.isfinite(loss) or (not math.isfinite(norm) and not self.scaler.is_enabled()):
            raise TilegenError(
                f"the {what} became {loss if what == 'loss' else norm} at step {step + 1}: lower run.lr; "
                + (f"the last good checkpoint is in {out}" if has_checkpoint(out) else "nothing was saved yet")
            )


class _Objective(nn.Module):
    """The loss as one call, so that every use of the network is inside the wrapper for many processes."""

    def __init__(self, stage: Stage, network: Any) -> None:
        super().__init__()
        self.network = network
        self._loss = stage.loss

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss(self.network, batch)


def rate(step: int, run: RunSettings) -> float:
    """Learning rate at a step relative to its peak: linear warm-up, constant, square-root cool-down to zero."""
    warm = min(1.0, (step + 1) / max(run.warmup, 1))
    left = (run.steps - step) / max(run.cooldown * run.steps, 1)
    return warm * (1 - math.sqrt(max(0.0, 1 - left)))


def precision_of(run: RunSettings, device: torch.device) -> torch.dtype | None:
    """The autocast type, or None for plain float32. SettingError for fp16 without a GPU."""
    if run.precision == "fp16" and device.type == "cpu":
        raise SettingError("run.precision = fp16: needs a GPU; use bf16 or auto on a CPU")
    return {"auto": fast_dtype(device), "no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[run.precision]


def recompute_activations(module: nn.Module) -> None:
    """Keep no activations inside the blocks of every network in ``module`` that knows how to compute them again."""
    for part in module.modules():
        if getattr(part, "_supports_gradient_checkpointing", False):  # diffusers' networks and ours
            part.enable_gradient_checkpointing()  # type: ignore[operator]
        elif hasattr(part, "set_grad_checkpointing"):  # timm's
            part.set_grad_checkpointing()  # type: ignore[operator]


def _set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
