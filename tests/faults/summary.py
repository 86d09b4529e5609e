"""Prints how many cases of each kind held, are known to fail, or failed."""

from __future__ import annotations

import re
from collections import Counter

import pytest

_CASE = re.compile(r"test_faults\.py::test_case\[([a-z]+)-")
_counts: Counter[tuple[str, str]] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    match = _CASE.search(report.nodeid)
    if match and (report.when == "call" or report.skipped):
        known = hasattr(report, "wasxfail")
        outcome = "known" if known and report.skipped else "held" if report.passed else report.outcome
        _counts[match[1], outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _counts:
        return
    outcomes = sorted({outcome for _, outcome in _counts})
    terminalreporter.section(f"fault campaign: {sum(_counts.values())} cases")
    terminalreporter.write_line(f"{'kind':<12}" + "".join(f"{outcome:>9}" for outcome in outcomes))
    for kind in sorted({kind for kind, _ in _counts}):
        terminalreporter.write_line(f"{kind:<12}" + "".join(f"{_counts[kind, outcome]:>9}" for outcome in outcomes))
