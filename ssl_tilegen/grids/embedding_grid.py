"""Grids of embeddings on disk: a Zarr v3 group that is written shard by shard and outlives the program that made it.

A grid is a folder with four arrays: ``embedding`` (R, K, D) float16, ``valid`` (R, K) uint8 (see `Validity`),
``tissue`` (R, K) float16 (fraction of the tile that is foreground) and ``done``, one flag per shard. While it is being
written it is called ``NAME.part``; it gets its own name when every shard is there. A shard is written whole by one
writer and flagged after its data, so a run that stops anywhere is continued, and any number of processes may share a
grid as long as they take different shards.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ssl_tilegen.errors import FormatError, OutputError
from ssl_tilegen.geometry import Size, Window, cover
from ssl_tilegen.grids.spec import (
    FORMAT,
    KIND,
    GridData,
    GridSpec,
    Validity,
    georeference,
)
from ssl_tilegen.system.folders import replace_folder

SHARD_CELLS = 32
CHUNK_CELLS = 16


class EmbeddingGrid:
    """A finished grid, open for reading. Attributes of the source and the encoder are in ``spec``."""

    def __init__(self, path: Path, group: zarr.Group, spec: GridSpec) -> None:
        self.path, self.spec, self._group = path, spec, group

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> EmbeddingGrid:
        """The grid at ``path``. FormatError where it is missing, unfinished, broken or of a newer format."""
        path = Path(path)
        if not path.exists():
            raise FormatError(_missing(path))
        group, spec = _load(path)
        if not np.asarray(_array(group, "done")[:]).all():
            raise FormatError(f"{path}: the grid is unfinished; run the same embed command again to complete it")
        return cls(path, group, spec)

    @staticmethod
    def create(path: str | os.PathLike[str], spec: GridSpec, *, restart: bool = False) -> GridWriter:
        """A writer for a grid that is to be at ``path``; continues an unfinished one unless ``restart``."""
        return GridWriter.start(Path(path), spec, restart=restart)

    @property
    def shape(self) -> Size:
        return self.spec.shape

    @property
    def dim(self) -> int:
        return self.spec.dim

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self._group.attrs)

    def read(self, window: Window | None = None) -> GridData:
        """The cells of ``window`` (default: all), read into memory."""
        rows, cols = (window or Window.of(self.shape)).slices
        try:
            arrays = (np.asarray(_array(self._group, name)[rows, cols]) for name in ("embedding", "valid", "tissue"))
            return GridData(*arrays)
        except Exception as error:
            raise FormatError(f"{self.path}: damaged grid ({_line(error)}); embed the source again") from error

    def counts(self) -> dict[str, int]:
        """How many cells there are of each validity, by lower-case name."""
        return _counts(self._group)

    def lost_shards(self) -> list[int]:
        """Shards that are flagged as written but whose data are not there, or are empty files."""
        valid = np.asarray(_array(self._group, "valid")[:])
        lost = []
        for index, window in enumerate(shards(self.shape)):
            place = f"c/{window.row // SHARD_CELLS}/{window.col // SHARD_CELLS}"
            needed = ["valid/" + place]
            if (valid[window.slices] == Validity.OK).any():
                needed.append(f"embedding/{place}/0")
            if not all(_has_bytes(self.path / name) for name in needed):
                lost.append(index)
        return lost


class GridWriter:
    """An unfinished grid, at ``path`` + ``.part`` until `finish`. Writers in several processes may share it."""

    def __init__(self, path: Path, part: Path, group: zarr.Group, spec: GridSpec) -> None:
        self.path, self.spec, self._part, self._group = path, spec, part, group
        self.shards: tuple[Window, ...] = shards(spec.shape)

    @classmethod
    def start(cls, path: Path, spec: GridSpec, *, restart: bool = False) -> GridWriter:
        """Make or take up the unfinished grid of ``path``. OutputError where another run's is in the way."""
        part = part_of(path)
        if restart and part.exists():
            shutil.rmtree(part)
        if not part.exists():
            _create(part, spec)
        group, found = _load(part)
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
        _array(self._group, "done")[index] = 1

    def counts(self) -> dict[str, int]:
        """How many cells there are of each validity, by lower-case name."""
        return _counts(self._group)

    def finish(self, *, overwrite: bool = False) -> EmbeddingGrid | None:
        """Give the grid its name if every shard is there, else return None (other writers are still at work).

        OutputError where ``path`` already exists and ``overwrite`` is not set.
        """
        if self.pending():
            return None
        replace_folder(self._part, self.path, overwrite=overwrite)
        return EmbeddingGrid.open(self.path)


def shards(cells: Size) -> tuple[Window, ...]:
    """The shards of a grid of ``cells``: disjoint windows of cells that cover it, row by row."""
    return tuple(cover(cells, Size(SHARD_CELLS, SHARD_CELLS)))


def write_grid(
    path: str | os.PathLike[str], spec: GridSpec, data: GridData, *, overwrite: bool = False
) -> EmbeddingGrid:
    """Write a whole grid from memory, for importers, edited grids and samples of a prior."""
    writer = EmbeddingGrid.create(path, spec, restart=True)
    for index, window in enumerate(writer.shards):
        rows, cols = window.slices
        writer.write_shard(index, GridData(*(a[rows, cols] for a in (data.embedding, data.valid, data.tissue))))
    grid = writer.finish(overwrite=overwrite)
    assert grid is not None
    return grid


def part_of(path: Path) -> Path:
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
    mine = part.with_name(f".{part.name}.{uuid.uuid4().hex[:8]}")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _layout(zarr.create_group(mine, zarr_format=3, attributes=spec.attributes()), spec)
    except OSError as error:
        shutil.rmtree(mine, ignore_errors=True)
        raise OutputError(f"{part.parent}: cannot write here ({error.strerror}); choose another -o") from error
    try:
        mine.rename(part)
    except OSError:  # another process was first: its folder is not empty
        shutil.rmtree(mine)


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
    return group, spec


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of the group; KeyError or TypeError where there is none of this name."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is not an array")
    return array


def _missing(path: Path) -> str:
    if part_of(path).exists():
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
