"""All levels of a pyramid at once, from rows that arrive top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ssl_tilegen.geometry import Size

SMALLEST_LEVEL_PX = 256


def pyramid_sizes(size: Size, smallest_px: int = SMALLEST_LEVEL_PX) -> tuple[Size, ...]:
    """Sizes of the levels, each half the one before (rounded up), until the longer side is ``smallest_px`` or less."""
    sizes = [size]
    while max(sizes[-1].rows, sizes[-1].cols) > smallest_px:
        sizes.append(sizes[-1].ceil_div(2))
    return tuple(sizes)


def halve(rows: np.ndarray, level: int) -> np.ndarray:
    """2 x 2 means of uint8 (h, W, 3), rounded; a last odd row or column is the mean of what there is.

    Exact halves are rounded up and down in turn by ``level``: always up would brighten the coarse levels.
    """
    odd_rows, odd_cols = rows.shape[0] % 2, rows.shape[1] % 2
    if odd_rows or odd_cols:
        rows = np.pad(rows, ((0, odd_rows), (0, odd_cols), (0, 0)), mode="edge")
    pairs = np.add(rows[0::2], rows[1::2], dtype=np.uint16).reshape(len(rows) // 2, -1)
    sums = pairs[:, :-3] + pairs[:, 3:]  # of every pixel and its next, half of them for nothing: vectors are faster
    sums += 1 + level % 2
    sums >>= 2
    half = np.empty((len(pairs), rows.shape[1] // 2, 3), np.uint8)
    for band in range(3):
        half[..., band] = sums[:, band::6]
    return half


class Cascade:
    """Takes level-0 rows; hands out, for each level, whole rows of tiles as soon as they are full.

    ``put(level, first_row, rows)`` receives them, to be used before it returns: uint8 (block_rows or fewer at the end,
    level width, 3). Holds one row of tiles per level, i.e. 2 x block_rows x width x 3 bytes.
    """

    def __init__(self, sizes: Sequence[Size], block_rows: int, put: Callable[[int, int, np.ndarray], None]) -> None:
        self._sizes = tuple(sizes)
        self._block_rows = block_rows
        self._put = put
        self._given = [0] * len(self._sizes)  # rows handed out
        self._waiting = [np.empty((block_rows, size.cols, 3), np.uint8) for size in self._sizes]
        self._filled = [0] * len(self._sizes)  # rows that wait
        self._single = [np.empty((0, size.cols, 3), np.uint8) for size in self._sizes]  # a row that lacks its partner

    def add(self, rows: np.ndarray, level: int = 0) -> None:
        """Take the next rows of a level, and with them what they complete below it."""
        rows_in = self._given[level] + self._filled[level] + len(rows)
        self._hand_out(level, rows, last=rows_in == self._sizes[level].rows)
        if level + 1 == len(self._sizes):
            return
        rows = np.concatenate([self._single[level], rows]) if len(self._single[level]) else rows
        whole = len(rows) if rows_in == self._sizes[level].rows else len(rows) // 2 * 2
        self._single[level] = rows[whole:].copy()
        if whole:
            self.add(halve(rows[:whole], level), level + 1)

    def _hand_out(self, level: int, rows: np.ndarray, last: bool) -> None:
        while len(rows):
            filled = self._filled[level]
            taken = min(len(rows), self._block_rows - filled)
            self._waiting[level][filled : filled + taken] = rows[:taken]
            self._filled[level], rows = filled + taken, rows[taken:]
            if self._filled[level] == self._block_rows or (last and not len(rows)):
                self._put(level, self._given[level], self._waiting[level][: self._filled[level]])
                self._given[level] += self._filled[level]
                self._filled[level] = 0

    def state(self) -> dict[str, np.ndarray]:
        """All that is needed to go on from here."""
        state = {"given": np.array(self._given)}
        for level in range(len(self._sizes)):
            state[f"waiting{level}"] = self._waiting[level][: self._filled[level]]
            state[f"single{level}"] = self._single[level]
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a ``state`` of a cascade with the same sizes."""
        self._given = [int(rows) for rows in state["given"]]
        for level in range(len(self._sizes)):
            waiting = state[f"waiting{level}"]
            self._filled[level] = len(waiting)
            self._waiting[level][: len(waiting)] = waiting
        self._single = [state[f"single{level}"] for level in range(len(self._sizes))]
