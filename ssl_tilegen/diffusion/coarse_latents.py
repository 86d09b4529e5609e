"""Coarse latents: a first guess, decoded from each cell's own vector and laid over the plane.

The condition field blends neighbouring vectors, which tells a network what lies somewhere but not where exactly. A
linear map fitted to the training data decodes a vector into the image that its cell most likely is; side by side
these make a coarse image of the whole canvas, and the network paints on top of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.guidance import CleanOf
from ssl_tilegen.diffusion.schedule import Step
from ssl_tilegen.geometry import Window

DecodeCells = Callable[[Tensor], Tensor]
"""Vectors (..., D) -> their images (..., C, side, side)."""


@dataclass(frozen=True)
class LocalCondition:
    """The condition of a local model for a window: the field at ``stride``, then the coarse latents, folded to that
    stride.

    ``side``: samples of a cell's image on each axis (0: the model takes no coarse latents), ``layout_dim``: how many
    of the vector's last numbers are layout.
    """

    stride: int
    layout_dim: int = 0
    side: int = 0
    decode_cells: DecodeCells | None = None

    def __call__(self, field: ConditionField, window: Window, *, layout: bool = True) -> Tensor:
        """(D [+ C * stride^2], rows / stride, cols / stride); without ``layout`` all that depends on it is NaN."""
        values = field.sample_window(window, self.stride)
        if self.layout_dim and not layout:
            values[-self.layout_dim :] = torch.nan
        if self.decode_cells is None or not self.side:
            return values
        if layout:
            return torch.cat(
                [values, pixel_unshuffle(coarse_latents(field, self.decode_cells, self.side, window), self.stride)]
            )
        channels = self.decode_cells(field.embedding[:1, :1]).shape[2] * self.stride**2
        return torch.cat([values, values.new_full((channels, *values.shape[1:]), torch.nan)])


def condition_while(clean_of: CleanOf, above: float, dim: int, layout_dim: int) -> CleanOf:
    """``clean_of`` that is conditioned on the layout only while the noise fraction is at least ``above``.

    So the layout says where things lie, and what they look like there is the network's own. ``dim``: length of the
    vectors that conditions (N, dim [+ coarse latents], h, w) begin with.
    """

    def clean(x: Tensor, cond: Tensor | None, step: Step) -> Tensor:
        if cond is not None and step.noise_fraction < above:
            cond = cond.clone()
            cond[:, dim - layout_dim :] = torch.nan
        return clean_of(x, cond, step)

    return clean


def coarse_latents(field: ConditionField, decode_cells: DecodeCells, side: int, window: Window) -> Tensor:
    """The coarse latents (C, rows, cols) at the latents of ``window``: the cells' images, each over its own part of
    the plane, read bilinearly; beyond the grid its edge goes on. Of tiles that overlap the inner part is used.

    Only the cells under the window are decoded.
    """
    inner_side = max(1, round(side * field.share))
    rows = _between(field, window.row, window.rows, 0, inner_side)
    cols = _between(field, window.col, window.cols, 1, inner_side)
    first_r, last_r = rows[0][0] // inner_side, rows[1][-1] // inner_side + 1
    first_c, last_c = cols[0][0] // inner_side, cols[1][-1] // inner_side + 1
    inner = slice((side - inner_side) // 2, (side - inner_side) // 2 + inner_side)
    cells = decode_cells(field.embedding[first_r:last_r, first_c:last_c])[..., inner, inner]
    image = cells.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    image = _mixed(image, rows, first_r * inner_side, 1)
    return _mixed(image, cols, first_c * inner_side, 2)


Between = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def _between(field: ConditionField, start: int, length: int, axis: int, inner_side: int) -> Between:
    """The two samples around each latent of a stretch, and the weight of the second."""
    centres = start + np.arange(length) + 0.5
    cells = (centres - field.origin[axis]) / field.spacing[axis] + 0.5
    last = field.embedding.shape[axis] * inner_side - 1
    place = np.clip(cells * inner_side - 0.5, 0, last)
    low = np.floor(place + 1e-6).astype(np.int64)
    weight = np.clip(place - low, 0, 1).astype(np.float32)
    return low, np.minimum(low + 1, last), np.where(weight < 1e-4, 0, weight)


def _mixed(image: Tensor, between: Between, first: int, axis: int) -> Tensor:
    low, high, weight = between
    index = torch.from_numpy(low - first).to(image.device)
    if not weight.any():
        return image.index_select(axis, index)
    after = torch.from_numpy(np.minimum(high - first, image.shape[axis] - 1)).to(image.device)
    shape = [-1 if a == axis else 1 for a in range(3)]
    share = torch.from_numpy(weight).to(image).view(shape)
    return image.index_select(axis, index).lerp(image.index_select(axis, after), share)
