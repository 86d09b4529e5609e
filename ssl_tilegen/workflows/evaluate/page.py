"""The report of `evaluate` as one HTML file that asks nothing of the network, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

import numpy as np

from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.errors import OutputError
from ssl_tilegen.system import atomic
from ssl_tilegen.system.marks import SOFTWARE
from ssl_tilegen.workflows.evaluate import svg
from ssl_tilegen.workflows.evaluate.gallery import gallery
from ssl_tilegen.workflows.evaluate.report import EvaluateReport, Evidence
from ssl_tilegen.workflows.evaluate.scores import Score
from ssl_tilegen.workflows.evaluate.table import asked, number, span, with_span
from ssl_tilegen.workflows.evaluate.task import TaskReport

STYLE = "page.css"
_ARM_COLOUR = {"real": 2, "synthetic": 1, "both": 3}
_HEADLINES = ("fd", "kid", "precision", "recall", "coverage", "copy_nearer", "crop_fd", "psnr")


def write_report(report: EvaluateReport, evidence: Evidence, settings: EvaluateSettings) -> None:
    """Write the page and its JSON, both or none. OutputError where they cannot be written."""
    assert settings.report is not None and settings.json_path is not None
    paths = settings.report, settings.json_path
    html, facts = page(report, evidence, settings), json.dumps(report.facts(), indent=1, allow_nan=False) + "\n"
    parts = [(atomic.temporary_beside(path), path) for path in paths]
    try:
        for (part, _), text in zip(parts, (html, facts), strict=True):
            part.write_text(text, encoding="utf-8")
        atomic.publish_files(parts[::-1])
    except OSError as error:
        raise OutputError(f"--report {paths[0]}: cannot write here ({error.strerror}); choose another place") from error
    finally:
        for part, _ in parts:
            atomic.remove(part)


def page(report: EvaluateReport, evidence: Evidence, settings: EvaluateSettings) -> str:
    """The whole page."""
    style = (resources.files("ssl_tilegen.workflows.evaluate") / STYLE).read_text()
    sections = [
        _header(report),
        _warnings(report),
        _headlines(report.figures),
        _section("Scores", _score_table(report.figures), _HOW) if report.figures else "",
        _section("Where the sets lie", _plots(report, evidence), _PLOTS) if evidence.features else "",
        _task(report.task) if report.task else "",
        _condition(report),
        gallery(evidence, settings),
        _footer(report, settings),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>ssl-tilegen evaluate</title>'
        f'<meta name="generator" content="{SOFTWARE}">'
        f'<link rel="icon" href="data:,"><style>{style}</style></head><body><main>'
        f"{''.join(sections)}</main></body></html>\n"
    )


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


def _header(report: EvaluateReport) -> str:
    rows = "".join(
        f"<tr><th>{name}</th><td class='path'>{escape(facts.path)}</td><td>{facts.images} images</td>"
        f"<td>{facts.windows} windows</td><td>{facts.groups} groups</td>"
        f"<td>{escape(', '.join(f'{kind} {share:.0%}' for kind, share in list(facts.storage.items())[:3]))}</td></tr>"
        for name, facts in report.sets.items()
    )
    what = f"windows of {report.window_px} px, {report.resolution}" if report.window_px else ""
    table = f'<div class="scroll"><table class="sets">{rows}</table></div>' if rows else ""
    title = '<p class="kicker">ssl-tilegen evaluate</p><h1>Real against synthetic</h1>'
    return f"<header>{title}<p>{what}</p>{table}</header>"


def _warnings(report: EvaluateReport) -> str:
    lines = [*report.warnings, *(f"left out {path}: {why}" for path, why in report.skipped[:20])]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<aside class="warnings"><b>Read with care</b><ul>{items}</ul></aside>' if lines else ""


def _headlines(figures: Iterable[Score]) -> str:
    cards = [_card(f) for name in _HEADLINES for f in figures if f.name == name]
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _card(f: Score) -> str:
    compared = f.value if f.matched is None else f.matched
    if f.better == "lower" and f.baseline and f.baseline > 0:
        note = f"{compared / f.baseline:.1f} &times; real against real"
    elif f.baseline is not None:
        note = f"{'expected' if f.name.startswith('copy') else 'real against real'} {number(f.baseline)}"
    else:
        note = f"n {f.n_synthetic}"
    name = f.title.replace("Large images: ", "").replace("Pairs: ", "").split(" (")[0]
    return (f'<div class="card"><span>{escape(name)}</span><b>{number(f.value)}</b><small>{span(f.low, f.high)}</small>'
            f"<em>{note}</em><small>{escape(f.features)}</small></div>")  # fmt: skip


def _score_table(figures: Sequence[Score]) -> str:
    head = ("score", "features", "D", "n real", "n synth.", "value", "95 % interval", "good", "real-real", "matched",
            "at n", "after")  # fmt: skip
    rows = []
    for f in figures:
        cells = (f.title, f.features, str(f.dim), str(f.n_real), str(f.n_synthetic), f"<b>{number(f.value)}</b>",
                 span(f.low, f.high), f.better, number(f.baseline), number(f.matched), str(f.n_equal or "-"),
                 f.paper)  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    heads = "".join(f"<th>{name}</th>" for name in head)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _plots(report: EvaluateReport, evidence: Evidence) -> str:
    parts = []
    points = _points(report.figures)
    if points:
        parts.append(_plot("Precision and recall", svg.precision_recall(points)))
    for name, (distance, _) in evidence.nearest.items():
        sets = [("synthetic to nearest real", distance), ("real to nearest of another group", evidence.apart[name])]
        parts.append(_plot(f"Nearest neighbours, {name}", svg.histogram(sets, f"distance in {name} features")))
    for name, found in evidence.copies.items():
        sets = [("synthetic to nearest training", found.synthetic), ("held-out to nearest training", found.held_out)]
        line = (found.limit, "nearest 1 % of held-out")
        parts.append(_plot(f"Copy check, {name}", svg.histogram(sets, f"distance in {name} features", line=line)))
    return f'<div class="plots">{"".join(parts)}</div>'


def _points(figures: Iterable[Score]) -> list[tuple[str, float, float, float, float]]:
    by = {(f.features, f.name): f for f in figures}
    names = [features for features, name in by if name == "precision"]
    found = ((n, by[n, "precision"], by[n, "recall"]) for n in names)
    return [(n, p.value, r.value, p.baseline or 0.0, r.baseline or 0.0) for n, p, r in found]


def _plot(title: str, drawn: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}</figure>"


def _task(task: TaskReport) -> str:
    head = ("model", "features", "D", "trained on", "n train", "n test", "test groups", "accuracy", "balanced", "AUC",
            "gain over real")  # fmt: skip
    rows, bars = [], []
    for row in task.rows:
        cells = (row.model, row.features, row.dim, row.arm, f"{row.n_train:.0f}", row.n_test, row.test_groups,
                 with_span(row.accuracy), with_span(row.balanced), number(row.auc.value),
                 f"<b>{with_span(row.gain, '+')}</b>" if row.gain else "")  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        name = f"{row.model}, {row.features}: {row.arm}"
        bars.append((name, row.accuracy.value, row.accuracy.low, row.accuracy.high, _ARM_COLOUR[row.arm]))
    drawn = _plot("Accuracy on real test images", svg.forest(bars)) + _plot(
        f"Synthetic images as a model trained on real ones sees them ({task.judge}): row = made as",
        svg.confusion(task.confusion, task.classes),
    )
    how = (
        f"{task.seeds} seeds; each draws groups of each class from the real training set, and with them the synthetic "
        "images made from these groups. Intervals hold for new draws and for new test groups; gains are paired."
    )
    return _section("Usefulness", f'<div class="plots">{drawn}</div>{_table(head, rows)}', how)


def _condition(report: EvaluateReport) -> str:
    c = report.condition
    if c is None:
        return ""
    text = (
        f"Cells embedded again and held against the vectors they were painted from ({escape(c.grid)}, "
        f"{escape(c.encoder)}, D = {c.dim}): {c.cells} cells, mean cosine {asked(c, 'cosine')}; their own source is "
        f"nearest of all for {asked(c, 'top1')} and among five for {asked(c, 'top5')} (chance {c.chance:.2%}). "
        "Intervals: 95 %, from half-samples of blocks of 8 x 8 cells."
    )
    values = c.map[np.isfinite(c.map)] if c.map is not None else np.zeros(0)
    drawn = ""
    if len(values) and c.map is not None:
        low, high = float(np.quantile(values, 0.02)), float(np.quantile(values, 0.98))
        shaded = svg.heat_map(c.map, low, max(high, low + 1e-6), "cosine")
        drawn = _plot(f"Cosine of each cell, {low:.2f} (faint) to {high:.2f} (full)", shaded)
        drawn += _plot("Distribution", svg.histogram([("cells", values)], "cosine to the condition"))
    return _section("Does the image follow its grid?", f'<div class="plots">{drawn}</div>', text)


def _section(title: str, body: str, text: str = "") -> str:
    return f'<section><h2>{escape(title)}</h2><p class="how">{text}</p>{body}</section>'


def _footer(report: EvaluateReport, settings: EvaluateSettings) -> str:
    facts = {name: value for name, value in settings.model_dump().items()
             if value is not None and name not in ("overwrite", "restart", "device", "batch", "threads")}  # fmt: skip
    shown = "".join(f"<tr><th>{escape(k)}</th><td class='path'>{escape(_said(v))}</td></tr>" for k, v in facts.items())
    return (
        f"<footer><details><summary>Settings</summary><table class='sets'>{shown}</table></details>"
        f"<p>{escape(report.software)}, {report.seconds:g} s</p></footer>"
    )


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
