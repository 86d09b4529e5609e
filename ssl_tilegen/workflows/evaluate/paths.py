"""All that `evaluate` reads and writes, for the gate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.errors import OutputError
from ssl_tilegen.system import marks, work_folder
from ssl_tilegen.system.locks import lock_file
from ssl_tilegen.system.outputs import Input, Output, check_output, check_paths, require_name
from ssl_tilegen.workflows.evaluate.feature_cache import PART_NAMES
from ssl_tilegen.workflows.model_paths import encoder_inputs, model_inputs


def check_run(settings: EvaluateSettings) -> None:
    """Before the long work: errors of one line where the report cannot be written or would cost something."""
    path = settings.report
    for own, option in ((path, "--report"), (settings.report_json, "--report-json")):
        require_name(own or Path("none"), option)
    if path and path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"--report {path}: expected a name that ends in .html")
    if path and not path.resolve().parent.is_dir():
        raise OutputError(f"--report {path}: no folder {path.parent}; make it first")
    check_paths(_inputs(settings), _outputs(settings), overwrite=settings.overwrite)


def check_again(settings: EvaluateSettings) -> None:
    """Before the report gets its names, long after `check_run`: OutputError where they are taken by now."""
    for output in _outputs(settings):
        if output.role == "main":
            check_output(output, overwrite=settings.overwrite)


def cache_folder(report: Path) -> Path:
    """The folder of the cache of an unfinished run, beside its report."""
    return report.with_name(f"{report.name}.part")


def _inputs(settings: EvaluateSettings) -> Iterator[Input]:
    for name in ("real", "synthetic", "train", "task", "grid"):
        path = getattr(settings, name)
        if path:
            yield Input(path, f"--{name}", whole=path.suffix == ".zarr")
    yield from model_inputs(settings.model)
    for encoder in settings.encoder:
        yield from encoder_inputs(encoder, None)
    yield from encoder_inputs(None, settings.weights)


def _outputs(settings: EvaluateSettings) -> Iterator[Output]:
    if settings.report and settings.json_path:
        yield Output(settings.report, marks.report_html, "--report")
        yield Output(settings.json_path, marks.report_json, "--report-json")
        yield Output(cache_folder(settings.report), work_folder.work(PART_NAMES), "--report", "work")
        yield Output(lock_file(settings.report), marks.lock, "--report", "work")
        if settings.report_json:
            yield Output(lock_file(settings.report_json), marks.lock, "--report-json", "work")
