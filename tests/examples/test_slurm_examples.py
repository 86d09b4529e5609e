"""The files in examples/slurm run the command they say, with the cores that the job asked for."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

EVERY = sorted((Path(__file__).parents[2] / "examples" / "slurm").glob("*.sbatch"))
SCRIPTS = [script for script in EVERY if "cohort" not in script.stem]  # that one has its own tests


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """srun that says what it is given, and ends as the variable CODE says; scontrol that says what it is told."""
    for name, code in (("srun", "${CODE:-0}"), ("scontrol", "0")):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\necho {name} "$@"\nexit {code}\n')
        tool.chmod(0o755)
    return tmp_path


def ran(script: Path, tools: Path, *words: str, **variables: str) -> tuple[int, str]:
    path = {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "6", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", script, *words], env=path | variables, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_command_gets_its_arguments_and_cores(script: Path, tools: Path) -> None:
    """srun has not taken its cores from sbatch since Slurm 22.05: it must be told."""
    words = ["denoiser", "my file.toml", "run"] if script.stem.startswith("train") else ["my file.zarr", "out"]
    code, said = ran(script, tools, *words)
    assert code == 0 and said.startswith("srun --cpus-per-task=6 ") and "my file" in said and " ssl-tilegen " in said
    assert ran(script, tools)[0] != 0, "no arguments"


def test_a_preempted_job_goes_back_into_the_queue(tools: Path) -> None:
    script = next(script for script in SCRIPTS if "preemptible" in script.stem)
    words = ("denoiser", "a.toml", "run")
    assert ran(script, tools, *words, CODE="143") == (143, ran(script, tools, *words)[1] + "scontrol requeue 7\n")
    assert "requeue" not in ran(script, tools, *words, CODE="1")[1]


def test_every_script_saves_before_its_time_is_up() -> None:
    for script in EVERY:
        assert re.search(r"^#SBATCH --signal=(TERM|USR1)@\d+$", script.read_text(), re.M), script
