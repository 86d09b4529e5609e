"""Painting a job: canvas, pixels, file. What a stopped run left is gone on with.

A resumed run finds three stores in the unfinished output's folder: its latents in ``latents.state``
(``diffusion.sampler_state``), the rows that are in the file (``io.pyramid``), and those that other processes left
(`row_store`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from torch import Tensor

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.decoding import Pixels
from ssl_tilegen.diffusion.row_parallel import ALONE, Ranks
from ssl_tilegen.diffusion.synthesis import develop, paint
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.pyramid import open_writer, unfinished_image
from ssl_tilegen.system.locks import Held
from ssl_tilegen.system.progress import Progress, silent
from ssl_tilegen.workflows.generate.job import PaintJob
from ssl_tilegen.workflows.generate.row_store import RowShards

STATE = "latents.state"
_BAND_BYTES, _MOST_BAND_LAT = 96 << 20, 256  # decoders see around a band: a third more to compute at 64 latents


def paint_job(
    job: PaintJob,
    progress: Progress = silent,
    *,
    ranks: Ranks = ALONE,
    held: Held | None = None,
    overwrite: bool = False,
    restart: bool = False,
) -> tuple[float, float]:
    """Paint and develop all rows that are not there yet; seconds of both.

    The first of many processes writes the file, the others leave it their rows. ``held``: the caller holds the lock of
    the output. OutputError where the output cannot be written, Interrupted when ``progress`` asks to stop.
    """
    with ExitStack() as stack:
        writer = None
        if ranks.rank == 0:
            opened = open_writer(job.out, job.image, overwrite=overwrite, restart=restart, held=held)
            writer = stack.enter_context(opened)
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
            for _ in rows:  # nothing is left, but where all of the region was written before the others still wait
                pass
            if job.inpainting:
                job.inpainting.refuse_changed(job.image.record["kept_fingerprint"])
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
    """The painted rows that lie in the core of ``canvas``."""
    window, core = job.placement.window, canvas.core.scaled(job.bundle.factor)
    return range(max(0, core.row - window.row), min(window.rows, core.row_end - window.row))


def _developed(job: PaintJob, canvas: Canvas, first: int, progress: Progress) -> Iterator[Pixels]:
    """The painted rows from ``first`` to the last that ``canvas`` has, in bands."""
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
