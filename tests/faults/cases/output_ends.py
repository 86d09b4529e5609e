# ruff: noqa: E501 (a case is a line)
"""Where a command speaks: a full or closed stdout, errors in JSON, wrong usage."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.case import DONE, MENDABLE, USAGE, Case, words
from tests.faults.cases.commands import WRITERS
from tests.faults.pieces import Copy

SPEAKERS = ("models list", "models info {world}/bundle", "grid info g.zarr", "--version", "--help", "embed --help")


def cases() -> Iterator[Case]:
    grid = (Copy("g.zarr"),)
    for line in SPEAKERS:
        name = line.replace("{world}/", "").replace(" ", "-").strip("-")
        yield Case("stdout", f"full-{name}", words(line), grid, frozenset({MENDABLE}), stdout="full")
        yield Case("stdout", f"closed-{name}", words(line), grid, frozenset({DONE, MENDABLE}), stdout="closed")
    for line in SPEAKERS[:3]:
        name = line.replace("{world}/", "").replace(" ", "-")
        yield Case("stdout", f"full-json-{name}", (*words(line), "--json"), grid, frozenset({MENDABLE}), stdout="full")
    for name, (command, option, out, before) in WRITERS.items():
        yield Case(
            "stdout", f"full-{name}", words(f"{command} {option} {out}"), before, frozenset({MENDABLE}), stdout="full"
        )
        yield Case("stdout", f"closed-{name}", words(f"{command} {option} {out}"), before, frozenset({DONE, MENDABLE}),
                   stdout="closed")  # fmt: skip
    for number, line in enumerate((
        "", "embed", "nothing", "embed --nothing", "grid", "models", "train", "train painting --config x", "generate",
        "embed a -o", "embed a --shard", "evaluate", "evaluate --real a", "augment", "generate --text x --label y --grid z",
        "models info", "grid info", "embed a -o b --out-dir c", "embed a --mpp 1 --gsd 1", "generate --text=", "--nothing",
    )):  # fmt: skip
        yield Case(
            "usage",
            f"{number}",
            words(line),
            (),
            frozenset({MENDABLE, USAGE} | ({DONE} if line in ("", "grid", "models") else set())),
        )
