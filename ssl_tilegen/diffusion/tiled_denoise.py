"""From a denoiser of windows to a clean estimate of the whole canvas.

A tiled denoiser reads the noisy canvas ``x`` and fills ``out`` with its clean estimate; it never changes ``x``. So a
step needs two canvases (a third for rules that look back), and windows or tiles may come in any order. One that has an
``area`` fills only that: the part of the canvas that this process answers for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.guidance import CleanOf
from ssl_tilegen.diffusion.schedule import Step
from ssl_tilegen.diffusion.tiles import HaloTile, exact_tiles, live_tiles
from ssl_tilegen.diffusion.windows import WeightedWindow, WindowsAt
from ssl_tilegen.geometry import Window

_EDGE_BLOCKS = 2

Tick = Callable[[float], None]
"""Called with the part that is done, in (0, 1]."""


def _silent(part: float) -> None:
    pass


def never_blank(window: Window) -> bool:
    """The answer of a canvas without background."""
    return False


def no_blank_blocks(window: Window, side: int) -> NDArray[np.bool_]:
    """False for every block of ``side`` latents of the window."""
    blocks = window.size.ceil_div(side)
    return np.zeros((blocks.rows, blocks.cols), dtype=bool)


class TiledDenoiser(Protocol):
    """A clean estimate of the whole canvas at one step."""

    def __call__(self, x: Canvas, step: Step, out: Canvas, tick: Tick = _silent) -> None:
        """Write the clean estimate of ``x`` at ``step`` to ``out``; ``tick(part)`` follows the progress."""
        ...

    def load(self, step: Step) -> tuple[int, int]:
        """How many network calls and how many latents in them this step takes (guidance not counted)."""
        ...

    def windows(self, step: Step) -> int:
        """How many tiles or windows are computed at this step."""
        ...


@dataclass(frozen=True, eq=False)
class LocalTiledDenoiser:
    """One convolution over the canvas, in tiles with an exact halo where it would not fit in one call.

    ``condition`` gives a window's field (D, h / s, w / s). Ground that is blank takes ``background`` (C,):
    ``blank_blocks`` says so for the blocks of ``align`` latents of a window, so it does not depend on the tiles; the
    blocks at its edge are a mixture, lest one sees it. Tiles are laid about what is not background throughout. Working
    memory is that of one call of the tile ``budget``, whatever the canvas.
    """

    clean_of: CleanOf
    condition: Callable[[Window], Tensor]
    canvas: Window
    halo: int
    align: int
    budget: int
    background: Tensor | None = None
    blank_blocks: Callable[[Window, int], NDArray[np.bool_]] = no_blank_blocks
    area: Window | None = None

    def __post_init__(self) -> None:
        if self.canvas.row % self.align or self.canvas.col % self.align:
            raise ValueError(f"the corner of {self.canvas} is not at a multiple of {self.align}")

    @cached_property
    def tiles(self) -> tuple[list[HaloTile], list[Window]]:
        """Tiles to compute, and windows with blank ground."""
        area = self.area or self.canvas
        if self.background is None:
            return exact_tiles(area, self.canvas, halo=self.halo, align=self.align, budget=self.budget), []
        return live_tiles(area, self.canvas, halo=self.halo, align=self.align, budget=self.budget,
                          live_blocks=lambda core: self._share(core) < 1)  # fmt: skip

    def load(self, step: Step) -> tuple[int, int]:
        """Network calls of a step, and latents that they see, halos included."""
        live, _ = self.tiles
        return len(live), sum(tile.padded.size.area for tile in live)

    def windows(self, step: Step) -> int:
        """Tiles that a step computes."""
        return len(self.tiles[0])

    def __call__(self, x: Canvas, step: Step, out: Canvas, tick: Tick = _silent) -> None:
        """Write the clean estimate of ``x`` to ``out``, tile by tile; background costs no call."""
        live, ground = self.tiles
        for window in ground:
            out[window].copy_(_plain(self.background))
        for done, tile in enumerate(live, 1):
            clean = self.clean_of(x[tile.padded][None], self.condition(tile.padded)[None], step)[0]
            out[tile.core].copy_(clean[:, *tile.core.within(tile.padded).slices])
            if self.background is not None:
                self._mix_background(out[tile.core], self._share(tile.core))
            tick(done / len(live))

    def _share(self, core: Window) -> NDArray[np.float32]:
        """How much of each block of ``align`` latents is background: all of it where everything around is blank, none
        where the block itself is not, and between at the edge of blank ground."""
        side = 2 * _EDGE_BLOCKS + 1
        blank = self.blank_blocks(core.grown(_EDGE_BLOCKS * self.align), self.align)
        around = sliding_window_view(blank, (side, side)).sum((-1, -2))
        return (2 * around / side**2 - 1).clip(0, 1).astype(np.float32)

    def _mix_background(self, place: Tensor, share: NDArray[np.float32]) -> None:
        """Blend background into a view (C, rows, cols) of the canvas by the ``share`` of each block."""
        if share.any():
            each = torch.from_numpy(share.repeat(self.align, 0).repeat(self.align, 1)).to(place)
            place.lerp_(_plain(self.background).to(place), each[: place.shape[1], : place.shape[2]])


@dataclass(frozen=True, eq=False)
class WindowTiledDenoiser:
    """Square windows on a lattice, ``batch`` at a time, their clean estimates added by weights that sum to one.

    ``conditions`` gives the windows' conditions (N, ...). Windows that are wholly ``is_blank`` take ``background`` (C,)
    without a call. Working memory is that of one batch.
    """

    clean_of: CleanOf
    conditions: Callable[[Sequence[Window]], Tensor]
    windows_at: WindowsAt
    batch: int
    background: Tensor | None = None
    is_blank: Callable[[Window], bool] = never_blank
    area: Window | None = None

    def load(self, step: Step) -> tuple[int, int]:
        """Network calls of a step, and latents that they see."""
        windows = self.windows(step)
        return -(-windows // self.batch), windows * self.windows_at(step).side ** 2

    def windows(self, step: Step) -> int:
        """Windows that a step computes."""
        if self.background is None and self.area is None:
            return len(self.windows_at(step))
        return len(self._parted(step)[0])

    def __call__(self, x: Canvas, step: Step, out: Canvas, tick: Tick = _silent) -> None:
        """Write the weighted mean of the windows' clean estimates of ``x`` to ``out``."""
        live, blank = self._parted(step)
        out.data.zero_()
        for weighted in blank:
            out[weighted.window].add_(weighted.weigh(_plain(self.background).to(out.data)))
        for first in range(0, len(live), self.batch):
            weighted_windows = live[first : first + self.batch]
            windows = [weighted.window for weighted in weighted_windows]
            noisy = torch.stack([x[window] for window in windows])
            clean = self.clean_of(noisy, self.conditions(windows), step).to(out.data)
            for weighted, estimate in zip(weighted_windows, clean, strict=True):
                out[weighted.window].add_(weighted.weigh(estimate))
            tick((first + len(weighted_windows)) / len(live))

    def _parted(self, step: Step) -> tuple[list[WeightedWindow], list[WeightedWindow]]:
        """Windows to compute, and blank windows."""
        weighted_windows = [
            weighted
            for weighted in self.windows_at(step)
            if self.area is None or weighted.window.intersection(self.area)
        ]
        if self.background is None:
            return weighted_windows, []
        blank = [self.is_blank(weighted.window) for weighted in weighted_windows]
        return (
            [weighted for weighted, skip in zip(weighted_windows, blank, strict=True) if not skip],
            [weighted for weighted, skip in zip(weighted_windows, blank, strict=True) if skip],
        )


def _plain(background: Tensor | None) -> Tensor:
    """The background latent (C,) as a surface (C, 1, 1)."""
    assert background is not None  # nothing is skipped without it
    return background[:, None, None]
