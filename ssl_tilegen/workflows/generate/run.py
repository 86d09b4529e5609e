"""`generate`: a grid of embeddings -> a canvas of latents -> an image with its pyramid and provenance."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.decoding import Pixels
from ssl_tilegen.diffusion.row_parallel import Ranks
from ssl_tilegen.diffusion.steppers import stepper_named
from ssl_tilegen.diffusion.synthesis import Plan, develop, paint, plan
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.io.pyramid import PyramidWriter, check_format, open_writer, sidecar_of, unfinished_image
from ssl_tilegen.system import marks
from ssl_tilegen.system.boundary import printable
from ssl_tilegen.system.budget import check_memory
from ssl_tilegen.system.device import pick_device, tune_allocator
from ssl_tilegen.system.launch import Distributed, distributed_environment, process_group
from ssl_tilegen.system.locks import Held, lock
from ssl_tilegen.system.marks import preview as preview_mark
from ssl_tilegen.system.outputs import Output, check_output
from ssl_tilegen.system.progress import Progress, silent
from ssl_tilegen.workflows.generate.estimate import estimated_seconds
from ssl_tilegen.workflows.generate.job import PaintJob, Repaint, prepare
from ssl_tilegen.workflows.generate.paths import check_run, sweep_run
from ssl_tilegen.workflows.generate.preview import preview_of, write_preview
from ssl_tilegen.workflows.generate.prior_grid import sampled_grid
from ssl_tilegen.workflows.generate.row_store import RowShards

STATE = "latents.state"
_BAND_BYTES, _MOST_BAND_LAT = 96 << 20, 256  # decoders see around a band: a third more to compute at 64 latents
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


def generate(
    settings: GenerateSettings,
    progress: Progress = silent,
    repaint: Repaint | None = None,
    who: Distributed | None = None,
    bundle: ModelBundle | None = None,
) -> GenerateReport:
    """Paint the image that the settings ask for, of a grid given or sampled for it, or ``repaint`` one that exists;
    returns its facts.

    Everything is checked before any work, and the output gets its name when it is whole. An unfinished run of the same
    settings goes on where it stopped, to the same pixels. Under torchrun or srun all processes paint one image, each
    a band of it, in one shared folder, unless ``who`` says that this one is alone. ``bundle``: the one that the
    settings name, where it is loaded already. Raises InputError, FormatError,
    SettingError and OutputError with one line each; Interrupted when ``progress`` asks to stop, with the state saved
    beside the output.
    """
    if settings.update:
        stepper_named(settings.update)  # before any work
    started = time.perf_counter()
    tune_allocator()
    who = who or distributed_environment()
    bundle = bundle or ModelBundle.load(settings.model, pick_device(settings.device, who.local_rank))
    if settings.grid is not None:
        return paint_grid(settings, bundle, who, progress, repaint=repaint, started=started)
    with sampled_grid(settings, bundle, who, progress) as grid:
        return paint_grid(grid.settings, bundle, who, progress, held=grid.held, planned=grid.planned, started=started)


def paint_grid(
    settings: GenerateSettings,
    bundle: ModelBundle,
    who: Distributed,
    progress: Progress = silent,
    *,
    repaint: Repaint | None = None,
    held: Held | None = None,
    planned: EmbeddingGrid | None = None,
    started: float | None = None,
) -> GenerateReport:
    """`generate` for a grid that is there and a bundle that is loaded.

    ``held``: the caller holds the lock of the output; ``planned``: what a dry run is of, instead of a file;
    ``started``: when the work began, by ``time.perf_counter``.
    """
    started = started or time.perf_counter()
    job = prepare(settings, bundle, planned)
    job = repaint.of(job) if repaint else job
    check_format(job.out, job.image)
    if settings.preview and not settings.overwrite and _lacks_its_preview(job):
        check_output(Output(preview_of(job.out), preview_mark("generate", job.out.name), "--preview", "side"))
        return _previewed(job, who)
    check_run(settings, job.out)
    plan_ = plan(job.bundle, job.field, job.region_lat, job.how, job.background, who.count, bool(job.inpainting))
    report = _planned(job, plan_)
    if settings.dry_run:
        return replace(report, estimated_s=round(estimated_seconds(job, plan_, who.count), 3))
    check_memory(job.memory_bytes(plan_), f"{job.out}: painting {job.image.size} px")
    with _locked(job.out, who, held) as own, process_group(who, job.bundle.device):
        if who.rank == 0:
            sweep_run(settings, job.out)
        paint_s, develop_s = _make(job, settings, Ranks(who.rank, who.count), progress, own)
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
        return marks.image(job.out) is None and facts["provenance"] == json.loads(json.dumps(job.image.record))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _previewed(job: PaintJob, who: Distributed) -> GenerateReport:
    """The report of an image that was whole, once its preview is there."""
    planned = plan(job.bundle, job.field, job.region_lat, job.how, job.background, who.count, bool(job.inpainting))
    with _locked(job.out, who, None):
        preview = write_preview(job.out) if who.rank == 0 else None
    return replace(_planned(job, planned), status="done", preview=preview)


def _make(
    job: PaintJob, settings: GenerateSettings, ranks: Ranks, progress: Progress, held: Held | None
) -> tuple[float, float]:
    """Paint and develop all rows that are not there yet; seconds of both. The first of a team writes the file, the
    others leave it their rows."""
    with _writer(job, settings, ranks, held) as writer:
        begun = time.perf_counter()
        written = ranks.tell(writer.rows_done if writer else 0)
        first = max(0, written - job.placement.window.row) if job.inpainting else written
        canvas = _painted(job, ranks, progress)
        painted = time.perf_counter()
        shards = RowShards(unfinished_image(job.out))
        if writer is None:
            _leave_rows(job, canvas, shards, first, progress)
            ranks.wait()
        else:
            rows = _all_rows(job, canvas, ranks, shards, first, progress)
            for band in job.inpainting.around(rows, written) if job.inpainting else rows:
                writer.write(band)
    return painted - begun, time.perf_counter() - painted


def _leave_rows(job: PaintJob, canvas: Canvas, shards: RowShards, first: int, progress: Progress) -> None:
    first = max(first, shards.reach(_rows_of(job, canvas).start))
    for band in _developed(job, canvas, first, progress):
        shards.put(first, band)
        first += len(band)


def _all_rows(
    job: PaintJob, canvas: Canvas, ranks: Ranks, shards: RowShards, first: int, progress: Progress
) -> Iterator[Pixels]:
    """The painted rows from ``first`` on: this process's rows, then those of the others."""
    for band in _developed(job, canvas, first, progress):
        yield band
        first += len(band)
    ranks.wait()
    yield from shards.rows_from(first)


