"""All levels of a pyramid at once, from rows that arrive top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ssl_tilegen.geometry import Size
from ssl_tilegen.system.memmap_scratch import memmap_scratch

SMALLEST_LEVEL_PX = 256
_OWN_BYTES = 24 << 20
_STRIP_BYTES = 2 << 20


def pyramid_sizes(size: Size, smallest_px: int = SMALLEST_LEVEL_PX) -> tuple[Size, ...]:
    """Sizes of the levels, each half the one before (rounded up), until the longer side is ``smallest_px`` or less."""
    sizes = [size]
    while max(sizes[-1].rows, sizes[-1].cols) > smallest_px:
        sizes.append(sizes[-1].ceil_div(2))
    return tuple(sizes)


def halve(rows: np.ndarray, level: int) -> np.ndarray:
    """2 x 2 means of uint8 (h, W, 3), rounded; a last odd row or column is the mean of its pixels.

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
    level width, 3). What is not yet a row of tiles waits: 2 x block_rows x width x 3 bytes over all levels (100 MB at
    a width of 32,768 px). No more than 24 MiB of that are the process's own memory: wider levels wait in unnamed files
    in ``scratch``, if it is given, which the system pages out where it needs the room. Rows that are whole rows of
    tiles as they come do not wait.
    """

    def __init__(
        self,
        sizes: Sequence[Size],
        block_rows: int,
        put: Callable[[int, int, np.ndarray], None],
        scratch: Path | None = None,
    ) -> None:
        self._sizes = tuple(sizes)
        self._block_rows = block_rows
        self._put = put
        self._scratch = scratch
        self._given = [0] * len(self._sizes)  # rows handed out
        self._waiting: list[np.ndarray | None] = [None] * len(self._sizes)  # made when first needed
        self._filled = [0] * len(self._sizes)  # rows that wait
        self._single = [np.empty((0, size.cols, 3), np.uint8) for size in self._sizes]  # a row that lacks its partner

    def add(self, rows: np.ndarray, level: int = 0) -> None:
        """Take the next rows of a level, and the rows of coarser levels that they complete."""
        rows_in = self._given[level] + self._filled[level] + len(rows)
        last = rows_in == self._sizes[level].rows
        self._hand_out(level, rows, last)
        if level + 1 == len(self._sizes):
            return
        if len(self._single[level]):  # only the row's partner is joined to it: the rest need not be copied
            pair = np.concatenate([self._single[level], rows[:1]])
            self._single[level], rows = pair[:0], rows[1:]
            self.add(halve(pair, level), level + 1)
        whole = len(rows) if last else len(rows) // 2 * 2
        self._single[level] = rows[whole:].copy()
        strip = self._strip_rows(level)
        for first in range(0, whole, strip):
            self.add(halve(rows[first : min(first + strip, whole)], level), level + 1)

    def _strip_rows(self, level: int) -> int:
        """So many rows are halved at once, an even number: the means need several times their memory."""
        return min(64, max(2, _STRIP_BYTES // (3 * self._sizes[level].cols) // 2 * 2))

    def _hand_out(self, level: int, rows: np.ndarray, last: bool) -> None:
        block = self._block_rows
        while len(rows):
            filled = self._filled[level]
            if not filled and (len(rows) >= block or last):
                done, rows = rows[:block], rows[block:]
            else:
                taken = min(len(rows), block - filled)
                waiting = self._buffer(level)
                waiting[filled : filled + taken] = rows[:taken]
                self._filled[level], rows = filled + taken, rows[taken:]
                if self._filled[level] < block and (len(rows) or not last):
                    continue
                done = waiting[: self._filled[level]]
            self._put(level, self._given[level], done)
            self._given[level] += len(done)
            self._filled[level] = 0

    def _buffer(self, level: int) -> np.ndarray:
        """Where rows of a level wait, (block_rows, width, 3)."""
        found = self._waiting[level]
        if found is None:
            shape = (self._block_rows, self._sizes[level].cols, 3)
            if self._scratch is None or 2 * math.prod(shape) <= _OWN_BYTES:  # so that all coarser ones fit as well
                found = np.empty(shape, np.uint8)
            else:
                found = memmap_scratch(shape, np.uint8, self._scratch)
            self._waiting[level] = found
        return found

    def state(self) -> dict[str, np.ndarray]:
        """All that is needed to go on from here."""
        state = {"given": np.array(self._given)}
        for level, filled in enumerate(self._filled):
            state[f"waiting{level}"] = self._buffer(level)[:filled] if filled else self._single[level][:0]
            state[f"single{level}"] = self._single[level]
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a ``state`` of a cascade with the same sizes."""
        self._given = [int(rows) for rows in state["given"]]
        for level in range(len(self._sizes)):
            waiting = state[f"waiting{level}"]
            self._filled[level] = len(waiting)
            if len(waiting):
                self._buffer(level)[: len(waiting)] = waiting
        self._single = [state[f"single{level}"] for level in range(len(self._sizes))]
