"""The story of `generate`: a grid of embeddings -> a canvas of latents -> a picture with its pyramid and provenance."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.pyramid import PyramidWriter, check_output, open_writer, part_of
from ssl_tilegen.runtime import Progress, silent, tune_allocator
from ssl_tilegen.synthesis import Plan, develop, paint, plan
from ssl_tilegen.workflows.generate_job import Job, prepare
from ssl_tilegen.workflows.preview import write_preview

STATE = "latents.state"
_BAND_BYTES = 64 << 20
_PYRAMID = 4 / 3


@dataclass(frozen=True)
class Repaint:
    """``strength`` of an existing picture is painted anew; ``source(bundle)`` gives clean latents of any window."""

    strength: float
    source: Callable[[ModelBundle], Callable[[Window], Tensor]]


@dataclass(frozen=True)
class GenerateReport:
    """What was made, or with ``status`` 'planned' what would be: sizes in pixels, memory and disk at most, in MiB.

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
    network_calls: int
    network_latents: int
    memory_mib: int
    disk_mib: int
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
            end = f"about {self.memory_mib} MiB of memory, at most {self.disk_mib} MiB of disk; nothing was written"
        else:
            end = f"{self.seconds:.1f} s, {self.mpx_per_s:.2f} Mpx/s"
        return "\n".join([f"{self.out}: {where}, {self._layout()}, {work}, {end}", *self.remarks])

    def _layout(self) -> str:
        if self.fit == "crop":
            return f"crop at {self.region[0]},{self.region[1]} of {self.canvas[0]} x {self.canvas[1]} px"
        if self.fit == "stretch":
            part = "" if self.size == self.canvas else f", its part at {self.region[0]},{self.region[1]}"
            return f"the grid's layout stretched by {self.stretch[1]:.3g} x {self.stretch[0]:.3g}{part}"
        return "the whole grid"


def generate(
    settings: GenerateSettings, progress: Progress = silent, repaint: Repaint | None = None
) -> GenerateReport:
    """Paint the picture that the settings ask for, or ``repaint`` one that exists; returns its facts.

    Everything is checked before any work, and the output gets its name when it is whole. An unfinished run of the same
    settings goes on where it stopped, to the same pixels. Raises InputError, FormatError, SettingError and OutputError
    with one line each; Interrupted when ``progress`` asks to stop, with the state saved beside the output.
    """
    started = time.perf_counter()
    tune_allocator()
    job = prepare(settings)
    if repaint is not None:
        job = replace(job, image=replace(job.image, provenance={**job.image.provenance, "strength": repaint.strength}))
    check_output(job.out, job.image, overwrite=settings.overwrite)
    report = _planned(job, plan(job.bundle, job.field, job.region_lat, job.how, job.glass))
    if settings.dry_run:
        return report
    with open_writer(job.out, job.image, overwrite=settings.overwrite, restart=settings.restart) as writer:
        paint_s, develop_s = _make(job, writer, progress, repaint)
    preview = write_preview(job.out) if settings.preview else None
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


def _make(
    job: Job, writer: PyramidWriter, progress: Progress, repaint: Repaint | None = None
) -> tuple[float, float]:  # fmt: skip
    """Paint and develop all rows that ``writer`` does not have yet; seconds of both."""
    begun = time.perf_counter()
    folder = part_of(job.out)
    canvas = paint(
        job.bundle,
        job.field,
        job.region_lat,
        job.how,
        progress=lambda done, total: progress("paint", done, total),
        glass=job.glass,
        scratch=folder,
        state_file=folder / STATE,
        key=job.bundle.hash,
        source=None if repaint is None else repaint.source(job.bundle),
        strength=1.0 if repaint is None else repaint.strength,
    )
    painted = time.perf_counter()
    window, core = job.placement.window, job.region_lat.scaled(job.bundle.factor)
    bands = develop(
        job.bundle,
        canvas,
        lambda done, total: progress("develop", done, total),
        first_px=window.row - core.row + writer.rows_done,
        band_lat=_band_lat(core, job.bundle.factor),
    )
    for band in _trimmed(bands, window.col - core.col, Size(window.rows - writer.rows_done, window.cols)):
        writer.write(band)
    return painted - begun, time.perf_counter() - painted


def _trimmed(bands: Iterator[np.ndarray], col: int, size: Size) -> Iterator[np.ndarray]:
    """``size`` of an image given in bands: the first rows, and columns from ``col``."""
    left = size.rows
    for band in bands:
        if left > 0:
            yield band[:left, col : col + size.cols]
            left -= len(band)


def _band_lat(core: Window, factor: int) -> int:
    """Rows of latents developed at once; a function of the picture alone, as a resumed run must cut it the same."""
    row_bytes = 3 * factor * factor * (core.cols // factor)
    return min(128, max(16, _BAND_BYTES // row_bytes // 16 * 16))


def _planned(job: Job, planned: Plan) -> GenerateReport:
    place, size = job.placement, job.image.size
    disk = 3 * size.area * _PYRAMID + 3 * planned.canvas_bytes
    return GenerateReport(
        out=job.out,
        status="planned",
        size=(size.cols, size.rows),
        fit=place.fit,
        canvas=(place.canvas.cols, place.canvas.rows),
        region=(place.window.col, place.window.row, size.cols, size.rows),
        stretch=place.stretch,
        resolution=str(job.image.resolution) if job.image.resolution else None,
        crs=job.image.crs,
        model=job.bundle.info.name,
        seed=job.how.seed,
        steps=planned.steps,
        network_calls=planned.network_calls,
        network_latents=planned.network_latents,
        memory_mib=round(job.memory_bytes(planned) / 2**20),
        disk_mib=round(disk / 2**20),
        remarks=job.remarks,
    )
