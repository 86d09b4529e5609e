"""Writing a grid: an unfinished one that several processes fill shard by shard, and its finish."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ssl_tilegen.errors import OutputError, TilegenError
from ssl_tilegen.geometry import Window
from ssl_tilegen.grids.embedding_grid import EmbeddingGrid
from ssl_tilegen.grids.shard_windows import shards
from ssl_tilegen.grids.spec import PRIOR_SAMPLED, GridData, GridSpec
from ssl_tilegen.grids.store import array_of, counts_of, files_of, identity_of, load_group, make_arrays, unfinished_grid
from ssl_tilegen.system import atomic, marks
from ssl_tilegen.system.locks import Busy


class GridWriter:
    """An unfinished grid, at ``path`` + ``.part`` until `finish`. Writers in several processes may share it."""

    def __init__(self, path: Path, part: Path, group: zarr.Group, spec: GridSpec) -> None:
        self.path, self.spec, self._part, self._group = path, spec, part, group
        self.shards: Sequence[Window] = shards(spec.shape)
        self._identity = identity_of(part)

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
        group, found = load_group(part)
        if heal and found != spec and _source_was_replaced(found, spec):
            _discard(part)
            return cls.start(path, spec)
        if found != spec:
            raise OutputError(
                f"{part}: an unfinished run with other settings ({_difference(found, spec)}); "
                "finish that one, or start over with --restart"
            )
        writer = cls(path, part, group, spec)
        try:
            writer.pending()
        except (RuntimeError, ValueError) as error:
            raise OutputError(f"{part}: is damaged ({error}); start over with --restart") from None
        return writer

    def pending(self) -> list[int]:
        """Indices of the shards that are not yet written, in order."""
        done = self._read(lambda group: np.asarray(array_of(group, "done")[:]))
        return [int(index) for index in np.flatnonzero(done == 0)]

    def is_published(self) -> bool:
        """Whether another writer has given this very grid its name."""
        return self._identity == identity_of(self.path) != ()

    def _read(self, of: Callable[[zarr.Group], Any]) -> Any:
        """What is read of the group: under its final name where another writer gave it that meanwhile."""
        try:
            found = of(self._group)
        except Exception:
            if not self.is_published():
                raise
        else:
            if not self.is_published():
                return found
        return of(load_group(self.path)[0])

    def write_shard(self, index: int, data: GridData) -> None:
        """Store the cells of shard ``index`` and then flag it. The data are those of the window ``shards[index]``."""
        window = self.shards[index]
        if data.valid.shape != (window.rows, window.cols):
            raise ValueError(f"shard {index} has {window.rows} x {window.cols} cells, got {data.valid.shape}")
        for name in ("embedding", "valid", "tissue"):
            array_of(self._group, name)[window.slices] = getattr(data, name)
        for file in files_of(self._part, window):
            _flush_with_folders(file, self._part)
        array_of(self._group, "done")[index] = 1

    def counts(self) -> dict[str, int]:
        """How many cells there are of each validity, by lower-case name."""
        return self._read(counts_of)

    def finish(self, *, overwrite: bool = False) -> EmbeddingGrid | None:
        """Give the grid its name if every shard is there, else return None (other writers are still at work).

        OutputError where ``path`` already exists and ``overwrite`` is not set, or is no grid of this program.
        """
        if self.pending():
            return None
        try:
            for leftover in self._part.rglob("*.partial"):  # of a writer that was killed
                leftover.unlink(missing_ok=True)
            atomic.flush_tree(self._part)  # takes a while: before the look at what is in it
            self.refuse_foreign()
            atomic.publish_folder(self._part, self.path, replace=overwrite, mark=marks.grid)
        except (OSError, TilegenError):
            if not self.is_published():
                raise
        return EmbeddingGrid.open(self.path)

    def refuse_foreign(self) -> None:
        """OutputError where the unfinished grid was moved, replaced or mixed with other files."""
        if self._part.is_symlink() or not self._part.is_dir():
            raise OutputError(f"{self._part}: was moved away or replaced while it was written; run it again")
        _refuse_foreign(self._part)

    @contextmanager
    def own(self) -> Iterator[None]:
        """Errors of the body that come of a folder which is this grid's no more are told as that."""
        try:
            yield
        except (TilegenError, MemoryError):
            raise
        except Exception:
            self.refuse_foreign()
            raise

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
    that is asked whether it still may. OutputError where an unfinished grid of another source is in the way."""
    _refuse_work_on_another(unfinished_grid(Path(path)), spec)
    writer = EmbeddingGrid.create(path, spec, restart=True)
    try:
        with writer.own():
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


def _create(part: Path, spec: GridSpec) -> None:
    """Make the empty group under a name of its own and rename it, so that only one of many processes makes it."""
    mine = atomic.temporary_beside(part)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        make_arrays(zarr.create_group(mine, zarr_format=3, attributes=spec.attributes()), spec)
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


def _refuse_work_on_another(part: Path, spec: GridSpec) -> None:
    """OutputError where an unfinished grid holds cells of another image: they may be the work of hours."""
    if not part.exists():
        return
    group, found = load_group(part)
    is_work = found.source.kind != PRIOR_SAMPLED and np.asarray(array_of(group, "done")[:]).any()
    if is_work and (found.source.name, found.encoder.id) != (spec.source.name, spec.encoder.id):
        raise OutputError(f"{part}: an unfinished grid of {found.source.name}; finish that one, or move it away")


def _refuse_foreign(path: Path) -> None:
    missing = marks.grid(path) if os.path.lexists(path) else None
    if missing:
        raise OutputError(f"{path}: was not made by this program (it has {missing}); it is left as it is: move it away")


def _source_was_replaced(found: GridSpec, wanted: GridSpec) -> bool:
    """Whether an unfinished grid is of another file than there is by now, of the same name and by the same encoder."""
    old, new = found.source, wanted.source
    same = old.name == new.name and found.encoder == wanted.encoder and found.lattice.stride == wanted.lattice.stride
    return same and old.fingerprint != new.fingerprint


def _flush_with_folders(file: Path, root: Path) -> None:
    """Have a file and the names of its folders reach the disk; zeros have no file."""
    if not file.exists():
        return
    atomic.flush(file)
    for folder in file.parents:
        atomic.flush(folder)
        if folder == root:
            return


def _difference(found: GridSpec, wanted: GridSpec) -> str:
    """The first field in which two specifications differ, for a message."""
    for name, old, new in ((n, getattr(found, n), getattr(wanted, n)) for n in found.__dataclass_fields__):
        if old != new:
            return f"{name}: {old} there, {new} now"
    return "unknown difference"
