"""`embed`: images -> lattice of tiles -> encoder -> a grid of embeddings beside each image."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.bundle_encoder import encoder_of
from ssl_tilegen.errors import InputError, Interrupted, OutputError, TilegenError
from ssl_tilegen.grids import EmbeddingGrid, is_complete, is_grid
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.system.atomic import sweep
from ssl_tilegen.system.boundary import explain
from ssl_tilegen.system.device import pick_device
from ssl_tilegen.system.launch import check_restart, worker_shard
from ssl_tilegen.system.locks import Busy, Shard, lock
from ssl_tilegen.system.progress import Progress, silent
from ssl_tilegen.workflows.embed.companions import add_companions, write_companions
from ssl_tilegen.workflows.embed.inputs import EmbedJob, find_jobs
from ssl_tilegen.workflows.embed.paths import check_job, check_run, outputs_of
from ssl_tilegen.workflows.embed.raster import embed_raster
from ssl_tilegen.workflows.embed.regions import regions_for
from ssl_tilegen.workflows.embed.report import EmbedIncomplete, EmbedReport, summary_path, write_summary
from ssl_tilegen.workflows.embed.tiles import Rules
from ssl_tilegen.workflows.embed.view import open_view


def embed(inputs: Sequence[str | Path], settings: EmbedSettings, progress: Progress = silent) -> list[EmbedReport]:
    """Embed every image of ``inputs`` (files, folders, globs, addresses) into a grid; returns one report per image.

    Finished shards of an earlier run are kept. With ``settings.shard`` (or a Slurm array) this process does its shard
    only: every N-th image, or every N-th shard where there are fewer images than processes. A single image is done
    whole by a task of an array, which may well have one of its own; ``settings.shard`` cuts it. A table of all reports
    is written to ``settings.summary``, also when not all could be done.

    Raises the error of a single input as it is; EmbedIncomplete where some of many failed; Interrupted when
    ``progress`` asks to stop, with all finished shards stored.
    """
    jobs = find_jobs(inputs, settings)
    many = len(jobs) > 1 or settings.list is not None
    shard = settings.shard or worker_shard(array=many)
    check_run(jobs, settings, shard)
    mine, split = _deal(jobs, shard)
    check_restart(settings.restart, split, jobs[0].grid)
    attempt = _attempt if many else _outright
    reports: dict[EmbedJob, EmbedReport] = {}
    try:
        _embed_all(mine, settings, split, attempt, progress, reports)
    finally:
        if (table := summary_path(settings, shard)) and reports:
            write_summary(table, [reports[job] for job in mine if job in reports])
    if any(report.status == "failed" for report in reports.values()):
        raise EmbedIncomplete([reports[job] for job in mine])
    return [reports[job] for job in mine]


def _embed_all(
    jobs: list[EmbedJob],
    settings: EmbedSettings,
    split: Shard,
    attempt: Callable[..., EmbedReport | None],
    progress: Progress,
    reports: dict[EmbedJob, EmbedReport],
) -> None:
    """Fill ``reports``, first for images that need no encoder: a mistyped name is reported before the long work."""
    for job in jobs:
        if report := attempt(settled, job, settings):
            reports[job] = report
    todo = [job for job in jobs if job not in reports]
    encoder = load_encoder(settings) if todo else None
    for count, job in enumerate(todo):
        if len(todo) > 1:
            progress("images", count, len(todo))
        report = attempt(embed_one, job, settings, encoder, split, progress)
        assert report is not None
        reports[job] = report


def load_encoder(settings: EmbedSettings) -> Encoder:
    """The encoder that the settings name, on their device: ``encoder`` by name, else that of the bundle ``model``."""
    device = pick_device(settings.device)
    if settings.encoder is None:
        return encoder_of(ModelBundle.load(settings.model, device), settings.weights, batch=settings.batch)
    from ssl_tilegen.encoders.timm_encoder import load_timm_encoder  # timm takes seconds to import

    return load_timm_encoder(
        settings.encoder, weights=settings.weights, pooling=settings.pooling, device=device, batch=settings.batch
    )


def embed_one(
    job: EmbedJob, settings: EmbedSettings, encoder: Encoder, split: Shard = (0, 1), progress: Progress = silent
) -> EmbedReport:
    """Embed one image, or the shard ``split`` = (index, count) of its shards. Busy where another job is at it."""
    started = time.perf_counter()
    with _view(job, encoder, settings) as view, lock(job.grid, split) as held:
        if report := settled(job, settings):
            return report
        is_there = job.grid.exists()  # and lacks a part
        if held.alone:
            sweep(job.grid.parent, *(output.path.name for output in outputs_of(job, settings)))
        made = embed_raster(
            view, encoder, job.grid, held, progress,
            rules=Rules(settings.tissue_min, settings.nodata_max, settings.tissue_only, settings.reading_threads),
            regions=regions_for(settings.regions, job), stride_px=settings.stride, bands=settings.bands, shard=split,
            restart=settings.restart, overwrite=settings.overwrite or is_there,
        )  # fmt: skip
        if made.grid:
            write_companions(job, settings, view, made.tissue, made.grid)
    seconds = time.perf_counter() - started
    return EmbedReport(
        job.image,
        job.grid,
        "done" if made.grid else "partial",
        seconds=round(seconds, 3),
        cells=made.spec.shape.area,
        tiles_per_s=round(made.tiles / max(seconds, 1e-9), 1),
        counts=made.counts,
        resolution=str(made.spec.resolution) if made.spec.resolution else None,
    )


def _view(job: EmbedJob, encoder: Encoder, settings: EmbedSettings) -> AbstractContextManager[RasterView]:
    return open_view(
        job.image, encoder, asked=settings.resolution, mpp=job.mpp, gsd=job.gsd, bands=settings.bands,
        scale=settings.scale,
    )  # fmt: skip


def _deal(jobs: list[EmbedJob], shard: Shard) -> tuple[list[EmbedJob], Shard]:
    """This process's images, and its shard of the shards of each."""
    index, count = shard
    return (jobs, shard) if len(jobs) < count else (jobs[index::count], (0, 1))


