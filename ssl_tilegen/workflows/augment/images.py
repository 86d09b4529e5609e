"""A large image repainted from its grid, the label kept: embedded, its grid changed, painted, and embedded again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.grids import EmbeddingGrid, GridData, is_complete, write_grid
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.system.budget import check_memory
from ssl_tilegen.system.launch import worker_shard
from ssl_tilegen.system.locks import lock
from ssl_tilegen.system.progress import Progress
from ssl_tilegen.workflows.augment.patches import Painter, mixed
from ssl_tilegen.workflows.augment.plan import Sample, Sheet
from ssl_tilegen.workflows.augment.store import Record
from ssl_tilegen.workflows.embed.raster import embed_raster
from ssl_tilegen.workflows.embed.view import open_view
from ssl_tilegen.workflows.generate.job import PaintJob, Repaint, paint_job_of, usable_cells
from ssl_tilegen.workflows.generate.painting import paint_job
from ssl_tilegen.workflows.generate.placement import place
from ssl_tilegen.workflows.generate.sampling import placed


def paint_image(painter: Painter, sheet: Sheet, folder: Path, progress: Progress) -> Record:
    """Paint the one sample of a sheet into ``folder``; returns its record.

    Grids are kept in ``grids`` beside ``folder``, one place per process, so that an image is embedded once.
    """
    (sample,) = sheet.samples
    index, count = painter.settings.shard or worker_shard()
    grids, out = folder.parent / "grids" / f"{index}-of-{count}", folder / sample.file
    source = _grid(painter, painter.originals[sample.original].path, grids / f"{sample.original}.zarr")
    condition = _condition(painter, sample, source, grids)
    out.parent.mkdir(parents=True, exist_ok=True)

    def painted(stage: str, done: float, total: float) -> None:
        progress(stage, done if stage == "paint" else total, total)

    with _source(painter, sample) as repaint:
        job = _job(painter, sample, EmbeddingGrid.open(condition), out)
        # an image whose record is missing was not finished, so that it is replaced
        paint_job(repaint.of(job) if repaint else job, painted, overwrite=True)
    again = _grid(painter, out, grids / f"made-{sample.original}-{sample.k}.zarr")
    return _record(sample, source.read(), again.read())


def _grid(painter: Painter, image: Path, path: Path) -> EmbeddingGrid:
    """The grid of an image, embedded unless it is there."""
    if not is_complete(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _view(painter, image) as view, lock(path) as held:
            embed_raster(view, painter.encoder, path, held, overwrite=True)
    return EmbeddingGrid.open(path)


def _view(painter: Painter, image: Path) -> AbstractContextManager[RasterView]:
    asked = Resolution.stated(painter.settings.mpp, painter.settings.gsd)
    return open_view(image, painter.encoder, asked=asked)


def _job(painter: Painter, sample: Sample, grid: EmbeddingGrid, out: Path) -> PaintJob:
    bundle, cells = painter.bundle, usable_cells(grid, painter.bundle)
    placement = place(grid.spec, cells, size=None, region=None, fit="auto", least_px=bundle.info.window_px)
    how = placed(replace(painter.how, seed=sample.seed), bundle, placement)
    job = paint_job_of(grid, cells, bundle, placement, how, out)
    check_memory(job.memory_bytes(job.plan()), f"{out}: painting {job.image.size} px")
    return job


def _condition(painter: Painter, sample: Sample, source: EmbeddingGrid, grids: Path) -> Path:
    """The grid to paint from: the source's own, or one moved towards the partner's."""
    mix = painter.settings.mix
    if sample.partner is None or not mix:
        return source.path
    partner = _grid(painter, painter.originals[sample.partner].path, grids / f"{sample.partner}.zarr")
    own, other = source.read(), partner.read()
    if not (own.usable.any() and other.usable.any()):
        raise InputError(f"{source.spec.source.name}: no cell shows anything; leave it out of the list")
    moved = mixed(own.embedding.astype(np.float32), _spread(other), mix, painter.bundle.info.encoder.layout_dim)
    cells = GridData(np.where(own.usable[..., None], moved, own.embedding).astype(np.float16), own.valid, own.tissue)
    path = grids / f"mixed-{sample.original}-{sample.k}.zarr"
    return write_grid(path, source.spec, cells, overwrite=True).path


def _spread(cells: GridData) -> np.ndarray:
    """Embeddings (R, K, D) in which cells that show nothing take the mean of those that do."""
    embedding = cells.embedding.astype(np.float32)
    return np.where(cells.usable[..., None], embedding, embedding[cells.usable].mean(0))


@contextmanager
def _source(painter: Painter, sample: Sample) -> Iterator[Repaint | None]:
    """The source's own latents, window by window, where the settings want them kept in part."""
    if painter.settings.strength is None:
        yield None
        return
    with _view(painter, painter.originals[sample.original].path) as view:
        yield Repaint(painter.settings.strength, lambda bundle, window: bundle.encode_window(view, window))


def _record(sample: Sample, source: GridData, made: GridData) -> Record:
    usable = source.usable & made.usable
    a, b = (grid.embedding[usable].astype(np.float32) for grid in (made, source))
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)).clip(1e-12)
    vectors, real = (grid.embedding[grid.usable].astype(np.float32).mean(0) for grid in (made, source))
    return Record(vectors[None], np.array([cosine.mean()], np.float32), np.array([sample.original]), real[None])
