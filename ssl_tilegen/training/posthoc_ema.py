"""Averages of the weights whose width is chosen after the run (Karras et al. 2024, arXiv 2312.02696, section 3).

Two averages with power-function profiles are kept while training, and now and then a snapshot of both. Any other
width is then the combination of snapshots whose profile comes nearest to the wanted one by least squares.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ssl_tilegen.config.train import RunSettings
from ssl_tilegen.errors import FormatError, SettingError
from ssl_tilegen.system.atomic import writing
from ssl_tilegen.training.ema import EMA

WIDTHS = (0.05, 0.1)
_FOLDER = "snapshots"
_SNAPSHOT = re.compile(r"\d+-[\d.e+-]+\.safetensors")


class PowerEMA(EMA):
    """Weights up to now, each counted in proportion to a power of its time; ``width``: the standard deviation of that
    profile relative to the time trained."""

    def __init__(self, module: nn.Module, width: float) -> None:
        super().__init__(module, 0.0)
        self.width, self._exponent = width, exponent_of(width)

    def _kept(self) -> float:
        return (1 - 1 / self.updates) ** (self._exponent + 1)


class EMAWidths:
    """The two averages of a run and their snapshots in ``out``; nothing at all where ``run.snapshots`` is 0."""

    def __init__(self, module: nn.Module, run: RunSettings, out: Path) -> None:
        self.run, self.folder = run, out / _FOLDER
        self.averages = [PowerEMA(module, width) for width in WIDTHS] if run.snapshots else []
        self._every = max(1, -(-run.steps // max(run.snapshots, 1)))
        self._still = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
        if run.ema_width is not None and not run.snapshots and not self._found():
            raise self._nothing()

    def follow(self, module: nn.Module) -> None:
        """Let all averages have the structure of ``module``."""
        for ema in self.averages:
            ema.follow(module)

    def update(self, module: nn.Module) -> None:
        """Move all averages by one step towards the weights of ``module``."""
        for ema in self.averages:
            ema.update(module)

    def keep(self, step: int, *, write: bool) -> None:
        """A snapshot where one is due, and no more of them than ``run.snapshots`` allows. All processes call it."""
        if not self.averages or (step % self._every and step != self.run.steps):
            return
        for ema in self.averages:
            module = ema.gather()
            if write:
                self._write(module, ema, step)
        if write:
            for path in self._found():
                of = int(path.name.split("-")[0])
                if of > step or (of % self._every and of != step):  # of a run that was told another length
                    path.unlink()

    def _write(self, module: nn.Module, ema: PowerEMA, step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{step:08d}-{ema.width:g}.safetensors"
        weights = {name: value.detach().cpu().half().contiguous() for name, value in module.named_parameters()}
        facts = {"updates": ema.updates, "width": ema.width}
        with writing(path) as part:
            save_file(weights, part, {"profile": json.dumps(facts)})

    @torch.no_grad()
    def chosen(self, module: nn.Module) -> nn.Module:
        """``module``, whole, with the weights of ``run.ema_width``; as it is where none is asked for, or where the run
        was stopped before its first snapshot. Weights that do not learn stay to the bit."""
        if self.run.ema_width is None:
            return module
        found = self._found()
        if not found and any(ema.updates for ema in self.averages):
            return module
        if not found:
            raise self._nothing()
        shares = combination([_profile(path) for path in found], self.run.ema_width)
        learning = [(name, own) for name, own in module.named_parameters() if name not in self._still]
        for _, parameter in learning:
            parameter.zero_()
        for path, share in zip(found, shares, strict=True):
            weights = load_file(path)
            for name, parameter in learning:
                parameter.add_(weights[name].to(parameter), alpha=float(share))
        return module

    def _found(self) -> list[Path]:
        """The snapshots; not the temporary file of a killed run, nor a user's own."""
        return sorted(path for path in self.folder.glob("*.safetensors") if _SNAPSHOT.fullmatch(path.name))

    def _nothing(self) -> SettingError:
        return SettingError(f"run.ema_width: {self.folder} has no snapshots; train with run.snapshots = 16")


def _profile(path: Path) -> tuple[float, float]:
    """(updates, width) of a snapshot."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts = (file.metadata() or {}).get("profile")
    try:
        read = json.loads(facts or "")
        return float(read["updates"]), float(read["width"])
    except (ValueError, TypeError, KeyError):
        raise FormatError(f"{path}: not a snapshot of an average; remove it") from None


def exponent_of(width: float) -> float:
    """The power whose profile has the relative standard deviation ``width`` (Karras et al. 2024, eq. 126)."""
    t = width**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


def combination(profiles: list[tuple[float, float]], width: float) -> np.ndarray:
    """Shares (N,) of snapshots, by their (updates, width), whose sum comes nearest to the profile of ``width`` at the
    last of them."""
    last = max(updates for updates, _ in profiles)
    times = np.array([updates for updates, _ in profiles])
    powers = np.array([exponent_of(own) for _, own in profiles])
    between = _overlap(times[:, None], powers[:, None], times[None], powers[None])
    wanted = _overlap(times, powers, np.full_like(times, last), np.full_like(powers, exponent_of(width)))
    return np.linalg.lstsq(between, wanted, rcond=None)[0]


def _overlap(a: np.ndarray, p: np.ndarray, b: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The integral of the product of two profiles that end at a and b, of powers p and q."""
    least, most = np.minimum(a, b), np.maximum(a, b)
    of_shorter, of_longer = np.where(a < b, p, q), np.where(a < b, q, p)
    return (p + 1) * (q + 1) * (least / most) ** of_longer / (most * (of_shorter + of_longer + 1))
