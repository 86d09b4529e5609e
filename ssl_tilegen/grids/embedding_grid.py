"""Grids of embeddings on disk: a Zarr v3 group that is written shard by shard and outlives the program that made it.

A grid is a folder with four arrays: ``embedding`` (R, K, D) float16, ``valid`` (R, K) uint8 (see `Validity`),
``tissue`` (R, K) float16 (fraction of the tile that is foreground) and ``done``, one flag per shard. While it is being
written it is called ``NAME.part``; it gets its own name when every shard is there. A shard is written whole by one
writer and flagged after its data, so a run that stops anywhere is continued, and any number of processes may share a
grid as long as they take different shards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ssl_tilegen.errors import FormatError, OutputError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.grids.shard_windows import SHARD_CELLS, shards
from ssl_tilegen.grids.spec import (
    FORMAT,
    KIND,
    GridData,
    GridSpec,
    Validity,
    georeference,
)
from ssl_tilegen.system import atomic, marks
from ssl_tilegen.system.budget import check_memory
from ssl_tilegen.system.locks import Busy

CHUNK_CELLS = 16
_FLAG_BYTES = 4096  # what reading the flag of one shard takes while all are read
_CODE_BYTES = 10  # of a cell: its validity, as it is read and as it is counted


class EmbeddingGrid:
    """A finished grid, open for reading. Attributes of the source and the encoder are in ``spec``.

    Example:
        >>> grid = EmbeddingGrid.open("slide.zarr")
        >>> grid.read().embedding.shape  # rows, columns, length of a vector
        (4, 4, 128)
    """

    def __init__(self, path: Path, group: zarr.Group, spec: GridSpec) -> None:
        self.path, self.spec, self._group = path, spec, group

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
        group, spec = _load(path)
        if not np.asarray(_array(group, "done")[:]).all():
            raise FormatError(f"{path}: the grid is unfinished; run the same embed command again to complete it")
        return cls(path, group, spec)

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
        """
        return GridData(*self.read_only(("embedding", "valid", "tissue"), window))

    def read_only(self, names: Sequence[str], window: Window | None = None) -> list[np.ndarray]:
        """Some of the arrays of the cells of ``window`` (default: all)."""
        rows, cols = (window or Window.of(self.shape)).slices
        try:
            return [np.asarray(_array(self._group, name)[rows, cols]) for name in names]
        except Exception as error:
            raise FormatError(f"{self.path}: damaged grid ({_line(error)}); embed the source again") from error

    def read_codes(self) -> GridData:
        """All cells without their embeddings: one zero stands for each."""
        cells = self.read_only(("valid", "tissue"))
        return GridData(np.broadcast_to(np.float16(0), (*cells[0].shape, 1)), *cells)

    def counts(self) -> dict[str, int]:
        """How many cells there are of each validity, by lower-case name."""
        return _counts(self._group)

    def lost_shards(self) -> list[int]:
        """Shards that are flagged as written but whose data are not there, or are empty files."""
        valid = np.asarray(_array(self._group, "valid")[:])
        lost = []
        for index, window in enumerate(shards(self.shape)):
            of_valid, of_embedding, _ = _files_of(self.path, window)
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


