"""`train`: read the configuration and the images, train one stage, put the result into a bundle."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from ssl_tilegen.bundle.card import write_card
from ssl_tilegen.config.train import STAGES, load_stage_settings
from ssl_tilegen.errors import OutputError
from ssl_tilegen.system.atomic import write_text
from ssl_tilegen.system.resources import allow_many_files
from ssl_tilegen.system.signals import finishing
from ssl_tilegen.training.checkpoint import has_checkpoint
from ssl_tilegen.training.distributed import Processes
from ssl_tilegen.training.loop import flushed_denormals, train_stage
from ssl_tilegen.training.run_metadata import changed_settings, keep_data, write_run_metadata
from ssl_tilegen.training.stage import StageContext
from ssl_tilegen.workflows.train_component import BundlePart, check_replaced, keep_replaced
from ssl_tilegen.workflows.train_paths import SETTINGS_FILE, check_bundle, check_run, clear_run, locked_run, tidied

Report = Callable[[dict[str, Any]], None]
_STOPPING_S = 60.0  # that a step and its checkpoint may take after a signal


def train(
    stage: str,
    config: Path,
    out: Path,
    *,
    overrides: list[str] | None = None,
    device: str = "auto",
    restart: bool = False,
    report: Report = lambda facts: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train a stage as ``config`` says; the bundle grows in ``out/bundle``.

    The run lives in ``out/<stage>``: log.jsonl, curves, samples, checkpoint, the resolved settings, facts of the data.
    The same call continues an unfinished run, on one process or on many (started by torchrun, accelerate or srun).

    Args:
        stage: A name in ``config.train.STAGES``.
        config: TOML file of the stage's options.
        out: Folder of the run and the bundle.
        overrides: ``key=value`` pairs on top of the file.
        device: auto, cpu, cuda or cuda:I.
        restart: Start over instead of continuing.
        report: Called with one dict per log line or message.
        stop: Asked after every step. Once it says yes, the state is saved and the bundle gets the weights so far.
            An encoder's last steps are taken at the end of its run only. One process of many stops them all.

    Returns:
        The names of the stage, and of the folders of its run and of the bundle; ``stopped``: whether the run was.
    """
    settings = load_stage_settings(stage, config, overrides or [])
    kind: Any = resolve_name(STAGES[stage].implementation)
    processes = Processes(device)
    allow_many_files()
    say = report if processes.is_first else lambda facts: None
    context = StageContext(out / stage, out / "bundle", processes, say)
    with tidied(out), processes.together():
        held: AbstractContextManager[None] = nullcontext()
        if processes.is_first:
            check_run(stage, settings, config, context.run_folder, context.bundle_folder, restart=restart)
            held = locked_run(context.run_folder, context.bundle_folder)
        with held:
            return _trained(kind, settings, context, config, stop, restart=restart)


def _trained(
    kind: Any, settings: Any, context: StageContext, config: Path, stop: Callable[[], bool], *, restart: bool
) -> dict[str, Any]:
    """Train in a folder that this run holds; see `train`. An older run is cleared once the data are good."""
    stage, processes = context.run_folder.name, context.processes
    place = BundlePart(stage, context.run_folder, context.bundle_folder)
    if processes.is_first and not restart and check_replaced(place, settings) == "keep":
        context.say(f"{place.component} is a painter that was trained from this denoiser: it stays as it is")
    data = kind.load_data(settings, context)
    with processes.first_alone():
        if processes.is_first:
            if restart:
                clear_run(context.run_folder)
            _open_run(place, settings, data, context.report)
    with processes.first_alone():
        made = kind.prepare(settings, data, context)
    module, stopped = None, False
    if made.module is not None:
        with finishing(_STOPPING_S), flushed_denormals():  # time for a step and its checkpoint
            trained, stopped = train_stage(made, settings.run, context.run_folder, context.report, processes, stop)
            module = trained.to("cpu")
    if processes.is_first and not (stopped and made.whole_run_only):
        with context.writing_bundle():
            check_bundle(stage, context.bundle_folder)
            if check_replaced(place, settings) == "export":
                made.export(module, context)
                write_run_metadata(stage, settings, data, context.bundle_folder, config.parent)
                write_card(context.bundle_folder)
    processes.wait()
    return {"stage": stage, "run": str(context.run_folder), "bundle": str(context.bundle_folder), "stopped": stopped}


def _open_run(place: BundlePart, settings: Any, data: Any, report: Report) -> None:
    """Make the run's folder and record its settings and data; report how they differ from those it was begun with."""
    folder = place.run_folder
    recorded = folder / SETTINGS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        goes_on = has_checkpoint(folder)
        if not goes_on:
            keep_replaced(place)
        changes = changed_settings(recorded, settings) if goes_on else []
        write_text(recorded, settings.model_dump_json(indent=2))
        other_data = keep_data(data, folder) and goes_on
    except OSError as error:
        raise OutputError(f"{folder}: cannot write here ({error.strerror}); choose another --out") from error
    if changes:
        report({"message": f"going on in {folder} with other settings: {', '.join(changes)}"})
    if other_data:
        report({"message": f"warning: going on in {folder} with other images than the run was begun with"})