def _writer(
    job: PaintJob, settings: GenerateSettings, ranks: Ranks, held: Held | None
) -> AbstractContextManager[PyramidWriter | None]:
    if ranks.rank > 0:
        return nullcontext()
    return open_writer(job.out, job.image, overwrite=settings.overwrite, restart=settings.restart, held=held)


def _painted(job: PaintJob, ranks: Ranks, progress: Progress) -> Canvas:
    folder = unfinished_image(job.out)
    return paint(
        job.bundle,
        job.field,
        job.region_lat,
        job.how,
        progress=lambda done, total: progress("paint", done, total),
        background=job.background,
        scratch=folder,
        state_file=folder / STATE,
        key=job.bundle.hash + (job.inpainting.fingerprint if job.inpainting else ""),
        ranks=ranks,
        source=_source(job),
        strength=job.repaint.strength if job.repaint else 1.0,
        only=job.region_lat if job.inpainting else None,
    )


def _source(job: PaintJob) -> Callable[[Window], Tensor] | None:
    """Clean latents of any window, where something is there already."""
    if job.repaint:
        return partial(job.repaint.latents, job.bundle)
    return partial(job.inpainting.latents, job.bundle) if job.inpainting else None


def _rows_of(job: PaintJob, canvas: Canvas) -> range:
    """The rows of what is painted that ``canvas`` holds the core of."""
    window, core = job.placement.window, canvas.core.scaled(job.bundle.factor)
    return range(max(0, core.row - window.row), min(window.rows, core.row_end - window.row))


def _developed(job: PaintJob, canvas: Canvas, first: int, progress: Progress) -> Iterator[Pixels]:
    """The rows of what is painted from row ``first`` to the last that ``canvas`` has, in bands."""
    window, core, last = job.placement.window, canvas.core.scaled(job.bundle.factor), _rows_of(job, canvas).stop
    if first >= last:
        return iter(())
    mpx_of_row = core.cols / 1e6
    bands = develop(
        job.bundle,
        canvas,
        lambda done, total: progress("develop", done * mpx_of_row, total * mpx_of_row),
        first_px=window.row - core.row + first,
        band_lat=_band_lat(core, job.bundle.factor),
        recipe=job.how.recipe,
    )
    return _trimmed(bands, window.col - core.col, Size(last - first, window.cols))


def _trimmed(bands: Iterator[Pixels], col: int, size: Size) -> Iterator[Pixels]:
    """``size`` of an image given in bands: the first rows, and columns from ``col``."""
    left = size.rows
    for band in bands:
        if left > 0:
            yield band[:left, col : col + size.cols]
            left -= len(band)


def _band_lat(core: Window, factor: int) -> int:
    """Rows of latents developed at once; a function of the image alone, as a resumed run must cut it the same."""
    row_bytes = 3 * factor * factor * (core.cols // factor)
    return min(_MOST_BAND_LAT, max(16, _BAND_BYTES // row_bytes // 16 * 16))


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
