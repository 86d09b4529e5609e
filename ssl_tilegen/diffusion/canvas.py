"""The latent canvas: one big float32 array in memory, on a device, or mapped to a scratch file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.diffusion.noise import BLOCK_LAT
from ssl_tilegen.geometry import Window
from ssl_tilegen.system.memmap_scratch import memmap_scratch

_BAND_BYTES = 8 << 20


class Canvas:
    """Latents ``data`` (C, rows, cols) in float32 over the absolute ``window`` of a virtual canvas.

    ``core`` is the part that is wanted; the rest is bleed, there so that the core's edges look like its inside.
    ``whole`` is the canvas of which this is a part, where many processes paint one.

    Memory: ``channels * window.area * 4`` bytes, in RAM or on ``device``; with ``scratch`` (a folder) in an unnamed
    file there instead, which the system pages in and out and which vanishes with the process. Whoever walks it by
    ``bands`` holds 8 MiB (or 64 rows) at a time, so a mapped canvas needs little memory, whatever its height.
    """

    def __init__(
        self,
        window: Window,
        channels: int,
        *,
        core: Window | None = None,
        whole: Window | None = None,
        device: torch.device | str = "cpu",
        scratch: Path | None = None,
    ) -> None:
        self.window = window
        self.core = core or window
        self.whole = whole or window
        self.scratch = scratch
        shape = (channels, window.rows, window.cols)
        mapped = None if scratch is None else memmap_scratch(shape, np.float32, scratch)
        self.data = torch.zeros(shape, device=device) if mapped is None else torch.from_numpy(mapped)

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return self.data.shape[0]

    def like(self, times: int = 1) -> Canvas:
        """A zero canvas of the same place, size and kind, with ``times`` as many channels."""
        return Canvas(self.window, times * self.channels, core=self.core, whole=self.whole, device=self.data.device,
                      scratch=self.scratch)  # fmt: skip

    def bands(self) -> Iterator[Window]:
        """Full-width absolute windows, top to bottom, of at most 8 MiB or one row of noise blocks each."""
        return bands_of(self.window, self.channels)

    def __getitem__(self, window: Window) -> Tensor:
        """A view (C, rows, cols) of an absolute window, which must lie inside."""
        if not self.window.contains(window):
            raise ValueError(f"{window} is not inside the canvas {self.window}")
        return self.data[:, *window.within(self.window).slices]

    def __setitem__(self, window: Window, values: Tensor) -> None:
        """Copy values (C, rows, cols) into an absolute window, which must lie inside."""
        self[window].copy_(values)

    def add(self, window: Window, noise: Tensor, weight: float) -> None:
        """Add ``weight`` times ``noise`` (C, rows, cols) to an absolute window, in place."""
        self[window].add_(noise.to(self.data.device), alpha=weight)


def bands_of(window: Window, channels: int) -> Iterator[Window]:
    """The ``Canvas.bands`` of a canvas over ``window``."""
    blocks = _BAND_BYTES // (4 * channels * window.cols * BLOCK_LAT)
    rows = BLOCK_LAT * max(1, blocks)
    for row in range(window.row // rows * rows, window.row_end, rows):
        first, last = max(row, window.row), min(row + rows, window.row_end)
        yield Window(first, window.col, last - first, window.cols)
