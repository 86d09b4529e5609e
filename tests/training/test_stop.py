"""A run that is stopped in another process, and what each of many processes says at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ssl_tilegen.cli import main
from ssl_tilegen.training.distributed import Processes
from ssl_tilegen.workflows import train as workflow


class StoppedElsewhere(Processes):
    """This process, and another one that was asked to stop."""

    def mean(self, values: Tensor) -> Tensor:
        values = values.clone()
        values[-1] += 0.5
        return values


def code_of(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


@pytest.mark.parametrize("stage", ["encoder", "autoencoder"])
def test_a_run_that_was_stopped_in_another_process_is_no_finished_one(
    stage: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", stage, "--config", base / f"{stage}.toml", "-o", tmp_path / "x", "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(workflow, "Processes", StoppedElsewhere)
        assert code_of(*words) == 143
    said = capsys.readouterr()
    assert "another process of this run was interrupted" in said.err and not said.out
    component = tmp_path / "x" / "bundle" / stage
    assert component.exists() == (stage != "encoder"), "an encoder is exported at the end of its run only"
    assert code_of(*words) == 0 and component.exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_many_processes_shows_the_summary(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report: dict[str, Any] = {"stage": "encoder", "run": "r", "bundle": "b", "stopped": False}
    monkeypatch.setattr(workflow, "train", lambda *given, **options: report)
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert code_of("train", "encoder", "--config", tmp_path / "e.toml", "--json") == 0
    shown = capsys.readouterr().out
    assert not shown if rank else json.loads(shown) == report
