"""The tables of `evaluate` in a terminal."""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING

from ssl_tilegen.metrics.resampling import Interval
from ssl_tilegen.workflows.evaluate.large_image_scores import Condition
from ssl_tilegen.workflows.evaluate.report import EvaluateReport
from ssl_tilegen.workflows.evaluate.scores import Score
from ssl_tilegen.workflows.evaluate.task import TaskReport

if TYPE_CHECKING:
    from rich.table import Table

_LEAST_COLUMNS = 110


def table(report: EvaluateReport) -> str:
    """Everything in ``report`` as text."""
    from rich.console import Console

    stream = io.StringIO()
    width = max(_LEAST_COLUMNS, shutil.get_terminal_size().columns)
    console = Console(file=stream, width=width, highlight=False, color_system=None)
    for name, facts in report.sets.items():
        console.print(f"{name}: {facts.path}, {facts.images} images, {facts.windows} windows, {facts.groups} groups")
    if report.scores:
        console.print(_scores(report.scores, f"windows of {report.window_px} px" if report.window_px else "cells"))
    if report.condition:
        c = report.condition
        console.print(f"condition {c.grid}: {c.cells} cells, cosine {asked(c, 'cosine')}, finds its source first "
                      f"{asked(c, 'top1')}, among five {asked(c, 'top5')} (chance {c.chance:.2%})")  # fmt: skip
    if report.task:
        console.print(_task(report.task))
        console.print(_confusion(report.task))
    if report.report:
        console.print(f"{report.report}: written")
    return stream.getvalue().rstrip()


def asked(found: Condition, name: str) -> str:
    """A score of a condition with its interval: the cosine as a number, the others in per cent."""
    value, (low, high) = getattr(found, name), found.spans[name]
    if name == "cosine":
        return f"{value:.3f} ({low:.3f} to {high:.3f})"
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None or value != value:
        return "-"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def span(low: float, high: float) -> str:
    """An interval, or nothing where none is known."""
    return f"[{number(low)}, {number(high)}]" if low == low else "-"


def _scores(scores: tuple[Score, ...], caption: str) -> Table:
    from rich.table import Table

    out = Table(title=f"real against synthetic, {caption}", title_justify="left")
    for head in ("score", "features", "dim", "n real/synth.", "value", "95 % interval", "good", "real-real",
                 "synth. at that n"):  # fmt: skip
        out.add_column(head, justify="left" if head in ("score", "features", "good") else "right")
    for f in scores:
        out.add_row(f.title, f.features, str(f.dim), f"{f.n_real}/{f.n_synthetic}", number(f.value),
                    span(f.low, f.high), f.better, number(f.baseline), number(f.matched))  # fmt: skip
    return out


def _task(task: TaskReport) -> Table:
    from rich.table import Table

    out = Table(title=f"usefulness: {task.seeds} seeds, classes {', '.join(task.classes)}", title_justify="left")
    for head in ("model", "features", "trained on", "n train", "n test (groups)", "accuracy", "balanced", "AUC",
                 "gain over real"):  # fmt: skip
        out.add_column(head, justify="left" if head in ("model", "features", "trained on") else "right")
    for row in task.rows:
        out.add_row(row.model, row.features, row.arm, f"{row.n_train:.0f}", f"{row.n_test} ({row.test_groups})",
                    with_span(row.accuracy), number(row.balanced.value), number(row.auc.value),
                    with_span(row.gain, "+") if row.gain else "", end_section=row.arm == "both")  # fmt: skip
    return out


def with_span(found: Interval, sign: str = "") -> str:
    """A share in percent with its interval."""
    return f"{found.value:{sign}.1%} [{found.low:{sign}.1%}, {found.high:{sign}.1%}]"


def _confusion(task: TaskReport) -> Table:
    from rich.table import Table

    title = f"synthetic images as a model trained on real ones sees them ({task.judge})"
    out = Table(title=title, title_justify="left")
    out.add_column("made as")
    for name in task.classes:
        out.add_column(name, justify="right")
    for name, counts in zip(task.classes, task.confusion, strict=True):
        out.add_row(name, *(str(int(c)) for c in counts))
    return out
