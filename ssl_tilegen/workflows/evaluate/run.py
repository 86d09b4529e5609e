"""`evaluate`: two sets -> windows -> vectors -> scores, pairs and warnings -> a report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from ssl_tilegen import __version__
from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.errors import InputError, Interrupted, SettingError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.metrics.distances import nearest, radii
from ssl_tilegen.system.atomic import sweep
from ssl_tilegen.system.device import pick_device
from ssl_tilegen.system.locks import Held, lock
from ssl_tilegen.system.progress import Progress, silent
from ssl_tilegen.workflows.evaluate.feature_cache import FeatureCache
from ssl_tilegen.workflows.evaluate.features import (
    BUNDLE,
    Features,
    describe_paired_grids,
    features_of,
    features_of_grids,
    load_encoders,
)
from ssl_tilegen.workflows.evaluate.fine_tuning import plan_fine_tuning
from ssl_tilegen.workflows.evaluate.image_sets import ImageSet, read_set, storage_warning
from ssl_tilegen.workflows.evaluate.large_image_scores import Condition, condition, scores_of_large_images
from ssl_tilegen.workflows.evaluate.pairs import matched_images, pair_scores, scores_of_pairs
from ssl_tilegen.workflows.evaluate.paths import cache_folder, check_again, check_run
from ssl_tilegen.workflows.evaluate.report import EvaluateReport, Evidence, SetFacts
from ssl_tilegen.workflows.evaluate.scores import Score, copy_scores, metrics_named, scores_of, warnings_of
from ssl_tilegen.workflows.evaluate.task import run_task
from ssl_tilegen.workflows.evaluate.windows import common_resolution, common_window, places

_KINDS = {"real": "real", "synthetic": "synthetic", "train": "real"}
"""Set -> the kind of its images in a manifest."""


def evaluate(settings: EvaluateSettings, progress: Progress = silent) -> EvaluateReport:
    """Compare the sets of ``settings``, run its task, and write its report.

    Images that cannot be read are listed in ``skipped``. With a report, vectors are kept beside it until it is whole,
    and the same settings go on from them. InputError, FormatError, ResolutionError or SettingError where nothing can
    be compared; OutputError where the report exists or cannot be written; Interrupted, with the place of the vectors.
    """
    started = time.perf_counter()
    settings = settings.model_copy(update={"metrics": metrics_named(settings.metrics)})
    check_run(settings)
    evidence, tuning = Evidence(), plan_fine_tuning(settings)
    with _held(settings) as (cache, held):
        try:
            found = _compare(settings, evidence, progress, cache) if settings.real else _nothing()
            task = run_task(settings, progress, cache, tuning.encoder) if settings.task else None
        except Interrupted as stop:
            raise Interrupted(_where_it_stopped(cache), stop.exit_code - 128) from None
        report = replace(
            found,
            task=task,
            warnings=found.warnings + ((tuning.note,) if tuning.note else ()),
            skipped=found.skipped + tuple((str(p), why) for p, why in (task.skipped if task else ())),
            report=str(settings.report) if settings.report else None,
            seconds=round(time.perf_counter() - started, 1),
        )
        if settings.report:
            from ssl_tilegen.workflows.evaluate.page import write_report

            def before() -> None:
                if held:
                    held.check()
                check_again(settings)

            before()
            write_report(report, evidence, settings, before)
        cache.clear()
    return report


@contextmanager
def _held(settings: EvaluateSettings) -> Iterator[tuple[FeatureCache, Held | None]]:
    """The cache beside the report, which no other job may use meanwhile; one in memory where there is no report."""
    path = settings.report
    if path is None:
        yield FeatureCache(), None
        return
    with ExitStack() as stack:
        held = stack.enter_context(lock(path, option="--report"))
        if settings.report_json:  # another job may have another page and the same JSON
            stack.enter_context(lock(settings.report_json, option="--report-json"))
            sweep(settings.report_json.parent, settings.report_json.name)
        check_again(settings)  # a job that had the lock may have come to its end
        sweep(path.parent, path.name)
        yield FeatureCache(cache_folder(path), restart=settings.restart), held


def _where_it_stopped(cache: FeatureCache) -> str:
    if cache.folder is None:
        return "interrupted: nothing was kept; with --report, vectors are kept beside it and the same command goes on"
    if not cache.holds_some:
        return "interrupted before any vectors were kept; the same command starts anew"
    return f"interrupted: vectors so far are kept in {cache.folder}; the same command goes on from them"


def _compare(
    settings: EvaluateSettings, evidence: Evidence, progress: Progress, cache: FeatureCache
) -> EvaluateReport:  # fmt: skip
    """All but the task."""
    sets = _read_sets(settings)
    asked = _condition(settings, sets["synthetic"], progress) if settings.grid else None  # first: it may be refused
    images = {name: part for name, part in sets.items() if part.images}
    resolution = common_resolution(list(images.values()), settings.resolution)
    side = common_window(list(images.values()), resolution, settings.window) if images else None
    encoders = load_encoders(settings, side or 64)
    by_set = _describe(sets, encoders, side, resolution, settings, progress, cache)
    evidence.features = {name: {part: own[name] for part, own in by_set.items()} for name in by_set["real"]}
    found, warnings = _scores(evidence, settings, progress)
    warnings += [
        f"{part.left_out} images of {part.path} are not {name}, says its manifest, and were left out"
        for name, part in sets.items()
        if part.left_out
    ]
    if set(images) >= {"real", "synthetic"} and side:
        found += _of_images(images, encoders, side, resolution, settings, evidence, progress, cache, warnings)
        storage = storage_warning(images["real"], images["synthetic"])
        warnings += [storage] if storage else []
    return EvaluateReport(
        software=f"ssl-tilegen {__version__}",
        sets={name: _facts(sets[name], by_set[name]) for name in sets},
        window_px=side,
        resolution=str(resolution or _stated(images["real"])) if "real" in images else None,
        scores=tuple(found),
        condition=asked,
        task=None,
        warnings=tuple(dict.fromkeys(warnings)),
        skipped=tuple((str(path), why) for part in sets.values() for path, why in part.skipped),
    )


def _nothing() -> EvaluateReport:
    return EvaluateReport(f"ssl-tilegen {__version__}", {}, None, None, (), None, None, (), ())


def _read_sets(settings: EvaluateSettings) -> dict[str, ImageSet]:
    given = {"real": settings.real, "synthetic": settings.synthetic, "train": settings.train}
    sets = {
        name: read_set(path, kind=_KINDS[name], if_unknown=settings.resolution) for name, path in given.items() if path
    }
    if any(part.grids for part in sets.values()) and BUNDLE not in settings.encoder:
        raise SettingError("--encoder: grids hold vectors of their own encoder; name `bundle` to compare them")
    return sets


def _describe(
    sets: dict[str, ImageSet],
    encoders: dict[str, Encoder],
    side: int | None,
    resolution: Resolution | None,
    settings: EvaluateSettings,
    progress: Progress,
    cache: FeatureCache,
) -> dict[str, dict[str, Features]]:
    """Set -> encoder -> vectors. Where a set is grids, all are compared cell by cell by the encoder of the grids."""
    grids = [grid for part in sets.values() for grid in part.grids]
    if grids:
        return describe_paired_grids(sets, encoders, settings, progress, cache) if side else {
            name: {BUNDLE: features_of_grids(part.grids)} for name, part in sets.items()
        }  # fmt: skip
    assert side is not None
    found = {}
    for name, part in sets.items():
        at, groups = places(part, side, resolution, limit=settings.limit)
        found[name] = features_of(encoders, at, groups, settings.reading_threads, f"describe {name}", progress, cache,
                                  if_unknown=settings.resolution)  # fmt: skip
    return found


def _scores(evidence: Evidence, settings: EvaluateSettings, progress: Progress) -> tuple[list[Score], list[str]]:
    """The scores in every encoder's features, and warnings about them."""
    found: list[Score] = []
    warnings: list[str] = []
    how: dict[str, Any] = {"rounds": settings.rounds, "seed": settings.seed}
    for count, (name, sets) in enumerate(evidence.features.items()):
        progress("compare", count, len(evidence.features))
        real, synthetic = sets["real"], sets["synthetic"]
        found += scores_of(name, real, synthetic, settings.metrics, neighbours=settings.neighbours, **how)
        warnings += warnings_of(name, real, synthetic, settings.neighbours)
        evidence.nearest[name] = nearest(synthetic.x, real.x)
        evidence.apart[name] = radii(real.x, 1, real.groups if len(set(real.groups.tolist())) > 1 else None)
        if "train" in sets and "copy" in settings.metrics:
            rows, copies, warning = copy_scores(name, real, synthetic, sets["train"], **how)
            found += rows
            evidence.copies |= {name: copies} if copies else {}
            warnings += [warning] if warning else []
    progress("compare", len(evidence.features), len(evidence.features))
    return found, warnings


