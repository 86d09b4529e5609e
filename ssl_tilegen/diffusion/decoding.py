"""From latents to pixels, band by band."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.tiles import exact_tiles
from ssl_tilegen.diffusion.windows import WindowAxis, gaussian
from ssl_tilegen.geometry import Window

Decode = Callable[[Tensor], Tensor]
"""Latents (N, C, h, w) -> pixels (N, 3, factor * h, factor * w) in about [-1, 1]."""

Pixels = NDArray[np.uint8]


def exact_bands(decode: Decode, canvas: Canvas, *, factor: int, halo: int, rows: int, budget: int,
                first: int = 0) -> Iterator[Pixels]:  # fmt: skip
    """The core of a canvas as bands (factor * rows, width, 3), each equal to that part of one decoding of the whole.

    For decoders that reach no further than ``halo`` latents. Bands that lie wholly above pixel row ``first`` of the
    core are passed by. Memory: one band, and one call of ``budget`` latents.
    """
    core = canvas.core
    for row in range(core.row + first // factor // rows * rows, core.row_end, rows):
        area = Window(row, core.col, min(rows, core.row_end - row), core.cols)
        band = np.empty((area.rows * factor, area.cols * factor, 3), dtype=np.uint8)
        for tile in exact_tiles(area, canvas.window, halo=halo, budget=budget):
            pixels = decode(canvas[tile.padded][None])[0]
            kept = tile.core.within(tile.padded).scaled(factor).slices
            band[tile.core.within(area).scaled(factor).slices] = to_uint8(pixels[:, *kept])
        yield band


def blended_bands(decode: Decode, canvas: Canvas, *, factor: int, window: int, batch: int,
                  first: int = 0, hop: int = 0, sigma: float = 0.0) -> Iterator[Pixels]:  # fmt: skip
    """The core of a canvas as bands (any rows, width, 3), from feathered windows at half overlap.

    With ``hop`` (latents) windows lie that far apart, and with ``sigma`` their weights are exp(-(x^2 + y^2) / sigma^2)
    over [-1, 1], as published samplers decode.
    For decoders whose output depends on all they are given. The core is given from pixel row ``first`` on; windows
    above and below are passed by. Memory: ``12 * factor^2 * window * width`` bytes of sums (width in latents), and one
    batch.
    """
    whole, core = canvas.whole, canvas.core.within(canvas.whole)
    side = min(window, whole.rows, whole.cols)
    down = _pixel_axis(whole.rows, side, factor, hop, sigma)
    across = _pixel_axis(whole.cols, side, factor, hop, sigma)
    sums = torch.zeros(3, side * factor, whole.cols * factor, device=canvas.data.device)
    ends = [*down.starts[1:], whole.rows * factor]
    top = core.row * factor + first
    for start, end, share in zip(down.starts, ends, down.shares.to(sums), strict=True):
        if start + side * factor > top and start < core.row_end * factor:
            row = start // factor + whole.row - canvas.window.row
            _add_row(sums, decode, canvas, row, side, across, share, batch)
        upper, lower = max(start, top), min(end, core.row_end * factor)
        if upper < lower:
            done = sums[:, upper - start : lower - start, core.col * factor : core.col_end * factor]
            yield to_uint8(done)
        sums = torch.cat([sums[:, end - start :], torch.zeros_like(sums[:, : end - start])], dim=1)


def to_uint8(pixels: Tensor) -> Pixels:
    """(3, h, w) in [-1, 1] -> (h, w, 3) in 0..255."""
    scaled = (pixels.float() + 1).mul_(127.5).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _pixel_axis(length: int, side: int, factor: int, hop: int = 0, sigma: float = 0.0) -> WindowAxis:
    """Windows of ``side`` latents at half overlap or every ``hop``, in pixels; starts stay at whole latents."""
    latents = WindowAxis.covering(length, side, hop or max(1, side // 2))
    starts = [start * factor for start in latents.starts]
    profile = gaussian(side * factor, sigma) if sigma else None
    return WindowAxis.at(starts, length * factor, side * factor, feather=True, profile=profile)


def _add_row(sums: Tensor, decode: Decode, canvas: Canvas, row: int, side: int, across: WindowAxis, row_share: Tensor,
             batch: int) -> None:  # fmt: skip
    """Add one row of windows, whose top is latent ``row`` of the canvas, to ``sums`` (3, factor * side, width)."""
    shares = across.shares.to(sums)
    pixels_side = shares.shape[1]
    factor = pixels_side // side
    for first in range(0, len(across.starts), batch):
        starts = across.starts[first : first + batch]
        latents = torch.stack([canvas.data[:, row : row + side, s // factor : s // factor + side] for s in starts])
        weighted = decode(latents).to(sums) * row_share[:, None] * shares[first : first + batch, None, None]
        for start, piece in zip(starts, weighted, strict=True):
            sums[:, :, start : start + pixels_side] += piece
