"""The study's report says what its numbers say, whichever way they fall."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

STUDY = Path(__file__).parents[2] / "examples" / "augment"


def found(gains: list[tuple[float, float, float]]) -> dict[str, Any]:
    """What study.py writes of a task with one row for each gain of `both - real`."""
    rows = [
        {"learner": "linear, texture", "groups": 5 * (i + 1), "draws": 7, "test_groups": 30, "sizes": {},
         "figures": {"real": [0.8, 0.75, 0.85]}, "gains": {"both - real": gain}}
        for i, gain in enumerate(gains)
    ]  # fmt: skip
    return {
        "task": "lung", "title": "Lung", "seen": True, "model": "m", "hash": "0" * 64, "scale": 2, "train": 9,
        "held": 8, "tested": 100, "kinds": {"turned": 0.01}, "kind": "turned", "gains": {"blend": 0.01},
        "recipe": "blend", "options": "--mix 0.4", "cosine": {"blend": 0.9}, "in_class": {"blend": [0.5, 0.8]},
        "rows": rows, "seconds": 60,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([(0.02, 0.01, 0.03), (0.01, -0.01, 0.03)], "Lung: a clear gain in some rows."),
        ([(0.02, 0.01, 0.03)], "Lung: a clear gain throughout."),
        ([(0.01, -0.01, 0.03)], "Lung: no clear gain."),
        ([(-0.02, -0.03, -0.01), (0.0, -0.01, 0.01)], "Lung: no clear gain, and a clear loss."),
        ([(-0.02, -0.03, -0.01), (0.02, 0.01, 0.03)], "Lung: a clear gain in some rows, a clear loss in others."),
    ],
)
def test_the_verdict_follows_the_intervals(tmp_path: Path, gains: list[tuple[float, float, float]], said: str) -> None:
    (tmp_path / "lung.json").write_text(json.dumps(found(gains)))
    results = tmp_path / "RESULTS.md"
    subprocess.run([sys.executable, STUDY / "report.py", tmp_path, results], check=True)
    text = " ".join(results.read_text().split())
    better, worse = sum(g[1] > 0 for g in gains), sum(g[2] < 0 for g in gains)
    assert said in text and f"clearly better in {better} of {len(gains)} rows and clearly worse in {worse}" in text
    assert f"of {len(gains)} rows of `both - real` {better} are clearly above zero and {worse} clearly below" in text
    assert "100 images of 30 groups tested" in text and text.count("**+") + text.count("**-") == better + worse


def test_each_learner_and_task_is_told(tmp_path: Path) -> None:
    """A gain by one learner is not hidden among those of another; images per image are the task's own."""
    lung, built = found([(0.02, 0.01, 0.03), (0.01, -0.01, 0.03)]), found([(-0.02, -0.03, -0.01)])
    lung["rows"][1] |= {"learner": "network from scratch"}
    lung["rows"][1]["gains"]["both+ - real+"] = (-0.02, -0.03, -0.01)
    built |= {"task": "built", "title": "Roofs", "scale": 3, "gains": {"blend": 0.01, "light": 0.0},
              "cosine": {"blend": 0.9, "light": 0.95}}  # fmt: skip
    for task in (lung, built):
        (tmp_path / f"{task['task']}.json").write_text(json.dumps(task))
    results = tmp_path / "RESULTS.md"
    subprocess.run([sys.executable, STUDY / "report.py", tmp_path, results], check=True)
    text = " ".join(results.read_text().split())
    assert "linear, texture 1 better and 0 worse of 1 (with ordinary augmentation 0 better and 0 worse)" in text
    assert "network from scratch 0 better and 0 worse of 1 (with ordinary augmentation 0 better and 1 worse)" in text
    assert "2 images made of each; the only one of this run" in text
    assert "3 images made of each; chosen on the held-out groups from `blend` +1.0" in text
    assert text.index("## Lung") < text.index("## Roofs")


def test_a_folder_without_results_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, STUDY / "report.py", tmp_path, tmp_path / "R.md"], capture_output=True)
    said = done.stderr.decode().splitlines()
    assert done.returncode == 1 and len(said) == 1 and "lung.json" in said[0] and not (tmp_path / "R.md").exists()


@pytest.mark.parametrize("failing", ["lung", "sites"])
def test_where_one_process_fails_the_other_is_stopped(tmp_path: Path, failing: str) -> None:
    """With a program in the place of python that works for long, or fails once the other one works."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/usr/bin/env bash\nworking="{tmp_path}/working"\n'
        f'[[ " $* " == *" {failing} "* ]] && {{ until [[ -s "$working" ]]; do sleep 0.05; done; exit 3; }}\n'
        f'sleep 60 & echo $! > "$working"; wait; touch "{tmp_path}/whole"\n'
    )
    python.chmod(0o755)
    path, began = f"{tmp_path}{os.pathsep}{os.environ['PATH']}", time.monotonic()
    done = subprocess.run(["bash", STUDY / "run.sh", tmp_path, tmp_path / "out"], env=os.environ | {"PATH": path})
    assert done.returncode == 3 and time.monotonic() - began < 30 and not (tmp_path / "whole").exists()
    end = time.monotonic() + 10
    while _is_alive(int((tmp_path / "working").read_text())) and time.monotonic() < end:
        time.sleep(0.1)
    assert time.monotonic() < end


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{process}/stat").exists() or " Z " not in Path(f"/proc/{process}/stat").read_text()
