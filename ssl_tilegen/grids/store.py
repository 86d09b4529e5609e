"""The folder of a grid: its arrays, their layout, and the reading of its attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ssl_tilegen.errors import FormatError
from ssl_tilegen.geometry import Window
from ssl_tilegen.grids.shard_windows import SHARD_CELLS, shards
from ssl_tilegen.grids.spec import FORMAT, KIND, GridSpec, Validity, georeference
from ssl_tilegen.system.boundary import first_line
from ssl_tilegen.system.budget import check_memory
from ssl_tilegen.system.outputs import require_plain

CHUNK_CELLS = 16
_FLAG_BYTES = 4096  # what reading the flag of one shard takes while all are read
_CODE_BYTES = 10  # of a cell: its validity, as it is read and as it is counted


def unfinished_grid(path: Path) -> Path:
    """Where the grid of ``path`` lives while it is unfinished."""
    return path.with_name(path.name + ".part")


def is_grid(path: Path) -> bool:
    """Whether ``path`` says that it is an embedding grid, complete or not."""
    try:
        return zarr.open_group(path, mode="r").attrs.get("kind") == KIND
    except Exception:
        return False


def load_group(path: Path) -> tuple[zarr.Group, GridSpec]:
    """The group and its specification. FormatError where it is not a grid, newer, or broken."""
    require_plain(path / "zarr.json", "the grid")
    try:
        group = zarr.open_group(path, mode="r+" if path.suffix == ".part" else "r")
        attributes = dict(group.attrs)
    except Exception as error:
        raise FormatError(
            f"{path}: not an embedding grid ({first_line(error)}); make one by `ssl-tilegen embed`"
        ) from error
    if attributes.get("kind") != KIND:
        raise FormatError(f"{path}: a Zarr group, but not an embedding grid; make one by `ssl-tilegen embed`")
    if attributes.get("format") != FORMAT:
        raise FormatError(
            f"{path}: grid format {attributes.get('format')}, this version reads {FORMAT}; "
            "upgrade ssl-tilegen (pip install -U ssl-tilegen)"
        )
    try:
        spec = GridSpec.from_attributes(attributes, dim=int(array_of(group, "embedding").shape[-1]))
        for name in ("embedding", "valid", "tissue"):
            if tuple(array_of(group, name).shape[:2]) != (spec.shape.rows, spec.shape.cols):
                raise ValueError(f"{name} is {array_of(group, name).shape}, the lattice has {spec.shape} cells")
        if array_of(group, "done").shape != (len(shards(spec.shape)),):
            raise ValueError("the record of shards has a wrong length")
    except Exception as error:
        raise FormatError(f"{path}: damaged grid ({first_line(error)}); embed the source again") from error
    check_memory(len(shards(spec.shape)) * _FLAG_BYTES + spec.shape.area * _CODE_BYTES, f"{path}: {spec.shape} cells")
    return group, spec


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of the group; KeyError or TypeError where there is none of this name."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is not an array")
    return array


def make_arrays(group: zarr.Group, spec: GridSpec) -> None:
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


def files_of(grid: Path, window: Window) -> tuple[Path, Path, Path]:
    """Where a shard's validity, embeddings and tissue lie on the disk."""
    place = f"c/{window.row // SHARD_CELLS}/{window.col // SHARD_CELLS}"
    return grid / "valid" / place, grid / "embedding" / place / "0", grid / "tissue" / place


def counts_of(group: zarr.Group) -> dict[str, int]:
    """How many cells there are of each validity, by lower-case name."""
    codes = np.bincount(np.asarray(array_of(group, "valid")[:]).ravel(), minlength=len(Validity))
    return {code.name.lower(): int(codes[code]) for code in Validity}


def identity_of(grid: Path) -> tuple[int, ...]:
    """By which a grid is known from another one of its name, and known again when it is renamed; () where there is
    none."""
    try:
        facts = (grid / "zarr.json").stat()
    except OSError:
        return ()
    return facts.st_dev, facts.st_ino, facts.st_mtime_ns
