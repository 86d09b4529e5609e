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
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "embed s.svs: 100 % (1234567 of 1234567 cells), 1234503 cells/s"


def test_time_left_is_said_in_seconds_minutes_or_hours(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    say = Console()
    for total in (100, 1000, 10_000):
        say(f"paint {total}", 0, total)
    clock[0] += 12
    for total in (100, 1000, 10_000):
        say(f"paint {total}", 10, total)
    tails = [line.rsplit(", ", 1)[1] for line in capsys.readouterr().err.splitlines()[-3:]]
    assert tails == ["108 s left", "20 min left", "3.3 h left"]


def test_progress_among_the_records_of_training_has_a_rate(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    say = Console()
    say.facts({"stage": "caching latents", "done": 0, "total": 400})
    clock[0] += 20
    say.facts({"stage": "caching latents", "done": 100, "total": 400})
    assert capsys.readouterr().err.splitlines()[-1] == ("caching latents: 25 % (100 of 400 Mpx), 5 Mpx/s, 60 s left")


def test_a_bar_of_a_terminal_shows_megapixels_rate_and_time_left(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    say = Console()
    say.loading("the model tiny")
    say("develop", 0, 0.8)
    clock[0] += 4
    say("develop", 0.2, 0.8)
    say.close()
    assert "0.2 of 0.8 Mpx, 0.05 Mpx/s, 12 s left" in capsys.readouterr().err
