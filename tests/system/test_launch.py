"""Who a process is among those started with it."""

from __future__ import annotations

import os

import pytest
import torch

from ssl_tilegen.errors import TilegenError
from ssl_tilegen.system.launch import Distributed, distributed_environment, lost_process, process_group

OURS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher's variables, before and after."""
    for name in (*OURS, *(key for key in os.environ if key.startswith("SLURM_"))):
        monkeypatch.setenv(name, "")  # so that it is put back after the test
        monkeypatch.delenv(name)


def test_alone_without_a_launcher() -> None:
    assert distributed_environment() == Distributed(0, 0, 1)


def test_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(OURS, ("5", "1", "8", "there", "1234"), strict=True):
        monkeypatch.setenv(name, value)
    assert distributed_environment() == Distributed(5, 1, 8)
    assert os.environ["MASTER_ADDR"] == "there"


@pytest.mark.parametrize(("hosts", "first"), [
    ("node7", "node7"), ("node[003-010,012],other[1-2]", "node003"), ("gpu[12,14]", "gpu12"), ("a,b", "a"),
    ("rack1-n[08-09]-ib", "rack1-n08-ib"), ("", "127.0.0.1"),
])  # fmt: skip
def test_srun_is_told_to_torch(hosts: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"PROCID": "3", "LOCALID": "1", "STEP_NUM_TASKS": "4", "JOB_NODELIST": hosts, "JOB_ID": "40007"}
    for name, value in facts.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert distributed_environment() == Distributed(3, 1, 4) == distributed_environment()
    assert [os.environ[name] for name in OURS] == ["3", "1", "4", first, "20007"]


def test_a_job_script_without_srun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROCID": "0", "LOCALID": "0", "NTASKS": "8", "JOB_ID": "7"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert distributed_environment() == Distributed()


def test_one_task_of_slurm_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROCID": "0", "LOCALID": "0", "NTASKS": "8", "STEP_NUM_TASKS": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert distributed_environment() == Distributed()
    assert "RANK" not in os.environ


def test_a_process_that_is_lost_without_a_word_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(who: Distributed) -> None:
        raise ValueError

    assert "is gone (RuntimeError)" in str(lost_process(RuntimeError()))
    monkeypatch.setattr("ssl_tilegen.system.launch._meeting_point", fail)
    with (
        pytest.raises(TilegenError, match=r"did not come \(ValueError\)"),
        process_group(Distributed(1, 1, 2), torch.device("cpu")),
    ):
        pass
