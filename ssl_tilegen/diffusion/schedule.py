"""Noise schedules: how much signal and noise there is at every step of sampling.

At step k a latent is ``x = alpha_k * clean + sigma_k * noise``. Variance-preserving models (alpha^2 + sigma^2 = 1) and
flow models (alpha = 1 - sigma) differ in nothing else. Built from the ``scheduler_config.json`` of a diffusers folder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_tilegen.errors import FormatError, SettingError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Step:
    """One step, from noise level (alpha, sigma) to (next_alpha, next_sigma); ``t`` is the network's time.

    ``last_log_snr`` is log(alpha / sigma) of the level before, -inf where there is none; ``beta`` the variance of the
    one training step at ``t``, 0 for schedules that have none.
    """

    index: int
    t: float
    alpha: float
    sigma: float
    next_alpha: float
    next_sigma: float
    last_log_snr: float = -math.inf
    beta: float = 0.0

    @property
    def noise_fraction(self) -> float:
        """Noise as a part of the whole, sigma / (alpha + sigma): 1 pure noise, 0 clean; a flow model's own t."""
        return self.sigma / (self.alpha + self.sigma)


@dataclass(frozen=True, eq=False)
class Schedule:
    """``alpha``, ``sigma`` and network time ``t`` of n_steps + 1 noise levels, noisiest first; the last sigma is 0."""

    alpha: Floats
    sigma: Floats
    t: Floats
    beta: Floats | None = None

    def __len__(self) -> int:
        """The number of steps."""
        return len(self.sigma) - 1

    def step(self, index: int) -> Step:
        """The step from level ``index`` to the next."""
        a, s = self.alpha.tolist(), self.sigma.tolist()
        last = log_snr(a[index - 1], s[index - 1]) if index > 0 else -math.inf
        beta = 0.0 if self.beta is None else float(self.beta[index])
        return Step(index, float(self.t[index]), a[index], s[index], a[index + 1], s[index + 1], last, beta)

    def steps(self, start: int = 0) -> Iterator[Step]:
        """The steps from level ``start`` down to clean."""
        return map(self.step, range(start, len(self)))

    def tail(self, strength: float) -> Schedule:
        """The last ``strength`` of the schedule's steps (at least one), to repaint a latent that exists already."""
        if not 0 < strength <= 1:
            raise SettingError(f"strength must lie in (0, 1], got {strength:g}: 1 repaints everything")
        start = len(self) - max(1, round(strength * len(self)))
        beta = None if self.beta is None else self.beta[start:]
        return Schedule(self.alpha[start:], self.sigma[start:], self.t[start:], beta)

    def starting_twice(self) -> Schedule:
        """This schedule with its second level twice, for update rules that correct their first step there.

        SettingError where it begins at pure noise, of which such rules know nothing.
        """
        if self.alpha[0] == 0:
            raise SettingError("update plms: this model's schedule begins at pure noise; use ddim or dpmpp_2m")
        if len(self) < 2:
            return self
        beta = None if self.beta is None else np.insert(self.beta, 1, self.beta[1])
        alpha, sigma, t = (np.insert(values, 1, values[1]) for values in (self.alpha, self.sigma, self.t))
        return Schedule(alpha, sigma, t, beta)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], n_steps: int) -> Schedule:
        """The schedule of ``n_steps`` steps of a diffusers scheduler configuration."""
        if n_steps < 1:
            raise SettingError(f"steps must be at least 1, got {n_steps}")
        return _flow(config, n_steps) if _is_flow(config) else _variance_preserving(config, n_steps)

    @classmethod
    def at_times(
        cls, config: Mapping[str, Any], times: Sequence[float], n_steps: int | None = None, start: float = 1.0
    ) -> Schedule:
        """The schedule of a few-step model: its own ``times`` (noise fractions, falling), spread over ``n_steps``
        steps.

        By default as many steps as times, and exactly these; else the times are interpolated. ``start``: the noise
        fraction to begin at, with as many of the steps as lie below it (at least one). A flow model has every fraction;
        other schedules take the nearest that they were trained at.
        """
        fractions = np.append(_spread(check_times(times), n_steps or len(times), start), 0.0)
        if _is_flow(config):
            return cls(1 - fractions, fractions, fractions.copy())
        alpha_bar = _alpha_bar(config)
        alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
        t = np.abs(sigma / (alpha + sigma) - fractions[:-1, None]).argmin(axis=1)
        return cls(np.append(alpha[t], 1.0), np.append(sigma[t], 0.0), np.append(t, 0).astype(np.float64))


def log_snr(alpha: float, sigma: float) -> float:
    """log(alpha / sigma), -inf for pure noise and +inf for clean."""
    if alpha <= 0:
        return -math.inf
    return math.inf if sigma <= 0 else math.log(alpha / sigma)


