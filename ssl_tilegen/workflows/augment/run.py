"""`augment`: labelled images -> their embeddings, kept or mixed -> new images of the same labels."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import AugmentSettings
from ssl_tilegen.encoders.bundle_encoder import encoder_of
from ssl_tilegen.errors import BudgetError, OutputError, ResolutionError
from ssl_tilegen.geometry import Size
from ssl_tilegen.system import marks, work_folder
from ssl_tilegen.system.atomic import publish_folder, sweep, temporary_beside, writing
from ssl_tilegen.system.device import pick_device, tune_allocator
from ssl_tilegen.system.launch import check_restart, worker_shard
from ssl_tilegen.system.locks import Busy, Shard, lock, lock_file
from ssl_tilegen.system.outputs import Input, Output, check_output, refuse_meetings, require_name, require_plain
from ssl_tilegen.system.progress import Progress, silent
from ssl_tilegen.workflows.augment.images import paint_image
from ssl_tilegen.workflows.augment.inputs import Original, Originals, read_originals
from ssl_tilegen.workflows.augment.patches import BLEED_LAT, Painter, paint_patches
from ssl_tilegen.workflows.augment.plan import Sheet, check_groups, plan_sheets
from ssl_tilegen.workflows.augment.report import (
    MANIFEST,
    AugmentIncomplete,
    AugmentReport,
    judge,
    summarise,
    write_manifest,
)
from ssl_tilegen.workflows.augment.store import FACTS, PART_NAMES, Store, run_folder
from ssl_tilegen.workflows.generate.sampling import bundle_sampling
from ssl_tilegen.workflows.model_paths import model_inputs

_STACK_PX = {"cpu": 32 * 224**2, "cuda": 512 * 224**2}


def augment(source: str | Path, settings: AugmentSettings, progress: Progress = silent) -> AugmentReport:
    """Make new images of the labelled ones in ``source``, a folder of class folders or a CSV; returns their facts.

    The output has the same layout and a ``manifest.csv``; it gets its name when all sheets of all processes are there.
    Sheets that an earlier run finished are kept. Raises the errors of ``read_originals``, OutputError, and
    AugmentIncomplete where some images could not be read; Interrupted when ``progress`` asks to stop.
    """
    started, source = time.perf_counter(), Path(source)
    tune_allocator()
    out, shard = require_name(settings.out or default_output(source)), settings.shard or worker_shard()
    check_restart(settings.restart, shard, out)
    _check_paths([Input(source, "the data set"), *model_inputs(settings.model)], out, shard)
    check_output(Output(out, marks.augmented), overwrite=settings.overwrite or shard[1] > 1)
    sampled = settings.mpp is not None or settings.gsd is not None
    originals = read_originals(source, settings.level, progress, sampled=sampled)
    if not source.is_dir():
        _check_paths([Input(image.path, "a image of the data set") for image in originals.images], out, shard)
    if settings.gated:
        check_groups(originals.images)
    painter = _painter(originals.images, settings)
    sheets = plan_sheets(originals.images, settings, per_sheet=settings.batch or _per_sheet(painter))
    key = _key(painter, originals, sheets)
    report = AugmentReport(out, "finished before", originals.classes(), 0, failed=originals.failed)
    if not _finished(out, key, settings, shard):
        with lock(out, shard) as held:
            check_output(Output(out, marks.augmented), overwrite=settings.overwrite or shard[1] > 1)
            if held.alone:
                sweep(out.parent, out.name)
            store = Store(out, key, restart=settings.restart and held.alone)
            try:
                painted = _paint_all(painter, sheets, store, shard, progress)
            except (BudgetError, ResolutionError):
                if shard[1] == 1 and not any(map(store.done, range(len(sheets)))):
                    store.discard()
                raise
            held.check()
            report = _finish(report, painter, sheets, store, key)
        seconds = time.perf_counter() - started
        report = replace(report, painted=painted, seconds=round(seconds, 2), per_s=round(painted / seconds, 3))
    if originals.failed:
        raise AugmentIncomplete(report)
    return report


def _check_paths(inputs: Sequence[Input], out: Path, shard: Shard) -> None:
    """Errors of one line where the output would meet an input, or something foreign is in its way."""
    part = Output(run_folder(out), work_folder.work(PART_NAMES), role="work")
    own_lock = Output(lock_file(out, shard), marks.lock, role="work")
    refuse_meetings(inputs, [Output(out, marks.augmented), part, own_lock])
    check_output(part)
    for each in inputs:
        require_plain(each.path, each.option)


def default_output(source: Path) -> Path:
    """NAME-augmented beside the folder or the CSV."""
    path = source.absolute()
    return path.with_name(f"{path.stem if path.is_file() else path.name}-augmented")


def _painter(originals: Sequence[Original], settings: AugmentSettings) -> Painter:
    bundle = ModelBundle.load(settings.model, pick_device(settings.device))
    asked = bundle_sampling(bundle, steps=settings.steps, guidance=settings.guidance)
    how = replace(asked, layout=settings.layout == "exact", bleed_lat=BLEED_LAT)
    return Painter(bundle, encoder_of(bundle), settings, how, originals)


def _per_sheet(painter: Painter) -> int:
    """Patches painted in one go: as many as fill the device, by the largest image."""
    sizes = [image.size.area for image in painter.originals if image.level == "patch"] or [1]
    return max(1, _STACK_PX.get(painter.bundle.device.type, _STACK_PX["cpu"]) // max(sizes))


def _paint_all(painter: Painter, sheets: Sequence[Sheet], store: Store, shard: Shard, progress: Progress) -> int:
    """Paint this process's sheets that are not done yet; how many images that were."""
    index, count = shard
    mine = [number for number in range(len(sheets)) if number % count == index and not store.done(number)]
    total, painted = sum(len(sheets[number].samples) for number in mine), 0
    for number in mine:
        sheet = sheets[number]
        progress("augment", painted, total)

        def tick(stage: str, done: float, of: float, before: int = painted, size: int = len(sheet.samples)) -> None:
            progress("augment", before + size * min(done / of, 0.999), total)

        paint = paint_patches if sheet.level == "patch" else paint_image
        store.put(number, paint(painter, sheet, store.folder, tick))
        painted += len(sheet.samples)
        progress("augment", painted, total)
    return painted