def settled(job: EmbedJob, settings: EmbedSettings) -> EmbedReport | None:
    """The report of a job that needs no encoder, because it is finished or cannot be done; None for all others.

    Files that are asked for beside a finished grid and are not there are made now.
    """
    if isinstance(job.image, Path) and not job.image.exists():
        raise InputError(f"{job.image}: no such file; check the path")
    check_job(job, settings)
    if not job.grid.exists() or settings.overwrite:
        return None
    complete = is_complete(job.grid)
    if complete and add_companions(job, settings):
        return EmbedReport.of(job.image, EmbeddingGrid.open(job.grid), "done")
    if not settings.skip_existing:
        raise OutputError(f"{job.grid}: exists; give --overwrite, --skip-existing or another -o")
    if complete:
        return EmbedReport.of(job.image, EmbeddingGrid.open(job.grid), "skipped")
    if not is_grid(job.grid):
        raise OutputError(f"{job.grid}: exists but is no grid; remove it or give --overwrite")
    return None


def _outright(work: Callable[..., Any], job: EmbedJob, *args: Any) -> Any:
    """A single image: its error is the error."""
    return work(job, *args)


def _attempt(work: Callable[..., Any], job: EmbedJob, *args: Any) -> Any:
    """One image among many: its error goes into its report, and the others go on."""
    try:
        return work(job, *args)
    except Interrupted:
        raise
    except Busy as error:
        return EmbedReport(job.image, job.grid, "busy", error=str(error))
    except TilegenError as error:
        return EmbedReport(job.image, job.grid, "failed", error=str(error))
    except Exception as error:  # a surprise in one of ten thousand must not end the run
        return EmbedReport(job.image, job.grid, "failed", error=f"{job.image}: {explain(error)[0]}")
