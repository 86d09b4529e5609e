"""RESULTS.md from what study.py found: the verdict in a sentence, NOTES.md, and a table per task.

Usage: report.py OUT RESULTS.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import fill
from typing import Any

Task = dict[str, Any]
ORDER = ("lung", "built", "sites", "green")
ARMS = ("real", "synthetic", "both", "gated", "real+", "both+")
_WIDTH = 160  # characters of a line of prose
GAINS = ("both - real", "gated - real", "both+ - real+", "both+ - real", "real+ - real")


def main() -> None:
    out, path = Path(sys.argv[1]), Path(sys.argv[2])
    tasks = [json.loads((out / f"{name}.json").read_text()) for name in ORDER if (out / f"{name}.json").exists()]
    if not tasks:
        sys.exit(f"error: {out}: has none of {', '.join(f'{name}.json' for name in ORDER)}; run study.py first")
    text = ["# Do synthetic images make better classifiers where labels are few?", "", _made(tasks), ""]
    text += ["## What came out", ""]
    text += [*(wrapped(verdict(task)) for task in tasks), "", wrapped(chance(tasks)), ""]
    text += [Path(__file__).with_name("NOTES.md").read_text().strip(), ""]
    for task in tasks:
        text += table(task)
    part = path.with_name(f".{path.name}.part")
    part.write_text("\n".join(text))
    part.replace(path)


def wrapped(text: str) -> str:
    """A paragraph, or a point of a list, in lines that a terminal shows."""
    indent = "  " if text.startswith("- ") else ""
    return fill(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _made(tasks: list[Task]) -> str:
    seconds = sum(task["seconds"] for task in tasks)
    models = ", ".join(sorted({f"`{task['model']}` ({task['hash'][:12]})" for task in tasks}))
    return (
        f"Written by `report.py` with the model {models}; {seconds / 60:.0f} minutes in the last run (what earlier "
        "ones made is kept)."
    )


def verdict(task: Task) -> str:
    """What the numbers say of a task, whatever it is."""
    better, worse = _clear(task, "both - real")
    more, less = _clear(task, "both+ - real+")
    count = len(task["rows"])
    lead = "a clear gain in some rows" if len(better) < count else "a clear gain throughout"
    lead = "no clear gain" if not better else f"{lead}, a clear loss in others" if worse else lead
    lead += ", and a clear loss" if worse and not better else ""
    end = 1 if better else 0  # the surest gain; where none is sure, the largest
    best = max(task["rows"], key=lambda row: row["gains"]["both - real"][end])
    return (
        f"- **{task['title']}: {lead}.** Adding synthetic images to the real ones is clearly better in {len(better)} "
        f"of {count} rows and clearly worse in {len(worse)}; with ordinary augmentation on both sides, {len(more)} and "
        f"{len(less)}. The row that says most for it: {best['learner']} at {best['groups']} groups per class, "
        f"{span(best['gains']['both - real'])} points over {span(best['figures']['real'], sign=False)} % (95 % "
        f"intervals; {best['draws']} draws, {task['tested']} images of {best['test_groups']} groups tested). "
        f"By learner: {_by_learner(task)}. Recipe `{task['recipe']}`{_in_class(task)}."
    )


def _by_learner(task: Task) -> str:
    """Of how many rows each learner's gain is clear, without and with ordinary augmentation on both sides."""
    said = []
    for name in dict.fromkeys(row["learner"] for row in task["rows"]):
        own = {**task, "rows": [row for row in task["rows"] if row["learner"] == name]}
        plain, more = ("{} better and {} worse".format(*(len(side) for side in _clear(own, gain)))
                       for gain in ("both - real", "both+ - real+"))  # fmt: skip
        said.append(f"{name} {plain} of {len(own['rows'])} (with ordinary augmentation {more})")
    return "; ".join(said)


def _in_class(task: Task) -> str:
    made, real = task["in_class"][task["recipe"]]
    return "" if made is None else (
        f": to their neighbours {100 * made:.0f} % of its images look like their class (of the real ones "
        f"{100 * real:.0f} %)"
    )  # fmt: skip


def chance(tasks: list[Task]) -> str:
    """How many rows would be clear by chance."""
    count = sum(len(task["rows"]) for task in tasks)
    better, worse = (sum(len(_clear(task, "both - real")[side]) for task in tasks) for side in (0, 1))
    return (
        f"Together: of {count} rows of `both - real` {better} are clearly above zero and {worse} clearly below; about "
        f"{0.025 * count:.1f} of each would be if there were nothing to find (rows are not independent)."
    )


def _clear(task: Task, gain: str) -> tuple[list[Any], list[Any]]:
    """Rows whose interval lies above zero, and below."""
    found = [row["gains"][gain] for row in task["rows"] if gain in row["gains"]]
    return [g for g in found if g[1] > 0], [g for g in found if g[2] < 0]


def table(task: Task) -> list[str]:
    """A section: what was chosen and how, and all rows."""
    kind = "such as the model was trained on, without labels" if task["seen"] else "the model was not trained on"
    tried = ", ".join(f"`{name}` {100 * gain:+.1f} (cosine to the source {task['cosine'][name]:.2f})"
                      for name, gain in task["gains"].items())  # fmt: skip
    ordinary = ", ".join(f"{name} {100 * gain:+.1f}" for name, gain in task["kinds"].items())
    chosen = (
        f"Recipe `{task['recipe']}` (`augment {task['options']}`), {task['scale']} images made of each; " + (
            f"chosen on the held-out groups from {tried}" if len(task["gains"]) > 1 else
            f"the only one of this run, on the held-out groups {tried}"
        ) + f"; ordinary augmentation `{task['kind']}` from {ordinary} (points over real images alone)."
    )  # fmt: skip
    lines = [
        f"## {task['title']}", "",
        f"Images {kind}; {task['train']} to draw from, {task['held']} held out to choose by, {task['tested']} "
        "tested.",
        "", wrapped(chosen), "",
    ]  # fmt: skip
    accuracy = [[span(row["figures"].get(arm), sign=False) for arm in ARMS] for row in task["rows"]]
    gains = [[_marked(row["gains"].get(gain)) for gain in GAINS] for row in task["rows"]]
    for title, heads, cells in (("Accuracy, %", ARMS, accuracy), ("Gains in accuracy, points", GAINS, gains)):
        lines += [f"{title}:", "", f"| learner | groups | {' | '.join(heads)} |", "|---|" + "---|" * (len(heads) + 1)]
        lines += [f"| {row['learner']} | {row['groups']} | {' | '.join(own)} |"
                  for row, own in zip(task["rows"], cells, strict=True)]  # fmt: skip
        lines.append("")
    return lines


def span(figure: list[float] | None, *, sign: bool = True) -> str:
    """A share in per cent with its interval."""
    if figure is None:
        return ""
    value, low, high = (100 * number for number in figure)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})" if sign else f"{value:.1f} ({low:.1f} to {high:.1f})"


def _marked(gain: list[float] | None) -> str:
    """Bold where the interval leaves out zero."""
    text = span(gain)
    return f"**{text}**" if gain and (gain[1] > 0 or gain[2] < 0) else text


if __name__ == "__main__":
    main()