class GridWriter:
    """An unfinished grid, at ``path`` + ``.part`` until `finish`. Writers in several processes may share it."""

    def __init__(self, path: Path, part: Path, group: zarr.Group, spec: GridSpec) -> None:
        self.path, self.spec, self._part, self._group = path, spec, part, group
        self.shards: Sequence[Window] = shards(spec.shape)

    @classmethod
    def start(cls, path: Path, spec: GridSpec, *, restart: bool = False, heal: bool = False) -> GridWriter:
        """Make or take up the unfinished grid of ``path``; ``restart`` begins anew, and so does ``heal`` where the
        source was replaced by another file of its name since. OutputError where another run's is in the way.
        """
        part = unfinished_grid(path)
        if restart:
            _discard(part)
        if not part.exists():
            _create(part, spec)
        group, found = _load(part)
        if heal and found != spec and _source_was_replaced(found, spec):
            _discard(part)
            return cls.start(path, spec)
        if found != spec:
            raise OutputError(
                f"{part}: an unfinished run with other settings ({_difference(found, spec)}); "
                "finish that one, or start over with --restart"
            )
        return cls(path, part, group, spec)

    def pending(self) -> list[int]:
        """Indices of the shards that are not yet written, in order."""
        return [int(index) for index in np.flatnonzero(np.asarray(_array(self._group, "done")[:]) == 0)]

    def write_shard(self, index: int, data: GridData) -> None:
        """Store the cells of shard ``index`` and then flag it. The data are those of the window ``shards[index]``."""
        window = self.shards[index]
        if data.valid.shape != (window.rows, window.cols):
            raise ValueError(f"shard {index} has {window.rows} x {window.cols} cells, got {data.valid.shape}")
        for name in ("embedding", "valid", "tissue"):
            _array(self._group, name)[window.slices] = getattr(data, name)
        for file in _files_of(self._part, window):
            _flush_with_folders(file, self._part)
        _array(self._group, "done")[index] = 1

    def counts(self) -> dict[str, int]:
        """How many cells there are of each validity, by lower-case name."""
        return _counts(self._group)

    def finish(self, *, overwrite: bool = False) -> EmbeddingGrid | None:
        """Give the grid its name if every shard is there, else return None (other writers are still at work).

        OutputError where ``path`` already exists and ``overwrite`` is not set, or is no grid of this program.
        """
        if self.pending():
            return None
        for leftover in self._part.rglob("*.partial"):  # of a writer that was killed
            leftover.unlink(missing_ok=True)
        if overwrite and self._part.exists():
            _refuse_foreign(self.path)
        atomic.publish_folder(self._part, self.path, replace=overwrite)
        return EmbeddingGrid.open(self.path)

    def discard(self) -> None:
        """Remove the unfinished grid."""
        _discard(self._part)


def write_grid(
    path: str | os.PathLike[str],
    spec: GridSpec,
    data: GridData,
    *,
    overwrite: bool = False,
    before: Callable[[], None] = lambda: None,
) -> EmbeddingGrid:
    """Write a whole grid from memory, for importers, edited grids and samples of a prior; ``before`` it gets its name,
    that is asked whether it still may."""
    writer = EmbeddingGrid.create(path, spec, restart=True)
    try:
        for index, window in enumerate(writer.shards):
            rows, cols = window.slices
            writer.write_shard(index, GridData(*(a[rows, cols] for a in (data.embedding, data.valid, data.tissue))))
        before()
        grid = writer.finish(overwrite=overwrite)
    except Busy:  # what is there may be the other job's
        raise
    except BaseException:  # nobody goes on with it
        with suppress(Exception):
            writer.discard()
        raise
    assert grid is not None
    return grid


def unfinished_grid(path: Path) -> Path:
    """Where the grid of ``path`` lives while it is unfinished."""
    return path.with_name(path.name + ".part")


def is_complete(path: Path) -> bool:
    """Whether a finished grid of this format is at ``path`` with all its parts; False for anything else.

    A copy that was cut short has the flags of shards whose data are not there.
    """
    try:
        grid = EmbeddingGrid.open(path)
    except FormatError:
        return False
    return not grid.lost_shards()


def is_grid(path: Path) -> bool:
    """Whether ``path`` says that it is an embedding grid, complete or not."""
    try:
        return zarr.open_group(path, mode="r").attrs.get("kind") == KIND
    except Exception:
        return False


def _create(part: Path, spec: GridSpec) -> None:
    """Make the empty group under a name of its own and rename it, so that only one of many processes makes it."""
    mine = atomic.temporary_beside(part)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _layout(zarr.create_group(mine, zarr_format=3, attributes=spec.attributes()), spec)
    except OSError as error:
        atomic.remove(mine)
        raise OutputError(f"{part.parent}: cannot write here ({error.strerror}); choose another -o") from error
    try:
        mine.rename(part)
    except OSError:  # another process was first: its folder is not empty
        atomic.remove(mine)


def _discard(part: Path) -> None:
    """Remove an unfinished grid; OutputError where something else has its name."""
    if os.path.lexists(part):
        _refuse_foreign(part)
        atomic.remove(part)


def _refuse_foreign(path: Path) -> None:
    missing = marks.grid(path) if os.path.lexists(path) else None
    if missing:
        raise OutputError(f"{path}: was not made by this program (it has {missing}); it is left as it is: move it away")


def _source_was_replaced(found: GridSpec, wanted: GridSpec) -> bool:
    """Whether an unfinished grid is of another file than there is by now, of the same name and by the same encoder."""
    old, new = found.source, wanted.source
    same = old.name == new.name and found.encoder == wanted.encoder and found.lattice.stride == wanted.lattice.stride
    return same and old.fingerprint != new.fingerprint


