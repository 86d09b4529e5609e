"""The training loop that all stages share: steps, moving average, checkpoints, logs.

An item of a batch is made from a generator seeded with (seed, step, place), so the order of data does not depend on
threads, processes or restarts: 20 steps equal 10, a restart, and 10 more.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssl_tilegen.errors import FormatError, TilegenError
from ssl_tilegen.runtime import fast_dtype
from ssl_tilegen.training.optim import make_optimiser
from ssl_tilegen.training.settings import RunSettings

Batch = dict[str, Tensor]
Progress = Callable[[dict[str, Any]], None]


class Stage(Protocol):
    """What a stage brings to the loop."""

    module: Any
    """The network that is trained."""

    def item(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One training item; every random choice comes from ``rng``."""

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and named parts of it for the log."""

    def sample(self, module: Any, path: Path) -> dict[str, float]:
        """Write a picture of what ``module`` (the averaged weights) does now; return validation figures."""


def train_stage(
    stage: Stage, run: RunSettings, out: Path, progress: Progress, device: torch.device, stop: Callable[[], bool]
) -> nn.Module:
    """Train ``stage.module`` to ``run.steps``, continuing from the checkpoint in ``out`` where there is one.

    Returns the module with the averaged weights. ``stop`` is asked after every step; when it says yes the state is
    saved and the loop returns early. Raises TilegenError when the loss is no longer finite (the last checkpoint stays).
    """
    module = stage.module.to(device, memory_format=torch.channels_last)
    average = Average(module, run.ema)
    optimiser = make_optimiser(module, run)
    step = load_checkpoint(out, module, average, optimiser)
    forward = torch.compile(module) if run.compile and step < run.steps else module
    log = Log(out / "log.jsonl", progress)
    with _batches(stage, run, step, device) as batches:
        for step, batch in batches:
            torch.manual_seed(run.seed * 1_000_003 + step)
            _set_rate(optimiser, run.lr * rate(step, run))
            loss, parts = _step(stage, forward, batch, optimiser, run, device)
            average.update(module)
            _check(loss, step, out)
            log.add(step + 1, run, loss, parts)
            done = step + 1 == run.steps
            if done or (step + 1) % run.sample_every == 0:
                log.write(step + 1, stage.sample(average.module, out / f"sample-{step + 1:07d}.png"))
            if done or (step + 1) % run.save_every == 0 or stop():
                save_checkpoint(out, step + 1, module, average, optimiser)
            if stop():
                break
    return average.module


def rate(step: int, run: RunSettings) -> float:
    """Learning rate at a step relative to its peak: linear warm-up, constant, square-root cool-down to zero."""
    warm = min(1.0, (step + 1) / max(run.warmup, 1))
    left = (run.steps - step) / max(run.cooldown * run.steps, 1)
    return warm * (1 - math.sqrt(max(0.0, 1 - left)))


def precision_of(run: RunSettings, device: torch.device) -> torch.dtype | None:
    """The autocast type, or None for plain float32."""
    return {"auto": fast_dtype(device), "no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[run.precision]


def _step(
    stage: Stage,
    module: Any,
    batch: Batch,
    optimiser: torch.optim.Optimizer,
    run: RunSettings,
    device: torch.device,
) -> tuple[Tensor, dict[str, Tensor]]:
    kind = precision_of(run, device)
    with torch.autocast(device.type, kind) if kind else nullcontext():
        loss, parts = stage.loss(module, batch)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), run.clip)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss.detach(), parts


def _set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr


def _check(loss: Tensor, step: int, out: Path) -> None:
    if not torch.isfinite(loss):
        raise TilegenError(
            f"the loss became {loss.item()} at step {step + 1}: lower run.lr; the last good checkpoint is in {out}"
        )


class Average:
    """Exponential moving average of the weights, with the short horizon at first that the early steps need."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine: list[Tensor] = list(self.module.parameters())
        theirs: list[Tensor] = list(module.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for buffer, other in zip(self.module.buffers(), module.buffers(), strict=True):
            buffer.copy_(other)


class _batches:  # noqa: N801 - used as a function
    """Batches from ``start`` on, made on threads ahead of the step; a context manager that ends the threads."""

    def __init__(self, stage: Stage, run: RunSettings, start: int, device: torch.device) -> None:
        self.stage, self.run, self.start, self.device = stage, run, start, device
        self.pool = ThreadPoolExecutor(run.readers)

    def __enter__(self) -> Iterator[tuple[int, Batch]]:
        return self._iterate()

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _iterate(self) -> Iterator[tuple[int, Batch]]:
        ahead = [self._submit(step) for step in range(self.start, min(self.start + 3, self.run.steps))]
        for step in range(self.start, self.run.steps):
            items = [future.result() for future in ahead.pop(0)]
            if step + 3 < self.run.steps:
                ahead.append(self._submit(step + 3))
            yield step, collate(items, self.device)

    def _submit(self, step: int) -> list[Any]:
        def item(place: int) -> dict[str, np.ndarray]:
            return self.stage.item(np.random.default_rng([self.run.seed, step, place]))

        return [self.pool.submit(item, place) for place in range(self.run.batch)]


def collate(items: list[dict[str, np.ndarray]], device: torch.device) -> Batch:
    """Stack items along a new first axis, on the device; image-like tensors in channels_last."""
    batch = {}
    for key in items[0]:
        tensor = torch.from_numpy(np.stack([item[key] for item in items]))
        layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
        batch[key] = tensor.to(device, non_blocking=True, memory_format=layout)
    return batch


class Log:
    """Means over ``log_every`` steps as JSON lines, to a file and to the progress callback."""

    def __init__(self, path: Path, progress: Progress) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.progress = path, progress
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._since = time.monotonic()

    def add(self, step: int, run: RunSettings, loss: Tensor, parts: dict[str, Tensor]) -> None:
        for key, value in {"loss": loss, **parts}.items():
            self._sums[key] = self._sums.get(key, 0.0) + float(value)
        self._steps += 1
        if self._steps < run.log_every:
            return
        seconds = time.monotonic() - self._since
        means = {key: round(value / self._steps, 6) for key, value in self._sums.items()}
        speed = round(self._steps * run.batch / seconds, 2)
        left = round((run.steps - step) * seconds / self._steps)
        self.write(step, {**means, "images_per_s": speed, "eta_s": left, "lr": round(run.lr * rate(step, run), 8)})
        self._sums, self._steps, self._since = {}, 0, time.monotonic()

    def write(self, step: int, facts: dict[str, Any]) -> None:
        record = {"step": step, **facts}
        with self.path.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        self.progress(record)


_CHECKPOINT = "checkpoint"


def save_checkpoint(
    out: Path, step: int, module: nn.Module, average: Average, optimiser: torch.optim.Optimizer
) -> None:
    """Write the whole state beside the last one, then swap: a kill leaves the old or the new, never half of one."""
    fresh, old = out / f"{_CHECKPOINT}.new", out / f"{_CHECKPOINT}.old"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(_dense(module), fresh / "weights.safetensors")
    save_file(_dense(average.module), fresh / "average.safetensors")
    torch.save(optimiser.state_dict(), fresh / "optimiser.pt")
    (fresh / "state.json").write_text(json.dumps({"step": step, "updates": average.updates}))
    final = out / _CHECKPOINT
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.replace(old)
    fresh.replace(final)
    shutil.rmtree(old, ignore_errors=True)


def _dense(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in module.state_dict().items()}


def load_checkpoint(out: Path, module: nn.Module, average: Average, optimiser: torch.optim.Optimizer) -> int:
    """Load the newest whole checkpoint of ``out`` and return its step, 0 where there is none."""
    folder = next((f for f in (out / _CHECKPOINT, out / f"{_CHECKPOINT}.old") if f.exists()), None)
    if folder is None:
        return 0
    try:
        state = json.loads((folder / "state.json").read_text())
        module.load_state_dict(load_file(folder / "weights.safetensors"))
        average.module.load_state_dict(load_file(folder / "average.safetensors"))
        optimiser.load_state_dict(torch.load(folder / "optimiser.pt", weights_only=True, map_location="cpu"))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(
            f"the checkpoint {folder} does not fit this configuration ({reason}); use --restart"
        ) from None
    average.updates = state["updates"]
    return state["step"]
