"""Windows that a prior is trained on: which piece is drawn, and how pieces are cut, or laid side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ssl_tilegen.training.data.prior_cells import Piece
from ssl_tilegen.training.data.prior_table import PriorRow


class Placed(NamedTuple):
    """A window: ``cells`` (S, S, D), their ``state`` (S, S), -2 where there are none, and ``joints`` (2, S, S) bool:
    whether the cell to the left, or above, is of another piece that was laid beside it."""

    cells: np.ndarray
    state: np.ndarray
    joints: np.ndarray


class PieceSampler:
    """Draws pieces: a label by its share to the power ``balance``, then a group, then a piece of it."""

    def __init__(self, rows: list[PriorRow], pieces: list[Piece], balance: float) -> None:
        self._pieces, self._rows = pieces, rows
        self._of: dict[Any, dict[str, list[int]]] = {}
        for index, piece in enumerate(pieces):
            row = rows[piece.row]
            self._of.setdefault(row.label, {}).setdefault(row.group, []).append(index)
        self._labels = list(self._of)
        sizes = np.array([sum(map(len, groups.values())) for groups in self._of.values()], float) ** balance
        self._until = np.cumsum(sizes / sizes.sum())

    def __call__(self, rng: np.random.Generator, *, label: str | None = None, like: Piece | None = None) -> Piece:
        """Any piece, or one of a label, or one that may share a window with another (of the same domain)."""
        found = self._drawn(rng, label)
        while like is not None and self._rows[found.row].domain != self._rows[like.row].domain:
            found = self._drawn(rng, None)
        return found

    def _drawn(self, rng: np.random.Generator, label: str | None) -> Piece:
        if label is None:
            place = int(np.searchsorted(self._until, rng.random(), side="right"))
            label = self._labels[min(place, len(self._labels) - 1)]
        groups = list(self._of[label].values())
        sizes = np.array([len(group) for group in groups], float)
        group = groups[int(rng.choice(len(groups), p=sizes / sizes.sum()))]
        return self._pieces[group[int(rng.integers(len(group)))]]

    def sibling(self, piece: Piece, rng: np.random.Generator) -> Piece:
        """Another piece of the same label, group and shape; itself where there is none."""
        row = self._rows[piece.row]
        group = self._of[row.label][row.group]
        found = self._pieces[group[int(rng.integers(len(group)))]]
        return found if found.state.shape == piece.state.shape else piece


def cut(piece: Piece, side: int, rng: np.random.Generator) -> Placed:
    """A window of a piece that is at least as large."""
    row, col = (int(rng.integers(length - side + 1)) for length in piece.state.shape)
    part = np.s_[row : row + side, col : col + side]
    return Placed(piece.cells[part], piece.state[part], np.zeros((2, side, side), bool))


def placed(pieces: list[tuple[Piece, int, int]], side: int) -> Placed:
    """Pieces at their rows and columns of a window, as far as they lie in it."""
    cells = np.zeros((side, side, pieces[0][0].cells.shape[-1]), np.float16)
    state, owner = np.full((side, side), -2, np.int8), np.full((side, side), -1)
    for number, (piece, row, col) in enumerate(pieces):
        rows, cols = piece.state.shape
        top, left = max(row, 0), max(col, 0)
        to, of = np.s_[top : row + rows, left : col + cols], np.s_[top - row :, left - col :]
        room = state[to].shape
        cells[to], state[to] = piece.cells[of][: room[0], : room[1]], piece.state[of][: room[0], : room[1]]
        owner[to] = number
    return Placed(cells, state, _steps(owner) & (owner >= 0))


def shared(first: Placed, second: Placed, rng: np.random.Generator) -> tuple[Placed, np.ndarray]:
    """A window of two sources, and which of its cells are of the second, bool. The border between them is no joint:
    the conditions tell where it is."""
    other = region(first.state.shape, rng) & (first.state > -2) & (second.state > -2)
    cells = np.where(other[..., None], second.cells, first.cells)
    joints = np.where(other, second.joints, first.joints) & ~_steps(other)
    return Placed(cells, np.where(other, second.state, first.state), joints), other


def _steps(values: np.ndarray) -> np.ndarray:
    """Where values (S, S) differ from those to their left, and from those above: (2, S, S) bool."""
    steps = np.zeros((2, *values.shape), bool)
    steps[0, :, 1:] = values[:, 1:] != values[:, :-1]
    steps[1, 1:] = values[1:] != values[:-1]
    return steps


def region(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A random part of a window, bool: one side of a slanted line."""
    row, col = np.indices(shape)
    angle = rng.random() * 2 * np.pi
    middle = [rng.random() * length for length in shape]
    return (row + 0.5 - middle[0]) * np.sin(angle) + (col + 0.5 - middle[1]) * np.cos(angle) > 0
