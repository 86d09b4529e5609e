"""The shards of a grid: the windows of cells that are written and flagged one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from ssl_tilegen.geometry import Size, Window

SHARD_CELLS = 32


def shards(cells: Size) -> Sequence[Window]:
    """The shards of a grid of ``cells``: disjoint windows of cells that cover it, row by row."""
    return Shards(cells)


@dataclass(frozen=True)
class Shards(Sequence[Window]):
    """The shards of a grid of ``cells`` by arithmetic: a grid may declare more than any memory holds."""

    cells: Size

    @property
    def _per_row(self) -> int:
        return -(-self.cells.cols // SHARD_CELLS)

    def __len__(self) -> int:
        return -(-self.cells.rows // SHARD_CELLS) * self._per_row

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Window]: ...
    def __getitem__(self, index: int | slice) -> Window | Sequence[Window]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row, col = (n * SHARD_CELLS for n in divmod(range(len(self))[index], self._per_row))
        return Window(row, col, min(SHARD_CELLS, self.cells.rows - row), min(SHARD_CELLS, self.cells.cols - col))
