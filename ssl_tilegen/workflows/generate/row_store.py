"""Rows of pixels that the processes of one run leave in a shared folder for the one that puts the file together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ssl_tilegen.errors import OutputError
from ssl_tilegen.system import atomic

_SUFFIX = ".rows.npy"


class RowShards:
    """uint8 (rows, width, 3) in files named by their first and last row; each is there whole or not at all.

    Rows may be there twice: processes of an earlier run may have cut them elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, first: int, rows: np.ndarray) -> None:
        """Leave rows that begin at row ``first`` of the image. OutputError where they cannot be stored."""
        file = self._folder / f"{first}-{first + len(rows)}{_SUFFIX}"
        try:
            with atomic.writing(file) as unfinished:
                np.save(unfinished, rows)
        except OSError as error:
            raise OutputError(f"{file}: cannot be written ({error.strerror}); free some room, or choose another place "
                              "with -o") from error  # fmt: skip

    def reach(self, row: int) -> int:
        """The first row from ``row`` on that is missing."""
        while (found := self._with(row)) is not None:
            row = found[1]
        return row

    def rows_from(self, row: int) -> Iterator[np.ndarray]:
        """All rows from ``row`` to the first that is missing, in pieces."""
        while (found := self._with(row)) is not None:
            first, last, file = found
            yield np.load(file, mmap_mode="r")[row - first :]
            row = last

    def _with(self, row: int) -> tuple[int, int, Path] | None:
        """The shard that holds a row; of several the one that reaches furthest."""
        every = (self._placed(file) for file in self._folder.glob(f"*{_SUFFIX}") if not atomic.is_temporary(file.name))
        return max((s for s in every if s[0] <= row < s[1]), key=lambda s: s[1], default=None)

    @staticmethod
    def _placed(file: Path) -> tuple[int, int, Path]:
        first, last = file.name.removesuffix(_SUFFIX).split("-")
        return int(first), int(last), file
