"""The log of a run: JSON lines, the progress callback, TensorBoard where it is installed, curves as PNG."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssl_tilegen.config.train import RunSettings
from ssl_tilegen.system.atomic import write_text
from ssl_tilegen.training.curves import draw_curves

LogProgress = Callable[[dict[str, Any]], None]


class Log:
    """Means over ``log_every`` steps as JSON lines in ``folder/log.jsonl``, and to the progress callback.

    Lines of steps after ``start`` are left from a run that was killed after its last checkpoint, and are dropped.
    """

    def __init__(self, folder: Path, run: RunSettings, progress: LogProgress, start: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path, self.run, self.progress = folder, folder / "log.jsonl", run, progress
        _drop_lines_after(self.path, start)
        self._board = _tensorboard(folder, start)
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._since, self._waited = time.monotonic(), 0.0

    def add(self, step: int, facts: dict[str, float], waited_s: float, lr: float) -> None:
        """The values of one step; ``waited_s`` is how long all steps so far have waited for data."""
        for key, value in facts.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._steps += 1
        if self._steps < self.run.log_every:
            return
        seconds = time.monotonic() - self._since
        means = {key: round(value / self._steps, 6) for key, value in self._sums.items()}
        speed = {
            "images_per_s": round(self._steps * self.run.batch / seconds, 2),
            "data_wait": round((waited_s - self._waited) / seconds, 4),
            "eta_s": round((self.run.steps - step) * seconds / self._steps),
        }
        self.write(step, {**means, **speed, "lr": round(lr, 8)})
        self._sums, self._steps, self._since, self._waited = {}, 0, time.monotonic(), waited_s

    def write(self, step: int, facts: dict[str, Any]) -> None:
        """One record."""
        record = {"step": step, **facts}
        with self.path.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        if self._board:
            for key, value in facts.items():
                self._board.add_scalar(key, value, step)
            self._board.flush()
        self.progress(record | {"steps": self.run.steps})

    def write_curves(self) -> None:
        """The curves so far as ``curves.png``."""
        draw_curves(self.path, self.folder / "curves.png")


def _drop_lines_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        with suppress(ValueError, KeyError, TypeError):  # a kill may have cut the last line
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    write_text(path, "".join(kept))


def _tensorboard(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
