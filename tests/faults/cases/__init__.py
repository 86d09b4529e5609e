"""All cases, by family: each module has a function ``cases`` that makes its own.

The default table takes every n-th case of the largest kinds, so that it is done in some minutes on one core;
SSL_TILEGEN_FAULTS=long takes all of them, and every fault at every twentieth of the steps of every command.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from tests.faults.case import Case
from tests.faults.cases import (
    between,
    hostile,
    inputs,
    output_ends,
    outputs,
    shared,
    steps,
    stories,
    surroundings,
    values,
)

LONG = os.environ.get("SSL_TILEGEN_FAULTS") == "long"
FAMILIES = (outputs, inputs, values, hostile, output_ends, surroundings, stories, shared, between, steps)
CHECKED = (outputs, inputs, values, output_ends, shared, between, steps)  # the families of the default table
EVERY = {
    "value": 6, "wrong": 4, "input": 4, "name": 4, "step": 25, "kill": 12, "geojson": 3, "around": 3,
    "disk": 12, "replace": 12, "flushed": 3, "between": 20,
    "together": 2, "again": 2, "class": 2, "table": 2, "store": 2, "state": 2, "image": 2, "stdout": 2,
    "toml": 2, "term": 12, "memory": 2,
}  # fmt: skip
SLOW_EVERY = 3  # of the faults at the steps of `train`, which takes four times as long as any other command


def all_cases() -> list[Case]:
    """The cases of this run."""
    every = [case for family in (FAMILIES if LONG else CHECKED) for case in family.cases()]
    return every if LONG else list(_thinned(every))


def _is_rare(case: Case) -> bool:
    """Whether a case is of a command that shares its mechanisms with others and is seldom used."""
    return case.command[:2] == ("models", "import") and (case.kind != "self" or case.name.endswith("overwrite"))


def _thinned(every: list[Case]) -> Iterator[Case]:
    seen: Counter[str] = Counter()
    for case in every:
        if case.long or _is_rare(case):
            continue
        slow = case.command[:1] == ("train",) and case.kind in ("step", "kill", "term", "disk", "memory")
        kind = f"{case.kind}-slow" if slow else case.kind
        step = SLOW_EVERY if slow else EVERY.get(case.kind, 1)
        if seen[kind] % step == 0:
            yield case
        seen[kind] += 1
