"""Windows of a step and their weights at every place they cover.

Weights are products of a row and a column factor, each normalised along its axis: so they sum to one everywhere without
a canvas of weights, whatever the size of the canvas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ssl_tilegen.diffusion.noise import addressed_offset
from ssl_tilegen.diffusion.schedule import Step
from ssl_tilegen.geometry import Window, starts


@dataclass(frozen=True, eq=False)
class WindowAxis:
    """Window starts along one axis and their weights (n, window), which sum to 1 at each place of the axis."""

    starts: tuple[int, ...]
    shares: Tensor

    @classmethod
    def covering(cls, length: int, window: int, stride: int, offset: int = 0, *, feather: bool = False) -> WindowAxis:
        """Windows at every ``stride`` from ``offset``; those that reach outside are pulled inside."""
        return cls.at(starts(length, window, stride, offset), length, window, feather=feather)

    @classmethod
    def at(
        cls, places: Sequence[int], length: int, window: int, *, feather: bool = False, profile: Tensor | None = None
    ) -> WindowAxis:
        """Windows that start at ``places`` and cover ``length``, weighted by a ``profile`` (window,) if given."""
        if profile is None:
            profile = hann(window) if feather else torch.ones(window, dtype=torch.float64)
        total = torch.zeros(length, dtype=torch.float64)
        for start in places:
            total[start : start + window] += profile
        shares = torch.stack([profile / total[start : start + window] for start in places])
        return cls(tuple(places), shares.float())


@dataclass(frozen=True, eq=False)
class WeightedWindow:
    """A window (absolute) and its weights: the product of ``row_share`` (W,) and ``col_share`` (W,)."""

    window: Window
    row_share: Tensor
    col_share: Tensor

    def weigh(self, clean: Tensor) -> Tensor:
        """(C, W, W) times this window's weight."""
        return clean * self.row_share.to(clean.device)[:, None] * self.col_share.to(clean.device)


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """All windows of one step over ``canvas``."""

    canvas: Window
    rows: WindowAxis
    cols: WindowAxis

    @property
    def side(self) -> int:
        """Rows and columns of every window."""
        return self.rows.shares.shape[1]

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.cols.starts)

    def __iter__(self) -> Iterator[WeightedWindow]:
        """Row by row."""
        side = self.side
        for row, row_share in zip(self.rows.starts, self.rows.shares, strict=True):
            for col, col_share in zip(self.cols.starts, self.cols.shares, strict=True):
                yield WeightedWindow(
                    Window(row + self.canvas.row, col + self.canvas.col, side, side), row_share, col_share
                )


WindowsAt = Callable[[Step], WindowLayout]


def hann(window: int) -> Tensor:
    """sin^2 weights (window,), never zero; at a stride of window / 2 they already sum to 1."""
    return torch.sin((torch.arange(window, dtype=torch.float64) + 0.5) * torch.pi / window) ** 2


def gaussian(window: int, sigma: float) -> Tensor:
    """Weights exp(-x^2 / sigma^2) (window,) with x from -1 to 1."""
    return torch.exp(-((torch.linspace(-1, 1, window, dtype=torch.float64) / sigma) ** 2))


def overlapping(canvas: Window, window: int, stride: int, *, feather: bool) -> WindowsAt:
    """The same overlapping windows at every step (Bar-Tal et al. 2023; uniform at window / 4: Graikos et al. 2024).

    They lie on the virtual canvas' own lattice, so neighbouring regions share their windows.
    """
    lattice = _lattice(canvas, window, stride, (0, 0), feather)
    return lambda step: lattice


def shifting(canvas: Window, window: int, *, quantum: int = 1, seed: int) -> WindowsAt:
    """Windows side by side, on a lattice that moves in both axes at every step (cf. SpotDiffusion, Frolov et al. 2024).

    They overlap only where the canvas' border pushes them inside, so the cost is that of one pass.
    """

    @lru_cache(maxsize=1)
    def at(index: int) -> WindowLayout:
        return _lattice(canvas, window, window, addressed_offset(window, quantum, seed, index), feather=False)

    return lambda step: at(step.index)


def _lattice(canvas: Window, window: int, stride: int, offset: tuple[int, int], feather: bool) -> WindowLayout:
    rows = WindowAxis.covering(canvas.rows, window, stride, (offset[0] - canvas.row) % stride, feather=feather)
    cols = WindowAxis.covering(canvas.cols, window, stride, (offset[1] - canvas.col) % stride, feather=feather)
    return WindowLayout(canvas, rows, cols)
