"""`generate`: a grid of embeddings -> a canvas of latents -> an image with its pyramid and provenance."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.diffusion.row_parallel import Ranks
from ssl_tilegen.diffusion.steppers import stepper_named
from ssl_tilegen.diffusion.synthesis import Plan
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.io.pyramid import sidecar_of
from ssl_tilegen.io.writers.registry import check_format, mark_of
from ssl_tilegen.system.boundary import printable
from ssl_tilegen.system.budget import check_memory
from ssl_tilegen.system.device import pick_device, tune_allocator
from ssl_tilegen.system.launch import Distributed, distributed_environment, process_group
from ssl_tilegen.system.locks import Held, lock
from ssl_tilegen.system.outputs import check_output
from ssl_tilegen.system.progress import Progress, silent
from ssl_tilegen.workflows.generate.estimate import estimated_seconds
from ssl_tilegen.workflows.generate.job import GridSource, PaintJob, prepare
from ssl_tilegen.workflows.generate.painting import paint_job
from ssl_tilegen.workflows.generate.paths import check_run, sweep_run
from ssl_tilegen.workflows.generate.preview import preview_of, preview_output, write_preview
from ssl_tilegen.workflows.generate.prior_grid import sampled_grid

_PYRAMID = 4 / 3


@dataclass(frozen=True)
class GenerateReport:
    """Summary of an image, or of the plan with ``status`` 'planned': sizes in pixels, memory and disk at most, in MiB.

    ``fit`` says how the grid met the size, ``region`` (x, y, width, height) which part of the ``canvas`` (width,
    height) was painted.
    """

    out: Path
    status: str
    size: tuple[int, int]
    fit: str
    canvas: tuple[int, int]
    region: tuple[int, int, int, int]
    stretch: tuple[float, float]
    resolution: str | None
    crs: str | None
    model: str
    seed: int
    steps: int
    windows: int
    network_calls: int
    network_latents: int
    memory_mib: int
    disk_mib: int
    kept: str | None = None
    estimated_s: float | None = None
    seconds: float = 0.0
    paint_s: float = 0.0
    develop_s: float = 0.0
    mpx_per_s: float = 0.0
    preview: Path | None = None
    remarks: tuple[str, ...] = ()

    def line(self) -> str:
        """The report as text: one line, and one for each remark."""
        where = f"{self.size[0]} x {self.size[1]} px" + (f" at {self.resolution}" if self.resolution else "")
        work = f"{self.steps} steps, {self.network_calls} network calls"
        if self.status == "planned":
            end = f"about {self.memory_mib} MiB of memory, at most {self.disk_mib} MiB of disk"
            windows = f"{self.windows} window{'s' * (self.windows != 1)} a step"
            end = f"{windows}, {end}, about {_spoken(self.estimated_s or 0)}; nothing was written"
        else:
            end = f"{self.seconds:.1f} s, {self.mpx_per_s:.2f} Mpx/s"
        lines = [f"{self.out}: {where}, {self._layout()}, {work}, {end}", *self.remarks]
        return "\n".join(map(printable, lines))

    def _layout(self) -> str:
        if self.kept:
            return f"{self.region[2]} x {self.region[3]} px at {self.region[0]},{self.region[1]} of it repainted"
        if self.fit == "crop":
            return f"crop at {self.region[0]},{self.region[1]} of {self.canvas[0]} x {self.canvas[1]} px"
        if self.fit == "stretch":
            part = "" if self.size == self.canvas else f", its part at {self.region[0]},{self.region[1]}"
            return f"the grid's layout stretched by {self.stretch[1]:.3g} x {self.stretch[0]:.3g}{part}"
        return "the whole grid"


def generate(settings: GenerateSettings, progress: Progress = silent) -> GenerateReport:
    """Paint the image that the settings ask for, of a grid given or sampled for it; returns its facts.

    Everything is checked before any work, and the output gets its name when it is whole. An unfinished run of the same
    settings goes on where it stopped, to the same pixels. Under torchrun or srun all processes paint one image, each
    a band of it, in one shared folder. Raises InputError, FormatError, SettingError and OutputError with one line each;
    Interrupted when ``progress`` asks to stop, with the state saved beside the output.
    """
    if settings.update:
        stepper_named(settings.update)  # before any work
    started = time.perf_counter()
    tune_allocator()
    who = distributed_environment()
    bundle = ModelBundle.load(settings.model, pick_device(settings.device, who.local_rank))
    with _grid_of(settings, bundle, who, progress) as source:
        return _paint(settings, bundle, source, who, progress, started)


def _grid_of(
    settings: GenerateSettings, bundle: ModelBundle, who: Distributed, progress: Progress
) -> AbstractContextManager[GridSource]:
    """The grid that the settings name, or one sampled for them."""
    if settings.grid is None:
        return sampled_grid(settings, bundle, who, progress)
    return nullcontext(GridSource(EmbeddingGrid.open(settings.grid)))


def _paint(
    settings: GenerateSettings,
    bundle: ModelBundle,
    source: GridSource,
    who: Distributed,
    progress: Progress,
    started: float,
) -> GenerateReport:
    job = prepare(settings, bundle, source)
    check_format(job.out, job.image)
    if settings.preview and not settings.overwrite and _lacks_its_preview(job):
        check_output(preview_output(job.out))
        return _previewed(job, who)
    check_run(settings, job.out, source.grid.path, overwrite=settings.overwrite or settings.dry_run)
    planned = job.plan(who.count)
    report = _planned(job, planned)
    if settings.dry_run:
        return replace(report, estimated_s=round(estimated_seconds(job, planned, who.count), 3))
    check_memory(job.memory_bytes(planned), f"{job.out}: painting {job.image.size} px")
    with _locked(job.out, who, source.held) as held, process_group(who, bundle.device):
        if who.rank == 0:
            sweep_run(settings, job.out)
        paint_s, develop_s = paint_job(
            job, progress, ranks=Ranks(who.rank, who.count), held=held, overwrite=settings.overwrite,
            restart=settings.restart,
        )  # fmt: skip
        preview = write_preview(job.out) if settings.preview and who.rank == 0 else None
    seconds = time.perf_counter() - started
    return replace(
        report,
        status="done",
        preview=preview,
        seconds=round(seconds, 2),
        paint_s=round(paint_s, 2),
        develop_s=round(develop_s, 2),
        mpx_per_s=round(job.image.size.area / 1e6 / seconds, 3),
    )


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _locked(out: Path, who: Distributed, held: Held | None) -> AbstractContextManager[Held | None]:
    """The lock of an output, which the first of many processes holds for all of them."""
    return nullcontext(held) if held or who.rank > 0 else lock(out)


def _lacks_its_preview(job: PaintJob) -> bool:
    """Whether the very image is there already, but the small one that is asked for is not."""
    if not job.out.exists() or preview_of(job.out).exists():
        return False
    try:
        facts = json.loads(sidecar_of(job.out).read_bytes())
        return mark_of(job.out)(job.out) is None and facts["provenance"] == json.loads(json.dumps(job.image.record))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _previewed(job: PaintJob, who: Distributed) -> GenerateReport:
    """The report of an image that was whole, once its preview is there."""
    planned = job.plan(who.count)
    with _locked(job.out, who, None):
        preview = write_preview(job.out) if who.rank == 0 else None
    return replace(_planned(job, planned), status="done", preview=preview)


def _planned(job: PaintJob, planned: Plan) -> GenerateReport:
    place, size = job.placement, job.image.size
    disk = 3 * size.area * _PYRAMID + 3 * planned.canvas_bytes
    return GenerateReport(
        out=job.out,
        status="planned",
        size=(size.cols, size.rows),
        fit=place.fit,
        canvas=(place.canvas.cols, place.canvas.rows),
        region=(place.window.col, place.window.row, place.window.cols, place.window.rows),
        kept=str(job.inpainting.view.raster.path) if job.inpainting else None,
        stretch=place.stretch,
        resolution=str(job.image.resolution) if job.image.resolution else None,
        crs=job.image.crs,
        model=job.bundle.info.name,
        seed=job.how.seed,
        steps=planned.steps,
        windows=planned.windows,
        network_calls=planned.network_calls,
        network_latents=planned.network_latents,
        memory_mib=round(job.memory_bytes(planned) / 2**20),
        disk_mib=round(disk / 2**20),
        remarks=job.remarks,
    )
