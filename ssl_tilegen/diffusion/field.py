"""The condition field: a grid of embeddings made continuous over the plane of latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ssl_tilegen.diffusion.slerp import raw_slerp, slerp
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Window


@dataclass(frozen=True, eq=False)
class ConditionField:
    """Embeddings (R, K, D) whose cell (0, 0) sits at ``origin`` and whose neighbours are ``spacing`` apart.

    Positions are (row, col) in latents of the virtual canvas, edges at whole numbers: latent k has its centre at
    k + 0.5. Between cells the four nearest are interpolated on the sphere, along columns and then rows; beyond the
    outermost centres the field stays as it is there. ``blank`` (R, K) marks cells known to be background. ``share`` is
    stride over tile: the part of its tile, on each axis, that is a cell's own. ``raw``: vectors are interpolated as
    they are, as published samplers do, not by direction and length.
    """

    embedding: Tensor
    origin: tuple[float, float]
    spacing: tuple[float, float]
    blank: NDArray[np.bool_]
    share: float = 1.0
    raw: bool = False

    @classmethod
    def of_grid(
        cls,
        embedding: ArrayLike,
        *,
        tile_px: float,
        stride_px: float,
        factor: int,
        corner_px: tuple[float, float] = (0.0, 0.0),
        stretch: tuple[float, float] = (1.0, 1.0),
        valid: ArrayLike | None = None,
        blank: ArrayLike | None = None,
    ) -> ConditionField:
        """Place a grid (R, K, D) on a canvas of ``factor`` px per latent.

        Canvas pixel = (grid pixel - ``corner_px``) * ``stretch``: a crop has the crop's corner and stretch 1, a
        stretched layout has corner (0, 0) and the ratio of the sizes. Cells that are not
        ``valid`` take the embedding of the nearest valid one.
        """
        cells = np.asarray(embedding, dtype=np.float32)
        if cells.ndim != 3 or 0 in cells.shape:
            raise InputError(f"embeddings must be (rows, cols, dim) and not empty, got shape {cells.shape}")
        cells = cells if valid is None else fill_invalid(cells, np.asarray(valid, dtype=bool))
        mask = np.zeros(cells.shape[:2], dtype=bool) if blank is None else np.asarray(blank, dtype=bool)
        rows, cols = (
            ((tile_px / 2 - corner) * scale / factor, stride_px * scale / factor)
            for corner, scale in zip(corner_px, stretch, strict=True)
        )
        share = min(1.0, stride_px / tile_px)
        return cls(torch.from_numpy(cells.copy()), (rows[0], cols[0]), (rows[1], cols[1]), mask, share)

    @property
    def dim(self) -> int:
        """Length of a cell's vector."""
        return self.embedding.shape[-1]

    def to(self, device: torch.device | str) -> ConditionField:
        """This field with its embeddings on ``device``, where it then also interpolates."""
        return replace(self, embedding=self.embedding.to(device))

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> Tensor:
        """The field (D, len(rows), len(cols)) at the crossings of row and column positions (latents)."""
        r0, r1, wr = self._between(rows, 0)
        c0, c1, wc = self._between(cols, 1)
        used, place = np.unique(np.concatenate([r0, r1]), return_inverse=True)
        strip = self.embedding[used]
        strip = self._slerp(strip[:, c0], strip[:, c1], wc)
        above, below = place[: len(r0)], place[len(r0) :]
        return self._slerp(strip[above], strip[below], wr[:, None]).permute(2, 0, 1)

    def sample_window(self, window: Window, stride: int) -> Tensor:
        """The field (D, ceil(rows / stride), ceil(cols / stride)) at the centres of a window's blocks of latents."""
        n = window.size.ceil_div(stride)
        rows = window.row + (np.arange(n.rows) + 0.5) * stride
        cols = window.col + (np.arange(n.cols) + 0.5) * stride
        return self.sample(rows, cols)

    def vectors(self, positions: ArrayLike) -> Tensor:
        """The field (n, D) at positions (n, 2) in latents."""
        points = np.asarray(positions, dtype=np.float64).reshape(-1, 2)
        r0, r1, wr = self._between(points[:, 0], 0)
        c0, c1, wc = self._between(points[:, 1], 1)
        above = self._slerp(self.embedding[r0, c0], self.embedding[r0, c1], wc)
        below = self._slerp(self.embedding[r1, c0], self.embedding[r1, c1], wc)
        return self._slerp(above, below, wr)

    @property
    def _slerp(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return raw_slerp if self.raw else slerp

    def is_blank(self, window: Window) -> bool:
        """Whether every cell that has a say in this window is background."""
        return bool(self._all_blank([window.row], [window.row_end], [window.col], [window.col_end])[0, 0])

    def blank_blocks(self, window: Window, side: int) -> NDArray[np.bool_]:
        """``is_blank`` of a window's blocks of ``side`` latents: (ceil(rows / side), ceil(cols / side))."""
        n = window.size.ceil_div(side)
        rows, cols = window.row + np.arange(n.rows) * side, window.col + np.arange(n.cols) * side
        row_ends, col_ends = np.minimum(rows + side, window.row_end), np.minimum(cols + side, window.col_end)
        return self._all_blank(rows, row_ends, cols, col_ends)

    def _grid_position(self, positions: ArrayLike, axis: int) -> NDArray[np.float64]:
        """Positions in latents -> positions in cells, clamped to the outermost centres."""
        cells = (np.asarray(positions, dtype=np.float64) - self.origin[axis]) / self.spacing[axis]
        return np.clip(cells, 0, self.embedding.shape[axis] - 1)

    def _between(self, positions: ArrayLike, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Tensor]:
        """The two cells around each position on one axis, and the weight (n,) of the second."""
        cells = self._grid_position(positions, axis)
        low = np.floor(cells).astype(np.int64)
        high = np.minimum(low + 1, self.embedding.shape[axis] - 1)
        return low, high, torch.from_numpy((cells - low).astype(np.float32)).to(self.embedding.device)

    def _all_blank(
        self, rows: ArrayLike, row_ends: ArrayLike, cols: ArrayLike, col_ends: ArrayLike
    ) -> NDArray[np.bool_]:
        """Whether the products of row and column intervals (latents) see nothing but background."""
        top, bottom = self._touched(rows, row_ends, 0)
        left, right = self._touched(cols, col_ends, 1)
        table = self._tissue_table
        corners = (table[np.ix_(at, across)] for at in (top, bottom) for across in (left, right))
        top_left, top_right, bottom_left, bottom_right = corners
        return bottom_right - bottom_left - top_right + top_left == 0

    def _touched(self, starts: ArrayLike, ends: ArrayLike, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and past-the-last cell that has a say in each interval."""
        low, high = self._grid_position(starts, axis), self._grid_position(ends, axis)
        return np.floor(low).astype(np.int64), np.ceil(high).astype(np.int64) + 1

    @cached_property
    def _tissue_table(self) -> NDArray[np.int64]:
        """Summed-area table of the cells that are not background."""
        return np.pad((~self.blank).cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))


def fill_invalid(cells: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Embeddings (R, K, D) in which each cell that is not ``valid`` (R, K) takes its nearest valid one's."""
    if valid.shape != cells.shape[:2]:
        raise InputError(f"the validity mask is {valid.shape}, the grid of embeddings is {cells.shape[:2]}")
    if not valid.any():
        raise InputError("the grid has no valid cell: there is nothing to generate from")
    if valid.all():
        return cells
    from scipy.ndimage import distance_transform_edt

    rows, cols = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return cells[rows, cols]
