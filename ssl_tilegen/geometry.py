"""Sizes, windows and lattices on an integer plane.

Everything is (row, col), half-open and in whole units of whatever plane it lives on (level-0 pixels, output pixels,
latents, grid cells); the unit is said by the name of the variable that holds it (``size_px``, ``window_lat``).
Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """Rows and columns, both positive."""

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows <= 0 or self.cols <= 0:
            raise ValueError(f"a size must be positive, got {self.rows} x {self.cols}")

    @property
    def area(self) -> int:
        """Rows times columns."""
        return self.rows * self.cols

    def scaled(self, factor: float) -> Size:
        """This size times ``factor``, rounded, at least 1 x 1."""
        return Size(max(1, round(self.rows * factor)), max(1, round(self.cols * factor)))

    def ceil_div(self, by: int) -> Size:
        """The number of ``by``-sized steps that cover this size."""
        return Size(-(-self.rows // by), -(-self.cols // by))

    def __str__(self) -> str:
        return f"{self.cols} x {self.rows}"


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The half-open rectangle [row, row + rows) x [col, col + cols); may start at negative coordinates."""

    row: int
    col: int
    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows <= 0 or self.cols <= 0:
            raise ValueError(f"a window must be positive, got {self.rows} x {self.cols}")

    @classmethod
    def of(cls, size: Size) -> Window:
        """The window that covers all of ``size``."""
        return cls(0, 0, size.rows, size.cols)

    @property
    def row_end(self) -> int:
        """The first row below the window."""
        return self.row + self.rows

    @property
    def col_end(self) -> int:
        """The first column to the right of the window."""
        return self.col + self.cols

    @property
    def size(self) -> Size:
        """Rows and columns."""
        return Size(self.rows, self.cols)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices; only for windows at non-negative coordinates."""
        if self.row < 0 or self.col < 0:
            raise ValueError(f"cannot slice at negative coordinates: {self}")
        return slice(self.row, self.row_end), slice(self.col, self.col_end)

    def shifted(self, rows: int, cols: int) -> Window:
        """The same window moved by so many rows and columns."""
        return Window(self.row + rows, self.col + cols, self.rows, self.cols)

    def grown(self, margin: int) -> Window:
        """This window with ``margin`` more on all four sides."""
        return Window(self.row - margin, self.col - margin, self.rows + 2 * margin, self.cols + 2 * margin)

    def scaled(self, factor: int) -> Window:
        """The same rectangle on a plane ``factor`` times finer."""
        return Window(self.row * factor, self.col * factor, self.rows * factor, self.cols * factor)

    def aligned(self, step: int) -> Window:
        """The smallest window around this one whose edges are multiples of ``step``."""
        row, col = self.row // step * step, self.col // step * step
        return Window(row, col, -(-self.row_end // step) * step - row, -(-self.col_end // step) * step - col)

    def intersection(self, other: Window) -> Window | None:
        """The intersection of both windows; None where they do not overlap."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        rows, cols = min(self.row_end, other.row_end) - row, min(self.col_end, other.col_end) - col
        return Window(row, col, rows, cols) if rows > 0 and cols > 0 else None

    def contains(self, other: Window) -> bool:
        """Whether ``other`` lies inside."""
        return self.intersection(other) == other

    def within(self, outer: Window) -> Window:
        """This window in coordinates whose origin is ``outer``'s corner."""
        return self.shifted(-outer.row, -outer.col)


@dataclass(frozen=True, slots=True)
class Lattice:
    """Tiles of ``tile`` x ``tile`` at every ``stride`` on a plane of ``size``.

    A cell is one tile's place in the grid. Only tiles that lie wholly inside count. A plane smaller than a tile still
    has one cell per axis, whose tile reaches beyond the plane. With ``partial`` the last tile of each axis may reach
    beyond the plane too, so that no pixel is left over.
    """

    size: Size
    tile: int
    stride: int
    partial: bool = False

    def __post_init__(self) -> None:
        if self.tile <= 0 or self.stride <= 0:
            raise ValueError(f"tile and stride must be positive, got {self.tile} and {self.stride}")

    @classmethod
    def covering(cls, size: Size, tile: int, stride: int) -> Lattice:
        """The lattice under whose tiles every pixel lies; ``partial`` only where whole tiles leave some over."""
        whole, all_of_it = cls(size, tile, stride), cls(size, tile, stride, partial=True)
        return whole if whole.shape == all_of_it.shape else all_of_it

    @property
    def shape(self) -> Size:
        """Rows and columns of cells."""
        return Size(self._count(self.size.rows), self._count(self.size.cols))

    def _count(self, length: int) -> int:
        if length <= self.tile:
            return 1
        if not self.partial:
            return (length - self.tile) // self.stride + 1
        return min(-(-(length - self.tile) // self.stride) + 1, -(-length // self.stride))

    def window(self, row: int, col: int) -> Window:
        """The tile of the cell at grid position (row, col)."""
        return Window(row * self.stride, col * self.stride, self.tile, self.tile)

    def centre(self, row: int, col: int) -> tuple[float, float]:
        """Centre of the cell's tile, in units of the plane (edges, not pixel centres, at whole numbers)."""
        return row * self.stride + self.tile / 2, col * self.stride + self.tile / 2

    def cells(self) -> Iterator[tuple[int, int]]:
        """All grid positions, row by row."""
        for row in range(self.shape.rows):
            for col in range(self.shape.cols):
                yield row, col


def cover(size: Size, step: Size) -> Iterator[Window]:
    """Disjoint windows of at most ``step`` that cover ``size``, row by row."""
    for row in range(0, size.rows, step.rows):
        for col in range(0, size.cols, step.cols):
            yield Window(row, col, min(step.rows, size.rows - row), min(step.cols, size.cols - col))


def starts(length: int, window: int, stride: int, offset: int = 0) -> list[int]:
    """Start positions of windows that together cover ``[0, length)`` on one axis.

    Windows begin at ``offset - k * stride`` onwards; those that would reach outside are pulled inside, duplicates
    are dropped. Needs ``window <= length``.
    """
    if window > length:
        raise ValueError(f"window {window} is larger than the axis {length}")
    if stride > window:
        raise ValueError(f"stride {stride} is larger than the window {window}: places would stay uncovered")
    first = offset % stride - stride if offset % stride else 0
    last = length - window
    wanted = (min(max(first + k * stride, 0), last) for k in range(math.ceil((length - first) / stride)))
    return sorted(set(wanted))


@dataclass(frozen=True, slots=True)
class Resolution:
    """How much ground or tissue one pixel covers: ``value`` micrometres (``um``, slides) or metres (``m``, rasters)."""

    value: float
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in ("um", "m"):
            raise ValueError(f"the unit of a resolution is 'um' or 'm', got {self.unit!r}")
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(f"a resolution must be positive and finite, got {self.value}")

    @classmethod
    def stated(cls, mpp: float | None, gsd: float | None) -> Resolution | None:
        """``mpp`` um/px or ``gsd`` m/px; None where neither is given."""
        if mpp is not None:
            return cls(mpp, "um")
        return cls(gsd, "m") if gsd is not None else None

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}/px"
