"""Is it useful? Classifiers trained on real, on synthetic and on both, tested on real images they have not seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.encoders.module_encoder import NetworkEncoder
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.metrics.probes import knn_probe, linear_probe
from ssl_tilegen.metrics.resampling import Interval
from ssl_tilegen.metrics.usefulness import ARMS, LabelledSet, Learner, Outcome, compare
from ssl_tilegen.system.progress import Progress, silent
from ssl_tilegen.workflows.evaluate.classifier_cache import cached_outcome
from ssl_tilegen.workflows.evaluate.feature_cache import FeatureCache
from ssl_tilegen.workflows.evaluate.features import BUNDLE, features_of, load_encoders
from ssl_tilegen.workflows.evaluate.fine_tuning import fine_tuner, resized
from ssl_tilegen.workflows.evaluate.image_sets import ImageSet, described
from ssl_tilegen.workflows.evaluate.task_data import find_task_data
from ssl_tilegen.workflows.evaluate.windows import common_resolution, common_window, is_large, places, windows
from ssl_tilegen.workflows.labelled_images import Labelled


@dataclass(frozen=True)
class TaskRow:
    """A classifier on one arm: accuracy, balanced accuracy and AUC over seeds, and its gain in accuracy over 'real'."""

    model: str
    features: str
    dim: int
    arm: str
    n_train: float
    n_test: int
    test_groups: int
    accuracy: Interval
    balanced: Interval
    auc: Interval
    gain: Interval | None


@dataclass(frozen=True)
class TaskReport:
    """``rows``; ``confusion`` (C, C): synthetic images as the best model trained on real ones sees them, ``judge``."""

    classes: tuple[str, ...]
    seeds: int
    rows: tuple[TaskRow, ...]
    confusion: np.ndarray
    judge: str
    skipped: tuple[tuple[Path, str], ...]
    image_level: bool


@dataclass(frozen=True)
class TaskData:
    """The three parts of a task with features per image: ``vectors`` by encoder (mean over windows), ``bags`` (the
    windows' own vectors), ``pixels`` (N, S, S, 3)."""

    labelled: dict[str, Labelled]
    vectors: dict[str, dict[str, LabelledSet]]
    bags: dict[str, dict[str, LabelledSet]]
    pixels: dict[str, LabelledSet]
    skipped: tuple[tuple[Path, str], ...]
    large: bool


def run_task(
    settings: EvaluateSettings,
    progress: Progress = silent,
    cache: FeatureCache | None = None,
    encoder: NetworkEncoder | None = None,
) -> TaskReport:
    """Everything `--task` asks for; ``encoder`` is fine-tuned. InputError where a part is missing, has one class, or no
    image can be read."""
    assert settings.task is not None
    sets = read_task(settings.task, settings, progress, cache, encoder)
    learners = _learners(settings, sets, cache, encoder)
    classes = sets.labelled["real"].classes
    done, total = 0, len(learners) * settings.seeds * len(ARMS)

    def tick() -> None:
        nonlocal done
        done += 1
        progress("train", done, total)

    rows: list[TaskRow] = []
    judged: list[tuple[float, str, np.ndarray]] = []
    for (model, features), (learner, parts) in learners.items():
        outcome = compare(learner, parts["real"], parts["synthetic"], parts["test"], len(classes), seeds=settings.seeds,
                          seed=settings.seed, per_class=_per_class(settings), tick=tick)  # fmt: skip
        rows += _rows(outcome, model, features, parts)
        table = _seen_by_real(learner, parts, len(classes), settings.seed)
        judged.append((outcome.score("real", rounds=2).value, f"{model}, {features}", table))
    _, judge, table = max(judged, key=lambda found: found[0])
    return TaskReport(classes, settings.seeds, tuple(rows), table, judge, sets.skipped, sets.large)


def read_task(
    folder: Path,
    settings: EvaluateSettings,
    progress: Progress = silent,
    cache: FeatureCache | None = None,
    encoder: NetworkEncoder | None = None,
) -> TaskData:
    """Find the parts of ``folder`` and describe their images; with pixels of each for ``encoder`` to be fine-tuned."""
    found = find_task_data(folder)
    images = {part: described(folder / part, _files(own), if_unknown=settings.resolution)
              for part, own in found.items()}  # fmt: skip
    resolution = common_resolution(list(images.values()), settings.resolution)
    side = common_window(list(images.values()), resolution, settings.window)
    encoders = load_encoders(settings, side, encoder)
    vectors: dict[str, dict[str, LabelledSet]] = {name: {} for name in encoders}
    bags: dict[str, dict[str, LabelledSet]] = {name: {} for name in encoders}
    pixels: dict[str, LabelledSet] = {}
    for part, own in images.items():
        labels = _labels(found[part])
        at, groups = places(own, side, resolution)
        given = features_of(encoders, at, groups, settings.reading_threads, f"describe {part}", progress, cache,
                            if_unknown=settings.resolution)  # fmt: skip
        for name, features in given.items():
            names = [str(place.image.path) for place in features.places]
            bags[name][part] = _bagged(features.x, names, labels)
            vectors[name][part] = _averaged(bags[name][part])
        if encoder:
            pixels[part] = _pixels(own, side, resolution, labels, settings, encoder.input_px)
    large = all(is_large(image, side, resolution) for image in images["real"].images)
    return TaskData(found, vectors, bags, pixels, tuple(s for own in images.values() for s in own.skipped), large)


def _files(own: Labelled) -> list[tuple[Path, str]]:
    return list(zip(own.paths, own.groups.tolist(), strict=True))


def _labels(own: Labelled) -> dict[str, tuple[int, str]]:
    """Path -> label and group; a group is one of its class."""
    each = zip(own.paths, own.labels, own.groups, strict=True)
    return {str(path): (int(y), f"{own.classes[y]}/{group}") for path, y, group in each}


def _bagged(x: np.ndarray, names: list[str], labels: dict[str, tuple[int, str]]) -> LabelledSet:
    """Windows' vectors gathered by image: ``x`` is an object array of (N_i, D)."""
    order = list(dict.fromkeys(names))
    index = {name: i for i, name in enumerate(order)}
    at = np.array([index[name] for name in names])
    bags = np.empty(len(order), object)
    for i in range(len(order)):
        bags[i] = x[at == i] if len(order) < len(names) else x[i : i + 1]
    return LabelledSet(bags, np.array([labels[n][0] for n in order]), np.array([labels[n][1] for n in order]))


def _averaged(bags: LabelledSet) -> LabelledSet:
    return bags._replace(x=np.stack([bag.mean(0) for bag in bags.x]))


def _pixels(
    own: ImageSet,
    side: int,
    resolution: Resolution | None,
    labels: dict[str, tuple[int, str]],
    settings: EvaluateSettings,
    pixels_px: int,
) -> LabelledSet:
    """The first usable window of every image, ``pixels_px`` wide."""
    at, _ = places(own, side, resolution)
    seen: dict[str, np.ndarray] = {}
    for i, rgb in windows(at, settings.reading_threads, if_unknown=settings.resolution):
        name = str(at[i].image.path)
        if name not in seen:
            seen[name] = resized(rgb, pixels_px)
    return LabelledSet(np.stack(list(seen.values())), np.array([labels[n][0] for n in seen]),
                np.array([labels[n][1] for n in seen]))  # fmt: skip


def _learners(
    settings: EvaluateSettings, sets: TaskData, cache: FeatureCache | None, encoder: NetworkEncoder | None
) -> dict[tuple[str, str], tuple[Learner, dict[str, LabelledSet]]]:  # fmt: skip
    """(model, features) -> its training function and data; the results of slow ones are stored in ``cache``."""
    found: dict[tuple[str, str], tuple[Learner, dict[str, LabelledSet]]] = {}
    for name, parts in sets.vectors.items():
        if "linear" in settings.task_models:
            found["linear probe", name] = (lambda t, x, c, s: linear_probe(t.x, t.y, x, c)), parts
        if "knn" in settings.task_models:
            found["nearest neighbours", name] = (lambda t, x, c, s: knn_probe(t.x, t.y, x, c)), parts
        if "mil" in settings.task_models or sets.large:
            found["attention MIL", name] = cached_outcome(_mil, "mil", cache), sets.bags[name]
    if encoder and not sets.large:
        found["fine-tuned network", BUNDLE] = fine_tuner(encoder, settings, cache), sets.pixels
    return found


def _mil(train: LabelledSet, test: np.ndarray, classes: int, seed: int) -> np.ndarray:
    from ssl_tilegen.training.mil import fit_mil

    return fit_mil(list(train.x), train.y, classes, seed)(list(test))


def _rows(outcome: Outcome, model: str, features: str, parts: dict[str, LabelledSet]) -> list[TaskRow]:
    test = parts["test"]
    dim = test.x[0].shape[-1] if test.x.dtype == object else test.x.shape[1]
    return [
        TaskRow(model, features, dim, arm, outcome.sizes[arm], len(test.y), len(np.unique(test.groups)),
                outcome.score(arm), outcome.score(arm, "balanced"), outcome.score(arm, "auc"),
                None if arm == "real" else outcome.gain(arm, "real"))
        for arm in ARMS
    ]  # fmt: skip


def _seen_by_real(learner: Learner, parts: dict[str, LabelledSet], classes: int, seed: int) -> np.ndarray:
    """Synthetic images classified by a model trained on all real ones: counts, row = the label they carry."""
    from ssl_tilegen.metrics.probes import confusion

    said = learner(parts["real"], parts["synthetic"].x, classes, seed).argmax(1)
    return confusion(said, parts["synthetic"].y, classes)


def _per_class(settings: EvaluateSettings) -> int | float:
    return settings.task_groups if settings.task_groups < 1 else int(settings.task_groups)
