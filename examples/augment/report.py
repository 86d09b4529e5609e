"""RESULTS.md: the figures of the study as tables, the gains with their intervals first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks import Task

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.metrics.usefulness import Outcome

ARMS = ("real", "synthetic", "both", "real+", "both+")
GAINS = (("both", "real"), ("both+", "real+"), ("both+", "real"), ("real+", "real"))
ROUNDS = 400


class Row(NamedTuple):
    """One learner on one task at one number of groups per class."""

    task: Task
    recipe: str
    learner: str
    count: int
    outcome: Outcome
    facts: dict[str, Any]

    def figures(self) -> list[str]:
        """Accuracies of the arms, and the gains, in per cent with their 95 % intervals."""
        found = []
        for arm in ARMS:
            value = self.outcome.figure(arm, rounds=ROUNDS)
            found.append(f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})")
        for arm, over in GAINS:
            gain = self.outcome.gain(arm, over, rounds=ROUNDS)
            text = f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
            found.append(f"**{text}**" if gain.low > 0 or gain.high < 0 else text)
        return found

    def line(self) -> str:
        """The row as one line of text."""
        gain = self.outcome.gain("both", "real", rounds=ROUNDS)
        more = self.outcome.gain("both+", "real+", rounds=ROUNDS)
        return (
            f"{self.task.name} {self.recipe} {self.learner} {self.count} groups: both - real {100 * gain.value:+.1f} "
            f"({100 * gain.low:+.1f} to {100 * gain.high:+.1f}), with ordinary augmentation {100 * more.value:+.1f} "
            f"({100 * more.low:+.1f} to {100 * more.high:+.1f})"
        )


def write_results(
    path: Path, rows: Sequence[Row], bundle: ModelBundle, options: argparse.Namespace, seconds: float
) -> None:
    """Write the tables; called after each task, so a stopped study has what it found."""
    notes = path.with_name("NOTES.md")
    text = [
        "# Do synthetic pictures make better classifiers where labels are few?",
        "",
        f"Written by `run.sh`; model `{bundle.info.name}` ({bundle.hash[:12]}), {options.scale} pictures made of each "
        f"picture, {options.seeds} draws of groups, {seconds / 60:.0f} min in this run (what earlier ones made is "
        "kept).",
        "",
        "Accuracy in per cent, mean over draws, with 95 % intervals from drawing seeds and test groups again, "
        "together. A draw takes so many groups of each class; synthetic pictures are only those made of its own "
        "groups. `+`: with ordinary augmentation (turned, mirrored, light and stain changed). Gains are paired; "
        "**bold**: the interval leaves out zero.",
        "",
    ]
    if notes.exists():
        text += [notes.read_text().strip(), ""]
    for name in dict.fromkeys(row.task.name for row in rows):
        own = [row for row in rows if row.task.name == name]
        task = own[0].task
        kind = "such as the model was trained on, without labels" if task.seen else "the model was not trained on"
        counts = f"{len(task.train)} to draw from, {len(task.test)} tested"
        text += [f"## {task.title}", "", f"Pictures {kind}; {counts}.", ""]
        for recipe in dict.fromkeys(row.recipe for row in own):
            text += _table([row for row in own if row.recipe == recipe])
    part = path.with_name(f".{path.name}.part")
    part.write_text("\n".join(text))
    part.replace(path)


def _table(rows: Sequence[Row]) -> list[str]:
    facts = rows[0].facts
    strength = "from noise" if facts["strength"] is None else f"strength {facts['strength']:g}"
    agreement = "" if facts["in_class"] is None else (
        f", in class {100 * facts['in_class']:.0f} % (real ones {100 * facts['real_in_class']:.0f} %)"
    )  # fmt: skip
    heads = ["learner", "groups", *ARMS, *(f"{arm} - {over}" for arm, over in GAINS)]
    lines = [
        f"### Recipe `{rows[0].recipe}`: {strength}, layout {facts['layout']}; cosine to the source "
        f"{facts['cosine']:.2f}{agreement}",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * len(heads),
    ]
    lines += ["| " + " | ".join([row.learner, str(row.count), *row.figures()]) + " |" for row in rows]
    return [*lines, ""]
