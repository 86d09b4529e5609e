"""One picture painted by many processes, started as torchrun and srun start them: the same as by one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.io.pyramid import part_of
from ssl_tilegen.workflows.embed import embed
from tests.bundles import painting_bundle

SIDE_PX = 640


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles and a grid of a picture that is blank on its right and at its top."""
    folder = tmp_path_factory.mktemp("ranks")
    bundle = painting_bundle(folder / "local")
    painting_bundle(folder / "window", window=True)
    rng = np.random.default_rng(0)
    pixels = np.full((SIDE_PX, 256, 3), 243, np.uint8)
    pixels[256:, :160] = rng.integers((120, 40, 120), (200, 120, 200), (SIDE_PX - 256, 160, 3))
    Image.fromarray(pixels).save(folder / "slide.png")
    embed([folder / "slide.png"], EmbedSettings(model=str(bundle), mpp=0.5, out=folder / "slide.zarr"))
    return folder


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def start(world: Path, out: Path, ranks: int, *more: str, kind: str = "local", launcher: str = "torchrun"):
    """The processes of one run, all but the first of which say nothing."""
    words = ["generate", "--grid", str(world / "slide.zarr"), "--model", str(world / kind), "-o", str(out), "--device",
             "cpu", "--json", *more]  # fmt: skip
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "RANK", "WORLD_SIZE", "LOCAL_RANK"))}
    bare |= {"OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())}
    names = {"torchrun": ("RANK", "LOCAL_RANK", "WORLD_SIZE"), "srun": tuple(
        f"SLURM_{name}" for name in ("PROCID", "LOCALID", "NTASKS"))}[launcher]  # fmt: skip
    host = {"MASTER_ADDR": "127.0.0.1"} if launcher == "torchrun" else {"SLURM_STEP_NODELIST": "localhost"}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen([sys.executable, "-m", "ssl_tilegen", *words], **pipe,
                         env=bare | host | dict(zip(names, map(str, (rank, rank, ranks)), strict=True)))
        for rank in range(ranks)
    ]  # fmt: skip


def finish(processes) -> dict:
    """The first one's report."""
    answers = [process.communicate(timeout=120) for process in processes]
    assert [p.returncode for p in processes] == [0] * len(processes), answers
    assert not any(out for out, _ in answers[1:])
    return json.loads(answers[0][0])


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(("kind", "merge", "ranks", "launcher"), [
    ("local", "whole", 2, "torchrun"), ("local", "whole", 3, "srun"), ("window", "shift", 3, "torchrun"),
    ("window", "average", 2, "torchrun"),
])  # fmt: skip
def test_many_processes_paint_what_one_does(kind, merge, ranks, launcher, world: Path, tmp_path: Path) -> None:
    how = ("--merge", merge, "--update", "ancestral")
    one = finish(start(world, tmp_path / "one.png", 1, *how, kind=kind))
    many = finish(start(world, tmp_path / "many.png", ranks, *how, kind=kind, launcher=launcher))
    picture = pixels_of(tmp_path / "one.png")
    assert many["size"] == one["size"] == [256, SIDE_PX] and picture[300:, :150].std() > 5
    assert np.abs(pixels_of(tmp_path / "many.png") - picture).max() <= 1
    assert many["network_calls"] > one["network_calls"] and not part_of(tmp_path / "many.png").exists()


def test_stopped_and_killed_runs_go_on_with_any_number(world: Path, tmp_path: Path) -> None:
    """SIGTERM to three after some steps, SIGKILL to two somewhere, the rest by one: the pixels of one run."""
    out, how = tmp_path / "a.png", ("--steps", "40")
    finish(start(world, tmp_path / "straight.png", 1, *how))
    stopped = start(world, out, 3, *how)
    wait_for(out, lambda rung: rung >= 5)
    for process in stopped:
        process.send_signal(signal.SIGTERM)
    codes = [process.wait(60) for process in stopped]
    assert codes == [143] * 3 and not out.exists()
    killed = start(world, out, 2, *how)
    begun = rung_of(out)
    wait_for(out, lambda rung: rung > begun)
    killed[1].kill()
    _, complaint = killed[0].communicate(timeout=60)
    assert killed[0].returncode == 1 and "another process of this run is gone" in complaint
    killed[1].wait()
    finish(start(world, out, 1, *how))
    assert np.abs(pixels_of(out) - pixels_of(tmp_path / "straight.png")).max() <= 1


def rung_of(out: Path) -> int:
    rungs = [int(file.name.split(".")[-2]) for file in part_of(out).glob("latents.state.*")]
    return min(rungs, default=0)


def wait_for(out: Path, ready) -> None:
    for _ in range(1200):
        if ready(rung_of(out)):
            return
        time.sleep(0.05)
    raise AssertionError("the run did not come so far")


def test_more_processes_than_rows_are_refused_by_all(world: Path, tmp_path: Path) -> None:
    processes = start(world, tmp_path / "a.png", 2, "--region", "0,0,64,8")
    answers = [process.communicate(timeout=60) for process in processes]
    assert [p.returncode for p in processes] == [1, 1] and "start at most 1" in answers[0][1]
    assert not list(tmp_path.iterdir())
