"""All that `train` reads and writes, for the gate; and the lock of a run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ssl_tilegen.bundle.components import component_mark
from ssl_tilegen.errors import Interrupted
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.system import marks
from ssl_tilegen.system.atomic import is_temporary, remove, sweep
from ssl_tilegen.system.locks import lock, lock_file
from ssl_tilegen.system.marks import lock as lock_mark
from ssl_tilegen.system.metadata import foreign_in
from ssl_tilegen.system.outputs import Input, Output, check_output, check_paths, require_name
from ssl_tilegen.training.checkpoint import FILES
from ssl_tilegen.training.init_config import init_config, table_of
from ssl_tilegen.training.run_metadata import component_of
from ssl_tilegen.workflows.model_paths import encoder_inputs, model_inputs

_START_NAMES = r"settings\.json|data\.json|replaces\.json"
SETTINGS_FILE = "settings.json"
_RUN_NAMES = (
    r"settings\.json|data\.json|replaces\.json|log\.jsonl|curves\.png|sample-\d+\.png|checkpoint(\.new|\.old)?|snapshots|cache|"
    r"tensorboard"
)
_INNER_NAMES = (
    rf"checkpoint(\.new|\.old)?/({FILES})|"
    r"snapshots/\d+-[\d.e+-]+\.safetensors|cache/(latents-\w+(/\d+\.npz)?|cells-\w+\.npz|captions-\w+\.npy)|"
    r"tensorboard/events\.out\.tfevents\..+"
)


def write_config(
    stage: str, bundle: str, images: Path, out: Path, said: Resolution | None = None, *, overwrite: bool = False
) -> list[Path]:
    """`train init`: a configuration of a stage (see `init_config`), past the gate and under the lock.

    Returns:
        The files written.

    Raises:
        OutputError: Something is there that was edited or not made by this program, or ``overwrite`` is not given.
    """
    require_name(out, "--out")
    outputs = [Output(out, marks.signed_text, "--out"), Output(lock_file(out), lock_mark, "--out", "work")]
    if stage == "prior":
        outputs.append(Output(table_of(out), marks.beside_signed(out), "--out", "side"))
    inputs = [Input(images, "--images", whole=False), *model_inputs(bundle, "--from")]
    check_paths(inputs, outputs, overwrite=overwrite)
    with lock(out, option="--out"):
        sweep(out.parent, out.name, *([table_of(out).name] if stage == "prior" else []))

        def before() -> None:
            check_paths(inputs, [each for each in outputs if each.role != "work"], overwrite=overwrite)

        before()
        return init_config(stage, bundle, images, out, said, before)


def check_run(stage: str, settings: Any, config: Path, run_folder: Path, bundle_folder: Path, *, restart: bool) -> None:
    """InputError or OutputError where the run's folder or its part of the bundle is not ours, or is an input."""
    run = Output(run_folder, run_mark if restart else begun_mark, "--out", "work")
    locks = [Output(lock_file(folder), lock_mark, "--out", "work") for folder in (run_folder, bundle_folder)]
    check_paths(_inputs(settings, config, bundle_folder), [run, _component(stage, bundle_folder), *locks])
    check_bundle(stage, bundle_folder)


def check_bundle(stage: str, bundle_folder: Path) -> None:
    """OutputError where something foreign lies where the bundle's part goes; asked again when it is trained."""
    check_output(Output(bundle_folder, bundle_mark, "--out", "side"))
    check_output(_component(stage, bundle_folder))


def _component(stage: str, bundle_folder: Path) -> Output:
    return Output(bundle_folder / component_of(stage), component_mark, "--out", "side")


@contextmanager
def locked_run(run_folder: Path, bundle_folder: Path) -> Iterator[None]:
    """Hold a run's folder; half-written files of killed runs are removed. Where the body fails before a new run has
    begun in earnest, the run's folder is removed again."""
    with lock(run_folder, option="--out"):
        is_new = not run_folder.exists()
        sweep(run_folder.parent, run_folder.name, bundle_folder.name)
        for folder in (bundle_folder, *bundle_folder.glob("*"), *_folders_of(run_folder)):
            sweep(folder)
        try:
            yield
        except Interrupted:
            raise
        except Exception:
            if is_new and run_folder.is_dir() and not foreign_in(run_folder, _START_NAMES):
                shutil.rmtree(run_folder, ignore_errors=True)
            raise


