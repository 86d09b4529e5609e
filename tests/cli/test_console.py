"""Plain lines of progress: how much, how fast, how long yet."""

from __future__ import annotations

import json

import pytest

from ssl_tilegen.cli import console as module
from ssl_tilegen.cli.console import Console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that is moved by hand: its one number is the time."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_says_part_rate_and_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    say = Console()
    say("develop", 0, 16.8)
    clock[0] += 12
    say("develop", 4.2, 16.8)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "develop: 25 % (4.2 of 16.8 Mpx), 0.35 Mpx/s, 36 s left"


def test_counts_stay_whole_and_lines_are_ten_seconds_apart(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    say = Console(log_format="json")
    for done in (64, 640, 1_234_567):
        say("embed", done, 2_000_000)
        clock[0] += 6
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["done"] == 64 and first["rate_s"] is None and first["left_s"] is None
    assert second["done"] == 1_234_567 and second["rate_s"] == pytest.approx(102875, rel=1e-3)


def test_the_end_of_a_stage_is_always_said(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    say = Console()
    say("embed s.svs", 64, 1_234_567)
    clock[0] += 1
    say("embed s.svs", 1_234_567, 1_234_567)
    assert capsys.readouterr().err.splitlines()[-1] == ("embed s.svs: 100 % (1234567 of 1234567), 1234503/s")
