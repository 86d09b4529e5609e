"""Two commands at the same time at one output: one of them is refused, or both come to the same whole output."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.case import DONE, MENDABLE, Case, words
from tests.faults.cases.commands import WRITERS

# What the second of the two commands is given beside.
MORE = {
    "preview": ("",), "export": ("", "--overwrite"), "export-npz": ("",), "import": ("", "--overwrite"),
    "models": ("", "--overwrite"),
    "train": ("", "--restart"), "draw": ("", "--restart"),
}  # fmt: skip
ALL = ("", "--restart", "--overwrite")


def cases() -> Iterator[Case]:
    for name, (command, option, out, before) in WRITERS.items():
        for force in MORE.get(name, ALL):
            one, two = words(f"{command} {option} {out}"), words(f"{command} {option} {out} {force}")
            yield Case("together", f"{name}{force[1:]}", one, before, frozenset({DONE, MENDABLE}), beside=two)