def _folders_of(run_folder: Path) -> Iterator[Path]:
    """The folders of a run in which files are written under a temporary name; not all need be there."""
    cache = run_folder / "cache"
    yield from (run_folder, run_folder / "snapshots", cache, *cache.glob("latents-*"))


@contextmanager
def tidied(folder: Path) -> Iterator[None]:
    """Where the body fails, ``folder`` and those above it that it has made are removed again, if nothing is in them.

    Nothing else may be touched here: without the lock, what lies in them may be another job's.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    except Interrupted:
        raise
    except Exception:
        for each in made:
            with suppress(OSError):
                each.rmdir()
        raise


def clear_run(run_folder: Path) -> None:
    """Remove a run that is to start over. OutputError where its folder holds foreign files. A link to a folder stays,
    which is emptied: first of what goes on with a run, last of what says that it is one."""
    if not run_folder.exists():
        return
    check_output(Output(run_folder, run_mark, "--out", "work"))
    if not run_folder.is_symlink():
        remove(run_folder)
        return
    for entry in sorted(run_folder.iterdir(), key=lambda entry: entry.name == SETTINGS_FILE):
        remove(entry)


def run_mark(folder: Path) -> str | None:
    """The folder of a run, with nothing in it that the run did not make."""
    return begun_mark(folder) or _foreign(folder, _RUN_NAMES) or _foreign_inside(folder)


def begun_mark(folder: Path) -> str | None:
    """The folder of a run, or an empty one."""
    if not folder.is_dir():
        return f"no {SETTINGS_FILE}: it is no folder"
    if not any(folder.iterdir()):
        return None
    for entry in folder.iterdir():
        if not (entry.is_file() or entry.is_dir()):
            return f"'{entry.name}' in it, which is no file"
    try:
        settings = json.loads((folder / SETTINGS_FILE).read_bytes())
        is_ours = "steps" in settings["run"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        is_ours = False
    return None if is_ours else f"no {SETTINGS_FILE} of a run"


def bundle_mark(folder: Path) -> str | None:
    """A bundle in the making: whatever else lies in its folder stays, but what describes a model must be ours."""
    if not folder.is_dir():
        return "no bundle.json: it is no folder"
    if not any((folder / name).exists() for name in ("bundle.json", "model_index.json")):
        return None
    try:
        is_ours = {"name", "encoder"} <= json.loads((folder / "bundle.json").read_bytes()).keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        is_ours = False
    return None if is_ours else "no bundle.json of a model bundle"


def _foreign_inside(folder: Path) -> str | None:
    """The same for the folders of a run: checkpoints, snapshots, caches."""
    known = re.compile(_INNER_NAMES)
    for path in sorted(folder.glob("*/**/*")):
        if not known.fullmatch(path.relative_to(folder).as_posix()) and not is_temporary(path.name):
            return f"'{path.relative_to(folder)}' in it, which the run did not make"
    return None


def _foreign(folder: Path, names: str) -> str | None:
    strange = foreign_in(folder, names)
    return f"'{strange}' in it, which the run did not make" if strange else None


def _inputs(settings: Any, config: Path, bundle_folder: Path) -> Iterator[Input]:
    yield Input(config, "--config", whole=False)
    for name in ("bundle", "start_from", "feature_bundle"):
        value = getattr(settings, name, None)
        if value and Path(value).resolve() != bundle_folder.resolve():
            yield from model_inputs(value, f"the bundle of `{name}`")
    yield from encoder_inputs(getattr(settings, "pretrained", None), getattr(settings, "weights", None))
    table = getattr(settings, "table", None)
    if table:
        yield Input(Path(table), "the table", whole=False)