def _of_images(
    images: dict[str, ImageSet],
    encoders: dict[str, Encoder],
    side: int,
    resolution: Resolution | None,
    settings: EvaluateSettings,
    evidence: Evidence,
    progress: Progress,
    cache: FeatureCache,
    warnings: list[str],
) -> list[Score]:
    """Pairs, and the scores of large images; adds to ``warnings``."""
    found: list[Score] = []
    first = next(iter(evidence.features))
    if "pairs" in settings.metrics:
        matches = matched_images(images["real"], images["synthetic"])
        sets = evidence.features[first]
        evidence.pairs = pair_scores(matches.pairs, sets["real"], sets["synthetic"])
        if evidence.pairs:
            guessed = matches.warning()
            warnings += [guessed] if guessed else []
            found += scores_of_pairs(first, evidence.pairs, sets["real"].x.shape[1], settings.rounds, settings.seed)
    if "large" in settings.metrics:
        found += scores_of_large_images(
            images,
            {first: encoders[first]},
            evidence.features[first]["real"],
            side,
            resolution,
            settings,
            progress,
            cache,
        )
    return found


def _condition(settings: EvaluateSettings, synthetic: ImageSet, progress: Progress) -> Condition:
    assert settings.grid is not None
    if len(synthetic.images) != 1:
        raise InputError(
            f"--grid {settings.grid}: goes with one synthetic image, {synthetic.path} has {len(synthetic.images)}; "
            "give the image that was painted from it"
        )
    bundle = ModelBundle.load(settings.model, pick_device(settings.device))
    return condition(EmbeddingGrid.open(settings.grid), synthetic.images[0].path, bundle, progress, settings.seed)


def _facts(part: ImageSet, features: dict[str, Features]) -> SetFacts:
    own = next(iter(features.values()))
    storage = {kind: round(share, 4) for kind, share in part.storage.items()} if part.images else {}
    return SetFacts(str(part.path), len(part.images) or len(part.grids), len(own.x), len(set(own.groups.tolist())),
                    storage)  # fmt: skip


def _stated(part: ImageSet) -> str:
    known: Sequence[Resolution] = [image.resolution for image in part.images if image.resolution]
    return str(known[0]) if known else "as stored"