def check_times(times: Sequence[float]) -> tuple[float, ...]:
    """``times`` as they are. SettingError unless they fall from 1 and stay above 0."""
    if not times or times[0] != 1 or times[-1] <= 0 or any(a <= b for a, b in pairwise(times)):
        raise SettingError(f"times {list(times)}: expected noise fractions that fall from 1 and stay above 0")
    return tuple(times)


def _spread(times: Sequence[float], n_steps: int, start: float) -> Floats:
    """Noise fractions at even places of the curve through ``times`` and a last 0, from ``start`` on."""
    if n_steps < 1:
        raise SettingError(f"steps must be at least 1, got {n_steps}")
    if not 0 < start <= 1:
        raise SettingError(f"strength must lie in (0, 1], got {start:g}: 1 repaints everything")
    knots = np.append(np.asarray(times, dtype=np.float64), 0.0)
    first = float(np.interp(start, knots[::-1], np.arange(len(knots))[::-1]))
    share = 1 - first / len(times)
    n = max(1, round(share * n_steps))
    places = first + (len(times) - first) * np.arange(n) / n
    return np.interp(places, np.arange(len(knots)), knots)


def _is_flow(config: Mapping[str, Any]) -> bool:
    return str(config.get("_class_name", "")).startswith("FlowMatch")


def _flow(config: Mapping[str, Any], n_steps: int) -> Schedule:
    """Rectified flow: sigma falls evenly from 1 to 0, bent by ``shift`` (Esser et al. 2024, eq. 23)."""
    shift = float(config.get("shift", 1.0))
    even = np.linspace(1.0, 0.0, n_steps + 1)
    sigma = shift * even / (1 + (shift - 1) * even)
    return Schedule(1 - sigma, sigma, sigma.copy())


def _variance_preserving(config: Mapping[str, Any], n_steps: int) -> Schedule:
    alpha_bar = _alpha_bar(config)
    t = _timesteps(config, n_steps, len(alpha_bar))
    last = config.get("last_alpha_bar")  # of a recipe, as its time_offset
    alpha_bar_at = np.append(alpha_bar[t], 1.0 if last is None else alpha_bar[last])
    times = np.append(t + int(config.get("time_offset", 0)), 0).astype(np.float64)
    return Schedule(np.sqrt(alpha_bar_at), np.sqrt(1 - alpha_bar_at), times, _betas(config)[t])


def _alpha_bar(config: Mapping[str, Any]) -> Floats:
    """Squared weight of the signal at each training step."""
    alpha_bar = np.cumprod(1 - _betas(config), dtype=np.float64)
    if not config.get("rescale_betas_zero_snr", False):
        return alpha_bar
    root = np.sqrt(alpha_bar)  # stretched so that the last level is pure noise (Lin et al. 2024, algorithm 1)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def _betas(config: Mapping[str, Any]) -> Floats:
    if config.get("trained_betas") is not None:
        return np.asarray(config["trained_betas"], dtype=np.float64)
    n = int(config.get("num_train_timesteps", 1000))
    low, high = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    schedule = config.get("beta_schedule", "linear")
    if schedule == "linear":
        return np.linspace(low, high, n)
    if schedule == "scaled_linear":
        return np.linspace(low**0.5, high**0.5, n) ** 2
    if schedule == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, eq. 17
        bar = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * math.pi / 2) ** 2
        return np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    raise FormatError(f"scheduler_config.json: unknown beta_schedule {schedule!r}; known: linear, scaled_linear, "
                      "squaredcos_cap_v2")  # fmt: skip


def _timesteps(config: Mapping[str, Any], n_steps: int, n_train: int) -> NDArray[np.int64]:
    """Which of the ``n_train`` training steps are visited, noisiest first (Lin et al. 2024, table 2)."""
    if n_steps > n_train:
        raise SettingError(f"steps must be at most {n_train}, the number the model was trained with, got {n_steps}")
    spacing = config.get("timestep_spacing", "leading")
    if spacing == "leading":
        t = np.arange(n_steps, dtype=np.float64)[::-1] * (n_train // n_steps) + int(config.get("steps_offset", 0))
    elif spacing == "trailing":
        t = np.round(np.arange(n_train, 0, -n_train / n_steps))[:n_steps] - 1
    elif spacing == "linspace":
        t = np.round(np.linspace(0, n_train - 1, n_steps))[::-1]
    else:
        raise FormatError(f"scheduler_config.json: unknown timestep_spacing {spacing!r}; known: leading, trailing, "
                          "linspace")  # fmt: skip
    return np.clip(t, 0, n_train - 1).astype(np.int64)
