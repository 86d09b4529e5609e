"""One image embedded: a view of it and an encoder -> a grid of vectors. Knows no settings and no command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.errors import InputError, Interrupted
from ssl_tilegen.grids import EmbeddingGrid, GridSpec, GridWriter, Validity
from ssl_tilegen.io.tissue_map import TissueMap
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.system.locks import Held, Shard
from ssl_tilegen.system.progress import Progress, silent
from ssl_tilegen.system.resources import reading_threads
from ssl_tilegen.workflows.embed.tiles import Rules, encode_shards
from ssl_tilegen.workflows.embed.view import spec_of

if TYPE_CHECKING:
    from ssl_tilegen.io.geojson import Regions


@dataclass(frozen=True, eq=False)
class Embedded:
    """The result for an image: its ``grid``, or None where other processes still make shards of it.

    ``counts``: cells by the name of their validity; ``tiles``: cells of the shards that were made now.
    """

    grid: EmbeddingGrid | None
    spec: GridSpec
    tissue: TissueMap
    counts: dict[str, int]
    tiles: int


def embed_raster(
    view: RasterView,
    encoder: Encoder,
    out: Path,
    held: Held,
    progress: Progress = silent,
    *,
    rules: Rules | None = None,
    regions: Regions | None = None,
    stride_px: int | None = None,
    bands: tuple[int, ...] | None = None,
    shard: Shard = (0, 1),
    restart: bool = False,
    overwrite: bool = False,
) -> Embedded:
    """Embed a view into the grid ``out``, whose lock is ``held``; shards that are there already stay.

    Args:
        view: The image at the resolution to embed it at.
        encoder: Makes vectors of tiles.
        out: The grid; it gets its name when all its shards are there.
        held: The lock of ``out``, shared by the processes that make it.
        progress: Called with (stage, done, total).
        rules: Which cells count, and the threads that read; the command's own by default.
        regions: The foreground, instead of detected tissue.
        stride_px: Pixels from one tile to the next; by default a tile.
        bands: The bands that the view was opened with, for the record.
        shard: The part (index, count) of the grid's shards that this process embeds.
        restart: Start over.
        overwrite: Replace a finished grid.

    Returns:
        Whether the grid is finished (other processes may have shards to do), its facts, and counts of cells and tiles.

    Raises:
        InputError: No cell can be read, or the source was changed meanwhile.
        OutputError: The grid exists or cannot be written.
    """
    rules = rules or Rules(threads=reading_threads())
    tissue = TissueMap.of(view, rules.threads, regions)
    spec = spec_of(view, encoder, tissue.background, stride_px=stride_px, bands=bands)
    writer = EmbeddingGrid.create(out, spec, restart=restart and held.alone, heal=held.alone)
    with writer.own():
        pending = [index for index in writer.pending() if index % shard[1] == shard[0]]
        with _tidied(writer, held):
            for index, cells in encode_shards(view, spec.lattice, pending, encoder, tissue, rules, progress):
                writer.write_shard(index, cells)
        _refuse_changed(view, spec)
        tiles, counts = sum(writer.shards[index].size.area for index in pending), writer.counts()
        _refuse_unreadable(view, writer, counts)
        held.check()
        return Embedded(writer.finish(overwrite=overwrite), spec, tissue, counts, tiles)


@contextmanager
def _tidied(writer: GridWriter, held: Held) -> Iterator[None]:
    """Where the body fails before anything is stored, and nobody else is at it, nothing is left behind."""
    try:
        yield
    except Interrupted:
        raise
    except Exception:
        with suppress(KeyError):  # where the folder is another one by now
            if held.alone and held.is_mine() and len(writer.pending()) == len(writer.shards):
                writer.discard()
        raise


def _refuse_changed(view: RasterView, spec: GridSpec) -> None:
    """InputError where the source is not what it was at the start; the same command then begins anew."""
    path = view.raster.path
    if isinstance(path, Path) and path.is_file() and view.raster.fingerprint != spec.source.fingerprint:
        raise InputError(f"{path}: was changed while it was read; run the same command again when it is whole")


def _refuse_unreadable(view: RasterView, writer: GridWriter, counts: dict[str, int]) -> None:
    """InputError for a finished grid of nothing but cells that could not be read; it is not kept."""
    lost, *seen = (counts[code.name.lower()] for code in (Validity.READ_ERROR, Validity.OK, Validity.BACKGROUND))
    if lost and not any(seen) and not writer.pending():
        writer.discard()
        raise InputError(
            f"{view.raster.path}: none of its {lost} cells can be read; the file is damaged, copy it again"
        )
