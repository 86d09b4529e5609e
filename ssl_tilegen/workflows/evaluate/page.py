"""The report of `evaluate` as one HTML file that asks nothing of the network, and its JSON.

The words and their order are in `page.html.jinja`. This module gives it titles, numbers and plots.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.errors import OutputError
from ssl_tilegen.system import atomic
from ssl_tilegen.system.marks import PAGE_SHA256, SOFTWARE, signed_html, signed_json
from ssl_tilegen.system.names import recordable
from ssl_tilegen.workflows.evaluate import svg
from ssl_tilegen.workflows.evaluate.gallery import gallery
from ssl_tilegen.workflows.evaluate.large_image_scores import Condition
from ssl_tilegen.workflows.evaluate.report import EvaluateReport, Evidence
from ssl_tilegen.workflows.evaluate.scores import Score
from ssl_tilegen.workflows.evaluate.table import asked, number, span, with_span
from ssl_tilegen.workflows.evaluate.task import TaskReport

STYLE, TEMPLATE = "page.css", "page.html.jinja"
_PACKAGE = "ssl_tilegen.workflows.evaluate"
_ARM_COLOUR = {"real": 2, "synthetic": 1, "both": 3}
_HEADLINES = ("fd", "kid", "precision", "recall", "coverage", "copy_nearer", "crop_fd", "psnr")
_UNSAID = ("overwrite", "restart", "device", "batch", "threads")

_HOW = (
    "Value: all windows, with a 95 % interval from half-samples drawn by group (slide, field or block). "
    "Real-real: the same score between two halves of the real set that share no group. Matched: synthetic against "
    "real at the same counts; hold it against real-real. Features of the bundle's own encoder flatter a model that was "
    "conditioned on them; the other ones are the second opinion."
)
_PLOTS = (
    "Distances of each synthetic window to its nearest real one, beside those of each real window to the nearest of "
    "another group. Synthetic ones far to the right are unlike anything real; far to the left they are copies."
)


class Plot(NamedTuple):
    """A plot with its title; ``legend``: names of its colours, in order."""

    title: str
    svg: Markup
    legend: Sequence[str] = ()


class ReportRow(NamedTuple):
    """A row of a table; ``strong``: number of the cell in bold."""

    cells: Sequence[object]
    strong: int


class Card(NamedTuple):
    """A score in large type, with its interval, and a note that puts it into proportion."""

    title: str
    value: str
    interval: str
    note: str
    features: str


@dataclass(frozen=True)
class Section:
    """A part of the page: its title and explanation, then plots, then a table."""

    title: str
    text: str
    plots: Sequence[Plot] = ()
    head: Sequence[str] = ()
    rows: Sequence[ReportRow] = ()


def write_report(
    report: EvaluateReport, evidence: Evidence, settings: EvaluateSettings, before: Callable[[], object] = lambda: None
) -> None:
    """Write the page and its JSON, both or none; ``before`` they get their names, that is asked whether they still may.
    OutputError where they cannot be written."""
    assert settings.report is not None and settings.json_path is not None
    paths = settings.report, settings.json_path
    html = signed_html(recordable(page(report, evidence, settings)))
    facts = json.dumps(signed_json(report.facts()), indent=1, allow_nan=False) + "\n"
    parts = [(atomic.temporary_beside(path), path) for path in paths]
    try:
        for (part, _), text in zip(parts, (html, facts), strict=True):
            part.write_text(text, encoding="utf-8")
        atomic.publish_files(parts[::-1], before, replace=settings.overwrite)
    except OSError as error:
        raise OutputError(f"--report {paths[0]}: cannot write here ({error.strerror}); choose another place") from error
    finally:
        for part, _ in parts:
            atomic.remove(part)


def page(report: EvaluateReport, evidence: Evidence, settings: EvaluateSettings) -> str:
    """The whole page, as text. Every value is escaped, for names of files and classes come from outside."""
    engine = Environment(loader=PackageLoader(_PACKAGE, "."), autoescape=True, undefined=StrictUndefined,
                         trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)  # fmt: skip
    return (
        engine.get_template(TEMPLATE)
        .render(
            report=report,
            generator=SOFTWARE,
            content_sha256=PAGE_SHA256,
            style=Markup((resources.files(_PACKAGE) / STYLE).read_text()),
            warnings=[*report.warnings, *(f"left out {path}: {why}" for path, why in report.skipped[:20])],
            headlines=[_card(score) for name in _HEADLINES for score in report.scores if score.name == name],
            sections=list(_sections(report, evidence)),
            gallery=gallery(evidence, settings),
            settings=_settings(settings),
        )
        .lstrip()
    )


def _sections(report: EvaluateReport, evidence: Evidence) -> Iterator[Section]:
    if report.scores:
        yield _scores(report.scores)
    if evidence.features:
        yield Section("Where the sets lie", _PLOTS, list(_plots(report, evidence)))
    if report.task:
        yield _task(report.task)
    if report.condition:
        yield _condition(report.condition)


def _card(score: Score) -> Card:
    compared = score.value if score.matched is None else score.matched
    if score.better == "lower" and score.baseline and score.baseline > 0:
        note = f"{compared / score.baseline:.1f} × real against real"
    elif score.baseline is not None:
        note = f"{'expected' if score.name.startswith('copy') else 'real against real'} {number(score.baseline)}"
    else:
        note = f"n {score.n_synthetic}"
    title = score.title.replace("Large images: ", "").replace("Pairs: ", "").split(" (")[0]
    return Card(title, number(score.value), span(score.low, score.high), note, score.features)


def _scores(scores: Sequence[Score]) -> Section:
    head = ("score", "features", "D", "n real", "n synth.", "value", "95 % interval", "good", "real-real", "matched",
            "at n", "after")  # fmt: skip
    rows = []
    for s in scores:
        cells = (s.title, s.features, s.dim, s.n_real, s.n_synthetic, number(s.value), span(s.low, s.high), s.better,
                 number(s.baseline), number(s.matched), s.n_equal or "-", s.paper)  # fmt: skip
        rows.append(ReportRow(cells, head.index("value")))
    return Section("Scores", _HOW, (), head, rows)


def _plots(report: EvaluateReport, evidence: Evidence) -> Iterator[Plot]:
    points = _points(report.scores)
    if points:
        names = [f"{name}: synthetic (filled), real against real (ring)" for name, *_ in points]
        yield Plot("Precision and recall", svg.precision_recall(points), names)
    for name, (distance, _) in evidence.nearest.items():
        sets = [("synthetic to nearest real", distance), ("real to nearest of another group", evidence.apart[name])]
        yield _histogram(f"Nearest neighbours, {name}", sets, f"distance in {name} features")
    for name, found in evidence.copies.items():
        sets = [("synthetic to nearest training", found.synthetic), ("held-out to nearest training", found.held_out)]
        line = (found.limit, "nearest 1 % of held-out")
        yield _histogram(f"Copy check, {name}", sets, f"distance in {name} features", line)


def _histogram(
    title: str, sets: Sequence[tuple[str, np.ndarray]], label: str, line: tuple[float, str] | None = None
) -> Plot:
    return Plot(title, svg.histogram([values for _, values in sets], label, line=line), [name for name, _ in sets])


def _points(scores: Iterable[Score]) -> list[tuple[str, float, float, float, float]]:
    by = {(score.features, score.name): score for score in scores}
    names = [features for features, name in by if name == "precision"]
    found = ((n, by[n, "precision"], by[n, "recall"]) for n in names)
    return [(n, p.value, r.value, p.baseline or 0.0, r.baseline or 0.0) for n, p, r in found]


def _task(task: TaskReport) -> Section:
    head = ("model", "features", "D", "trained on", "n train", "n test", "test groups", "accuracy", "balanced", "AUC",
            "gain over real")  # fmt: skip
    rows, bars = [], []
    for row in task.rows:
        cells = (row.model, row.features, row.dim, row.arm, f"{row.n_train:.0f}", row.n_test, row.test_groups,
                 with_span(row.accuracy), with_span(row.balanced), number(row.auc.value),
                 with_span(row.gain, "+") if row.gain else "")  # fmt: skip
        rows.append(ReportRow(cells, head.index("gain over real")))
        name = f"{row.model}, {row.features}: {row.arm}"
        bars.append((name, row.accuracy.value, row.accuracy.low, row.accuracy.high, _ARM_COLOUR[row.arm]))
    seen = f"Synthetic images as a model trained on real ones sees them ({task.judge}): row = made as"
    plots = (
        Plot("Accuracy on real test images", svg.forest(bars)),
        Plot(seen, svg.confusion(task.confusion, task.classes)),
    )
    how = (
        f"{task.seeds} seeds; each draws groups of each class from the real training set, and with them the synthetic "
        "images made from these groups. Intervals hold for new draws and for new test groups; gains are paired."
    )
    return Section("Usefulness", how, plots, head, rows)


def _condition(found: Condition) -> Section:
    text = (
        f"Cells embedded again and held against the vectors they were painted from ({found.grid}, "
        f"{found.encoder}, D = {found.dim}): {found.cells} cells, mean cosine {asked(found, 'cosine')}; their own "
        f"source is nearest of all for {asked(found, 'top1')} and among five for {asked(found, 'top5')} "
        f"(chance {found.chance:.2%}). Intervals: 95 %, from half-samples of blocks of 8 x 8 cells."
    )
    values = found.map[np.isfinite(found.map)] if found.map is not None else np.zeros(0)
    plots: list[Plot] = []
    if len(values) and found.map is not None:
        low, high = float(np.quantile(values, 0.02)), float(np.quantile(values, 0.98))
        shaded = svg.heat_map(found.map, low, max(high, low + 1e-6), "cosine")
        plots.append(Plot(f"Cosine of each cell, {low:.2f} (faint) to {high:.2f} (full)", shaded))
        plots.append(_histogram("Distribution", [("cells", values)], "cosine to the condition"))
    return Section("Does the image follow its grid?", text, plots)


def _settings(settings: EvaluateSettings) -> dict[str, str]:
    shown = {name: value for name, value in settings.model_dump().items() if value is not None and name not in _UNSAID}
    return {name: ", ".join(map(str, v)) if isinstance(v, tuple) else str(v) for name, v in shown.items()}
