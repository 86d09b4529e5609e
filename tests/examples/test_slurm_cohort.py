"""examples/slurm/cohort-array.sbatch: what it does with the answers of srun and the program (both are played here)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SLURM = Path(__file__).parents[2] / "examples" / "slurm"

PROGRAM = r"""#!/bin/bash
echo "$*" >>"$CALLS"
out=
for ((i = 1; i <= $#; i++)); do
    case ${!i} in -o | --out-dir) next=$((i + 1)); out=${!next} ;; esac
done
if [ "$1" = embed ]; then
    mkdir -p "$out"
    printf '%s\n' "input,grid,status" "a.svs,$out/a.zarr,done" "\"b, c.svs\",\"$out/b, c.zarr\",skipped" \
        "broken.svs,$out/broken.zarr,failed" >"$out/embed-summary$SUMMARY.csv"
    exit "$EMBEDDED"
fi
case $out in *"$UNPAINTABLE"*) exit "$BROKEN" ;; esac
cat >/dev/null
touch "$out"
"""

SRUN = """#!/bin/bash
[ "$1" = --cpus-per-task=6 ] && shift && exec "$@"
"""


def submit(
    folder: Path, task: int, tasks: list[int], options: str = "--size 256", embedded: int = 0,
    unpaintable: str = "none", broken: int = 1,
) -> tuple[int, str]:  # fmt: skip
    """Run the cohort's file as one task of an array; its exit code and the calls it made."""
    step = tasks[1] - tasks[0] if len(tasks) > 1 else 1
    share = f".{tasks.index(task)}-of-{len(tasks)}" if len(tasks) > 1 else ""
    programs, calls = folder / "bin", folder / "calls"
    programs.mkdir(exist_ok=True)
    for name, text in (("ssl-tilegen", PROGRAM), ("srun", SRUN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    calls.write_text("")
    array = {"ID": task, "COUNT": len(tasks), "MIN": tasks[0], "MAX": tasks[-1], "STEP": step}
    environment = os.environ | {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
    environment |= {"SLURM_CPUS_PER_TASK": "6", "BROKEN": str(broken)}
    environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(calls), "EMBEDDED": str(embedded),
                    "UNPAINTABLE": unpaintable, "SUMMARY": share}  # fmt: skip
    command = ["bash", str(SLURM / "cohort-array.sbatch"), "list.csv", "out", *options.split()]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, calls.read_text()


@pytest.mark.parametrize("tasks", [[0, 1, 2], [1, 3, 5], [7]])
def test_every_grid_of_the_share_is_painted_once(tmp_path: Path, tasks: list[int]) -> None:
    code, calls = submit(tmp_path, tasks[-1], tasks)
    assert code == 0 and calls.count("generate") == 2
    assert (tmp_path / "out" / "b, c-synthetic.ome.tif").exists() and "--size 256" in calls
    code, calls = submit(tmp_path, tasks[-1], tasks)
    assert code == 0 and calls.count("generate") == 0


def test_failed_images_are_told_and_the_others_painted(tmp_path: Path) -> None:
    code, calls = submit(tmp_path, 1, [0, 1], embedded=3)
    assert code == 3 and calls.count("generate") == 2
    code, calls = submit(tmp_path / "out", 1, [0, 1], unpaintable="a-synthetic")
    assert code == 3 and calls.count("generate") == 2


@pytest.mark.parametrize("embedded", [1, 143])
def test_nothing_is_painted_where_embedding_ended_early(tmp_path: Path, embedded: int) -> None:
    code, calls = submit(tmp_path, 0, [0, 1], embedded=embedded)
    assert code == embedded and "generate" not in calls


def test_without_options_of_generate_nothing_is_painted(tmp_path: Path) -> None:
    code, calls = submit(tmp_path, 0, [0, 1], options="")
    assert code == 0 and calls.startswith("embed --list list.csv") and "generate" not in calls


def test_a_task_that_is_told_to_stop_begins_no_other_picture(tmp_path: Path) -> None:
    code, calls = submit(tmp_path, 0, [0, 1], unpaintable="a-synthetic", broken=143)
    assert code == 143 and calls.count("generate") == 1
