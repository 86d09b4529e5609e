"""The story of `embed`: images -> lattice of tiles -> encoder -> a grid of embeddings beside each image."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.encoders.timm_encoder import load_timm_encoder
from ssl_tilegen.errors import InputError, Interrupted, OutputError, PartialFailure, TilegenError
from ssl_tilegen.grids import EmbeddingGrid, GridWriter, Validity, is_complete
from ssl_tilegen.runtime import Progress, pick_device, silent, worker_share
from ssl_tilegen.workflows.embed_inputs import Job, find_jobs, open_view, spec_of
from ssl_tilegen.workflows.embed_tiles import Rules, encode_shards
from ssl_tilegen.workflows.tissue_map import TissueMap


@dataclass(frozen=True)
class EmbedReport:
    """What became of one input: ``status`` is done, partial (other processes hold the rest), skipped or failed."""

    input: Path
    grid: Path
    status: str
    seconds: float = 0.0
    cells: int = 0
    tiles_per_s: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    resolution: str | None = None
    error: str | None = None

    @property
    def unreadable(self) -> int:
        """Cells whose pixels could not be decoded."""
        return self.counts.get(Validity.READ_ERROR.name.lower(), 0)

    def line(self) -> str:
        """The report as one line of text."""
        if self.status == "skipped":
            return f"{self.grid}: finished before, skipped"
        shares = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        return (
            f"{self.grid}: {self.status}, {self.cells} cells ({shares}) in {self.seconds:.1f} s, {self.tiles_per_s}/s"
        )


class EmbedIncomplete(PartialFailure):
    """Some of many inputs failed; ``reports`` has all of them."""

    def __init__(self, reports: Sequence[EmbedReport]) -> None:
        failed = [report for report in reports if report.error]
        listed = "; ".join(str(report.error) for report in failed)
        super().__init__(f"{len(failed)} of {len(reports)} inputs failed, the others are done: {listed}")
        self.reports = list(reports)


def embed(inputs: Sequence[str | Path], settings: EmbedSettings, progress: Progress = silent) -> list[EmbedReport]:
    """Embed every image of ``inputs`` (files, folders, globs) into a grid; returns one report per image.

    Finished shards of an earlier run are kept. With ``settings.shard`` (or a Slurm array) this process does its share
    only: every N-th image, or every N-th shard where there are fewer images than processes.

    Raises the error of a single input as it is; EmbedIncomplete where some of many failed; Interrupted when
    ``progress`` asks to stop, with all finished shards stored.
    """
    jobs = find_jobs(inputs, settings)
    mine, split = _deal(jobs, settings.shard or worker_share())
    attempt = _attempt if len(jobs) > 1 else _outright
    reports = {job: attempt(settled, job, settings) for job in mine}
    todo = [job for job in mine if reports[job] is None]
    encoder = load_encoder(settings) if todo else None
    reports |= {job: attempt(embed_one, job, settings, encoder, split, progress) for job in todo}
    if any(report.error for report in reports.values()):
        raise EmbedIncomplete(list(reports.values()))
    return list(reports.values())


def load_encoder(settings: EmbedSettings) -> Encoder:
    """The encoder that the settings name, on their device: ``encoder`` by name, else that of the bundle ``model``."""
    device = pick_device(settings.device)
    if settings.encoder is None:
        return BundleEncoder(ModelBundle.load(settings.model, device), batch=settings.batch)
    return load_timm_encoder(
        settings.encoder, weights=settings.weights, pooling=settings.pooling, device=device, batch=settings.batch
    )


def embed_one(
    job: Job, settings: EmbedSettings, encoder: Encoder, split: tuple[int, int] = (0, 1), progress: Progress = silent
) -> EmbedReport:
    """Embed one image, or the share ``split`` = (index, count) of its shards."""
    started = time.perf_counter()
    with open_view(job.image, encoder, settings) as view:
        tissue = TissueMap.of(view, threads=settings.reading_threads)
        spec = spec_of(view, encoder, settings, tissue.background)
        writer = EmbeddingGrid.create(job.grid, spec, restart=settings.restart)
        pending = [index for index in writer.pending() if index % split[1] == split[0]]
        rules = Rules(settings.tissue_min, settings.nodata_max, settings.tissue_only, settings.reading_threads)
        for index, cells in encode_shards(view, spec.lattice, pending, encoder, tissue, rules, progress):
            writer.write_shard(index, cells)
        tiles = sum(writer.shards[index].size.area for index in pending)
        return _finish(job, writer, settings, tiles, time.perf_counter() - started)


def _deal(jobs: list[Job], share: tuple[int, int]) -> tuple[list[Job], tuple[int, int]]:
    """This process's images, and its share of the shards of each."""
    index, count = share
    return (jobs, share) if len(jobs) < count else (jobs[index::count], (0, 1))


def settled(job: Job, settings: EmbedSettings) -> EmbedReport | None:
    """The report of a job that needs no encoder, because it is finished or cannot be done; None for all others."""
    if not job.image.exists():
        raise InputError(f"{job.image}: no such file; check the path")
    if not job.grid.exists() or settings.overwrite:
        return None
    if not settings.skip_existing:
        raise OutputError(f"{job.grid}: exists; give --overwrite, --skip-existing or another -o")
    if not is_complete(job.grid):
        raise OutputError(f"{job.grid}: exists but is not a finished grid; remove it or give --overwrite")
    return EmbedReport(job.image, job.grid, "skipped")


def _outright(work: Callable[..., Any], job: Job, *args: Any) -> Any:
    """A single image: its error is the error."""
    return work(job, *args)


def _attempt(work: Callable[..., Any], job: Job, *args: Any) -> Any:
    """One image among many: its error goes into its report, and the others go on."""
    try:
        return work(job, *args)
    except Interrupted:
        raise
    except (TilegenError, OSError) as error:
        return EmbedReport(job.image, job.grid, "failed", error=str(error))


def _finish(job: Job, writer: GridWriter, settings: EmbedSettings, tiles: int, seconds: float) -> EmbedReport:
    counts = writer.counts()
    grid = writer.finish(overwrite=settings.overwrite)
    return EmbedReport(
        job.image,
        job.grid,
        "done" if grid else "partial",
        seconds=round(seconds, 3),
        cells=writer.spec.shape.area,
        tiles_per_s=round(tiles / max(seconds, 1e-9), 1),
        counts=counts,
        resolution=str(writer.spec.resolution) if writer.spec.resolution else None,
    )
