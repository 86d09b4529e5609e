"""Grids of embeddings on disk: a Zarr v3 group that is written shard by shard and outlives the program that made it.

A grid is a folder with four arrays: ``embedding`` (R, K, D) float16, ``valid`` (R, K) uint8 (see `Validity`),
``tissue`` (R, K) float16 and ``done``, one flag per shard. ``tissue`` is the fraction of the tile that is foreground.
While it is being written it is called ``NAME.part``; it gets its own name when every shard is there. A shard is written
whole by one writer and flagged after its data, so a run that stops anywhere is continued. Any number of processes may
write one grid as long as they take different shards.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from ssl_tilegen.errors import FormatError, InputError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.grids.shard_windows import shards
from ssl_tilegen.grids.spec import GridData, GridSpec, Validity
from ssl_tilegen.grids.store import array_of, counts_of, files_of, identity_of, load_group, unfinished_grid
from ssl_tilegen.system.boundary import first_line

if TYPE_CHECKING:
    from ssl_tilegen.grids.grid_writer import GridWriter


class EmbeddingGrid:
    """A finished grid, open for reading. Attributes of the source and the encoder are in ``spec``.

    Example:
        >>> grid = EmbeddingGrid.open("slide.zarr")
        >>> grid.read().embedding.shape  # rows, columns, length of a vector
        (4, 4, 128)
    """

    def __init__(self, path: Path, group: zarr.Group, spec: GridSpec) -> None:
        self.path, self.spec, self._group = path, spec, group
        self._identity = identity_of(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> EmbeddingGrid:
        """Open the grid at ``path``.

        Args:
            path: Folder of the grid (``.zarr``).

        Returns:
            The grid; its cells are read on demand.

        Raises:
            FormatError: The grid is missing, unfinished, broken or of a newer format.
        """
        path = Path(path)
        if not path.exists():
            raise FormatError(_missing(path))
        identity = identity_of(path)
        group, spec = load_group(path)
        if not np.asarray(array_of(group, "done")[:]).all():
            raise FormatError(f"{path}: the grid is unfinished; run the same embed command again to complete it")
        grid = cls(path, group, spec)
        grid._identity = identity
        return grid

    @staticmethod
    def create(
        path: str | os.PathLike[str], spec: GridSpec, *, restart: bool = False, heal: bool = False
    ) -> GridWriter:
        """Make a grid, or continue an unfinished one.

        Args:
            path: Folder of the grid to be (``.zarr``). Until it is finished its cells lie in ``path.part``.
            spec: Shape, source, resolution and encoder.
            restart: Discard an unfinished grid there.
            heal: Discard one whose source was replaced by another file of its name.

        Returns:
            A writer; `GridWriter.finish` gives the grid its name.

        Raises:
            OutputError: An unfinished grid with another ``spec`` is in the way.
        """
        from ssl_tilegen.grids.grid_writer import GridWriter

        return GridWriter.start(Path(path), spec, restart=restart, heal=heal)

    @property
    def shape(self) -> Size:
        """Rows and columns of cells."""
        return self.spec.shape

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.spec.dim

    @property
    def attributes(self) -> dict[str, Any]:
        """The JSON attributes of the Zarr group."""
        return dict(self._group.attrs)

    def read(self, window: Window | None = None) -> GridData:
        """Read cells into memory.

        Args:
            window: Rows and columns of cells; all by default.

        Returns:
            ``embedding`` (R, K, D) float16, ``valid`` (R, K) uint8 and ``tissue`` (R, K) float16.

        Raises:
            FormatError: A shard is damaged.
            InputError: The grid was replaced or removed since it was opened.
        """
        return GridData(*self.read_only(("embedding", "valid", "tissue"), window))

    def read_only(self, names: Sequence[str], window: Window | None = None) -> list[np.ndarray]:
        """Some of the arrays of the cells of ``window`` (default: all). InputError where another grid has its name."""
        rows, cols = (window or Window.of(self.shape)).slices
        try:
            found = [np.asarray(array_of(self._group, name)[rows, cols]) for name in names]
        except Exception as error:
            self._refuse_replaced()
            raise FormatError(f"{self.path}: damaged grid ({first_line(error)}); embed the source again") from error
        self._refuse_replaced()  # what is not there any more reads as zeros
        return found

    def _refuse_replaced(self) -> None:
        if identity_of(self.path) != self._identity:
            raise InputError(f"{self.path}: was replaced or removed while it was read; run the same command again")

    def read_codes(self) -> GridData:
        """All cells without their embeddings: one zero stands for each."""
        cells = self.read_only(("valid", "tissue"))
        return GridData(np.broadcast_to(np.float16(0), (*cells[0].shape, 1)), *cells)

    def counts(self) -> dict[str, int]:
        """How many cells there are of each validity, by lower-case name."""
        return counts_of(self._group)

    def lost_shards(self) -> list[int]:
        """Shards that are flagged as written but whose data are not there, or are empty files."""
        valid = np.asarray(array_of(self._group, "valid")[:])
        lost = []
        for index, window in enumerate(shards(self.shape)):
            of_valid, of_embedding, _ = files_of(self.path, window)
            needed = [of_valid]
            if (valid[window.slices] == Validity.OK).any():
                needed.append(of_embedding)
            if not all(map(_has_bytes, needed)):
                lost.append(index)
        return lost


class PlannedGrid(EmbeddingGrid):
    """A grid that is not there yet, for plans: all its cells are usable."""

    def __init__(self, path: Path, spec: GridSpec) -> None:
        self.path, self.spec = path, spec

    def read_codes(self) -> GridData:
        """Cells without embeddings, all of them valid."""
        shape = (self.shape.rows, self.shape.cols)
        valid, tissue = np.full(shape, Validity.OK, np.uint8), np.zeros(shape, np.float16)
        return GridData(np.broadcast_to(np.float16(0), (*shape, 1)), valid, tissue)


def is_complete(path: Path) -> bool:
    """Whether a finished grid of this format is at ``path`` with all its parts; False for anything else.

    A copy that was cut short has the flags of shards whose data are not there.
    """
    try:
        grid = EmbeddingGrid.open(path)
    except FormatError:
        return False
    return not grid.lost_shards()


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _missing(path: Path) -> str:
    if unfinished_grid(path).exists():
        return f"{path}: the grid is unfinished; run the same embed command again to complete it"
    return f"{path}: no such grid; make one by `ssl-tilegen embed`"