def _files_of(grid: Path, window: Window) -> tuple[Path, Path, Path]:
    """Where a shard's validity, embeddings and tissue lie on the disk."""
    place = f"c/{window.row // SHARD_CELLS}/{window.col // SHARD_CELLS}"
    return grid / "valid" / place, grid / "embedding" / place / "0", grid / "tissue" / place


def _flush_with_folders(file: Path, root: Path) -> None:
    """Have a file and the names of its folders reach the disk; zeros have no file."""
    if not file.exists():
        return
    atomic.flush(file)
    for folder in file.parents:
        atomic.flush(folder)
        if folder == root:
            return


def _layout(group: zarr.Group, spec: GridSpec) -> None:
    """Create the arrays of ``spec`` in an empty group."""
    cells, shard, chunk = (spec.shape.rows, spec.shape.cols), (SHARD_CELLS,) * 2, (CHUNK_CELLS,) * 2
    names = ["row", "col"]
    place = georeference(spec.crs, spec.cell_transform)
    group.create_array(
        "embedding",
        shape=(*cells, spec.dim),
        chunks=(*chunk, spec.dim),
        shards=(*shard, spec.dim),
        dtype="float16",
        fill_value=0,
        dimension_names=[*names, "dim"],
        attributes=place,
    )
    group.create_array(
        "valid",
        shape=cells,
        chunks=shard,
        dtype="uint8",
        fill_value=int(Validity.OUTSIDE),
        config={"write_empty_chunks": True},
        dimension_names=names,
        attributes=place | {"flags": {v.name.lower(): int(v) for v in Validity}},
    )
    group.create_array(
        "tissue", shape=cells, chunks=shard, dtype="float16", fill_value=0, dimension_names=names, attributes=place
    )
    group.create_array("done", shape=(len(shards(spec.shape)),), chunks=(1,), dtype="uint8", fill_value=0)


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _counts(group: zarr.Group) -> dict[str, int]:
    codes = np.bincount(np.asarray(_array(group, "valid")[:]).ravel(), minlength=len(Validity))
    return {code.name.lower(): int(codes[code]) for code in Validity}


def _load(path: Path) -> tuple[zarr.Group, GridSpec]:
    """The group and its specification. FormatError where it is not a grid, newer, or broken."""
    try:
        group = zarr.open_group(path, mode="r+" if path.suffix == ".part" else "r")
        attributes = dict(group.attrs)
    except Exception as error:
        raise FormatError(f"{path}: not an embedding grid ({_line(error)}); make one by `ssl-tilegen embed`") from error
    if attributes.get("kind") != KIND:
        raise FormatError(f"{path}: a Zarr group, but not an embedding grid; make one by `ssl-tilegen embed`")
    if attributes.get("format") != FORMAT:
        raise FormatError(
            f"{path}: grid format {attributes.get('format')}, this version reads {FORMAT}; "
            "upgrade ssl-tilegen (pip install -U ssl-tilegen)"
        )
    try:
        spec = GridSpec.from_attributes(attributes, dim=int(_array(group, "embedding").shape[-1]))
        for name in ("embedding", "valid", "tissue"):
            if tuple(_array(group, name).shape[:2]) != (spec.shape.rows, spec.shape.cols):
                raise ValueError(f"{name} is {_array(group, name).shape}, the lattice has {spec.shape} cells")
        if _array(group, "done").shape != (len(shards(spec.shape)),):
            raise ValueError("the record of shards has a wrong length")
    except Exception as error:
        raise FormatError(f"{path}: damaged grid ({_line(error)}); embed the source again") from error
    check_memory(len(shards(spec.shape)) * _FLAG_BYTES + spec.shape.area * _CODE_BYTES, f"{path}: {spec.shape} cells")
    return group, spec


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of the group; KeyError or TypeError where there is none of this name."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is not an array")
    return array


def _missing(path: Path) -> str:
    if unfinished_grid(path).exists():
        return f"{path}: the grid is unfinished; run the same embed command again to complete it"
    return f"{path}: no such grid; make one by `ssl-tilegen embed`"


def _difference(found: GridSpec, wanted: GridSpec) -> str:
    """The first field in which two specifications differ, for a message."""
    for name, old, new in ((n, getattr(found, n), getattr(wanted, n)) for n in found.__dataclass_fields__):
        if old != new:
            return f"{name}: {old} there, {new} now"
    return "unknown difference"


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