def _finish(
    report: AugmentReport, painter: Painter, sheets: Sequence[Sheet], store: Store, key: str
) -> AugmentReport:  # fmt: skip
    """Judge all samples, write the manifest, name the output; nothing of it where other processes hold sheets."""
    settings, originals = painter.settings, painter.originals
    report = replace(report, status="partial")
    try:
        with lock(store.part):
            if not all(store.done(number) for number in range(len(sheets))):
                return report
            samples = [sample for sheet in sheets for sample in sheet.samples]
            verdicts = judge(samples, originals, [store.get(number) for number in range(len(sheets))], settings)
            names = {sample.file for sample in samples}
            real_files = _place_originals(store.folder, originals, settings.originals, names)
            write_manifest(store.folder / MANIFEST, verdicts, samples, originals, settings, real_files)
            found = summarise(verdicts, samples, originals)
            facts = _facts(painter) | {"key": key} | found
            drop = [sample.file for sample, why in zip(samples, verdicts.reasons, strict=True) if why]
            store.finish(drop, facts, overwrite=settings.overwrite)
    except Busy:
        return report
    return replace(report, status="done", **found)


def _place_originals(folder: Path, originals: Sequence[Original], how: str, names: Iterable[str]) -> dict[int, str]:
    """Copy or link the originals beside the new images ``names``; index -> path relative to ``folder``."""
    placed: dict[int, str] = {}
    taken = set(names)
    for index, original in enumerate(originals) if how != "none" else ():
        name = original.path.name
        place = "/".join(filter(None, (original.split, original.label, name)))
        if place in taken:
            place = "/".join(filter(None, (original.split, original.label, f"{index}-{name}")))
        taken.add(place)
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(target):
            if how == "link":
                target.symlink_to(original.path.absolute())
            else:
                _copy(original.path, target)
        placed[index] = place
    return placed


def _copy(source: Path, target: Path) -> None:
    """A copy that has its name when it is whole: a killed run goes on from what it finds."""
    if source.is_dir():
        part = temporary_beside(target)
        shutil.copytree(source, part)
        publish_folder(part, target)
    else:
        with writing(target) as part:
            shutil.copy2(source, part)


def _facts(painter: Painter) -> dict[str, Any]:
    """How the set was made; no paths, no dates."""
    names = ("per_image", "strength", "mix", "seed", "layout", "keep_best", "min_cosine", "level", "suffix")
    sampling = ("steps", "update", "guidance", "guidance_interval", "bleed_lat")
    return {
        "synthetic": True,
        "model": painter.bundle.info.name,
        "model_sha256": painter.bundle.hash,
        **{name: getattr(painter.settings, name) for name in (*names, "mpp", "gsd")},
        **{name: getattr(painter.how, name) for name in sampling},
        **({"times": list(painter.how.times)} if painter.how.times else {}),
    }


def _key(painter: Painter, originals: Originals, sheets: Sequence[Sheet]) -> str:
    """The same for the same run, and for no other."""
    images = [image._replace(path=Path(), size=Size(1, 1)) for image in originals.images]
    facts = [_facts(painter), painter.settings.originals, images, sheets]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _finished(out: Path, key: str, settings: AugmentSettings, shard: Shard) -> bool:
    """Whether other shards have finished just this run. OutputError where something else has the name."""
    if not out.exists() or settings.overwrite:
        return False
    try:
        same = json.loads((out / FACTS).read_text()).get("key") == key
    except (OSError, ValueError, AttributeError):
        same = False
    if same and shard[1] > 1:
        return True
    raise OutputError(f"{out}: exists; choose another -o or give --overwrite")
