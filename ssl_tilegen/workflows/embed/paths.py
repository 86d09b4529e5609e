"""All that `embed` reads and writes, for the gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.grids import unfinished_grid
from ssl_tilegen.system import marks
from ssl_tilegen.system.locks import Shard, lock_file
from ssl_tilegen.system.outputs import Input, Output, check_output, refuse_meetings, require_name, require_plain
from ssl_tilegen.workflows.embed.inputs import EmbedJob
from ssl_tilegen.workflows.embed.regions import region_files
from ssl_tilegen.workflows.embed.report import summary_output, summary_path
from ssl_tilegen.workflows.model_paths import encoder_inputs, model_inputs

PREVIEW, OUTLINES = ".embed-preview.png", ".geojson"


def check_run(jobs: Sequence[EmbedJob], settings: EmbedSettings, shard: Shard) -> None:
    """Before anything is written: no output of the whole run is one of its inputs, or another output, and its table
    may be written. What lies at each job's own outputs is looked at by `check_job`."""
    own = option_of_grid(settings)
    for job in jobs:
        require_name(job.grid, own)
    require_name(settings.summary or Path("none"), "--summary")
    written = [output for job in jobs for output in outputs_of(job, settings, own)]
    written += [Output(lock_file(job.grid, shard), marks.never, own, "work") for job in jobs]
    table = summary_path(settings, shard)
    summary = [summary_output(table), Output(lock_file(table), marks.lock, "--summary", "work")] if table else []
    read = list(_inputs(jobs, settings))
    for each in read:
        if each.option != "the input":
            require_plain(each.path, each.option)
    refuse_meetings(read, [*written, *summary])
    for output in summary:
        check_output(output)


def check_job(job: EmbedJob, settings: EmbedSettings) -> None:
    """OutputError where something foreign lies at an output of one image; whether a grid may be replaced at all is
    for `settled` to say."""
    if isinstance(job.image, Path):
        require_plain(job.image)
    for output in outputs_of(job, settings, option_of_grid(settings)):
        check_output(output, overwrite=True)


def outputs_of(job: EmbedJob, settings: EmbedSettings, option: str = "-o") -> Iterator[Output]:
    """The grid of an image, its unfinished form, and the companion files that were asked for."""
    yield Output(job.grid, marks.grid, option)
    yield Output(unfinished_grid(job.grid), marks.grid, option, "work")
    if settings.preview:
        yield Output(job.beside(PREVIEW), marks.preview("embed", job.grid.name), "--preview", "side")
    if settings.geojson:
        yield Output(job.beside(OUTLINES), marks.geojson, "--geojson", "side")


def option_of_grid(settings: EmbedSettings) -> str:
    """The option that says where grids go."""
    return "--out-dir" if settings.out_dir else "-o"


def _inputs(jobs: Sequence[EmbedJob], settings: EmbedSettings) -> Iterator[Input]:
    for job in jobs:
        if isinstance(job.image, Path):
            yield Input(job.image)
        for path in region_files(settings.regions, job):
            yield Input(path, "--regions")
    if settings.list:
        yield Input(settings.list, "--list")
    yield from model_inputs(settings.model)
    yield from encoder_inputs(settings.encoder, settings.weights)
