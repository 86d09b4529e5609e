"""One image painted by many processes, started as torchrun and srun start them: the same as by one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributed.run import main as torchrun

from ssl_tilegen.cli import main
from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.io.pyramid import unfinished_image
from ssl_tilegen.workflows.embed.run import embed
from tests.bundles import painting_bundle
from tests.processes import forked, free_port

torch.set_num_threads(1)
SIDE_PX = 640


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles and a grid of an image that is blank on its right and at its top."""
    folder = tmp_path_factory.mktemp("ranks")
    bundle = painting_bundle(folder / "local")
    painting_bundle(folder / "window", window=True)
    rng = np.random.default_rng(0)
    pixels = np.full((SIDE_PX, 256, 3), 243, np.uint8)
    pixels[256:, :160] = rng.integers((120, 40, 120), (200, 120, 200), (SIDE_PX - 256, 160, 3))
    Image.fromarray(pixels).save(folder / "slide.png")
    embed([folder / "slide.png"], EmbedSettings(model=str(bundle), mpp=0.5, out=folder / "slide.zarr"))
    return folder


def words(world: Path, out: Path, *more: str, kind: str = "local") -> list[str]:
    where = ["--grid", str(world / "slide.zarr"), "--model", str(world / kind), "-o", str(out)]
    return ["generate", *where, "--device", "cpu", "--json", *more]


def start(world: Path, out: Path, ranks: int, *more: str, kind: str = "local", launcher: str = "torchrun") -> list:
    """The processes of one run; what each says is kept beside the output."""
    port, fork = str(free_port()), multiprocessing.get_context("fork")
    own = {
        "torchrun": ("RANK", "LOCAL_RANK", "WORLD_SIZE"),
        "srun": ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"),
    }
    host = {"MASTER_ADDR": "127.0.0.1"} if launcher == "torchrun" else {"SLURM_STEP_NODELIST": "localhost"}
    started = []
    for rank in range(ranks):
        facts = dict(zip(own[launcher], map(str, (rank, rank, ranks)), strict=True)) | host | {"MASTER_PORT": port}
        heard = out.with_name(f"{out.name}.{rank}.log")
        started.append(fork.Process(target=act, args=(facts, heard, words(world, out, *more, kind=kind))))
        started[-1].start()
    return started


def act(facts: dict[str, str], heard: Path, arguments: list[str]) -> None:
    """Be a process that a launcher started."""
    with heard.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.update(facts)
    try:
        main(arguments)
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code or 0)  # type: ignore[arg-type]


def said(out: Path, rank: int) -> str:
    return out.with_name(f"{out.name}.{rank}.log").read_text()


def finish(processes: list, out: Path) -> dict:
    """The first one's report; the others say nothing."""
    for process in processes:
        process.join(300)
    texts = [said(out, rank) for rank in range(len(processes))]
    assert [p.exitcode for p in processes] == [0] * len(processes), texts
    assert not any(texts[1:])
    return json.loads(texts[0].splitlines()[-1])


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(("kind", "merge", "update", "ranks", "launcher"), [
    ("local", "whole", "renoise", 2, "torchrun"), ("local", "whole", "ancestral", 3, "srun"),
    ("window", "shift", "renoise", 3, "torchrun"),
    pytest.param("window", "average", "ancestral", 2, "torchrun", marks=pytest.mark.slow),
])  # fmt: skip
def test_many_processes_paint_what_one_does(kind, merge, update, ranks, launcher, world: Path, tmp_path: Path) -> None:
    how = ("--merge", merge, "--update", update)
    one = finish(start(world, tmp_path / "one.png", 1, *how, kind=kind), tmp_path / "one.png")
    processes = start(world, tmp_path / "many.png", ranks, *how, kind=kind, launcher=launcher)
    many = finish(processes, tmp_path / "many.png")
    image = pixels_of(tmp_path / "one.png")
    assert many["size"] == one["size"] == [256, SIDE_PX] and image[300:, :150].std() > 5
    assert np.abs(pixels_of(tmp_path / "many.png") - image).max() <= 1
    assert many["network_calls"] > one["network_calls"] and not unfinished_image(tmp_path / "many.png").exists()


def test_stopped_and_killed_runs_go_on_with_any_number(world: Path, tmp_path: Path) -> None:
    """SIGTERM to three after some steps, SIGKILL to one of two somewhere, the rest by one: the pixels of one run."""
    out, straight, how = tmp_path / "a.png", tmp_path / "straight.png", ("--steps", "40")
    finish(start(world, straight, 1, *how), straight)
    stopped = start(world, out, 3, *how)
    wait_for(out, lambda step_index: step_index >= 5)
    for process in stopped:
        os.kill(process.pid, signal.SIGTERM)
    for process in stopped:
        process.join(300)
    assert [process.exitcode for process in stopped] == [143] * 3 and not out.exists()
    begun = step_index_of(out)
    killed = start(world, out, 2, *how)
    wait_for(out, lambda step_index: step_index > begun)
    killed[1].kill()
    for process in killed:
        process.join(300)
    assert killed[0].exitcode == 1 and "another process of this run is gone" in said(out, 0)
    finish(start(world, out, 1, *how), out)
    assert np.abs(pixels_of(out) - pixels_of(straight)).max() <= 1


def step_index_of(out: Path) -> int:
    step_indices = [int(file.name.split(".")[-2]) for file in unfinished_image(out).glob("latents.state.*")]
    return min(step_indices, default=0)


def wait_for(out: Path, ready) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if ready(step_index_of(out)):
            return
        time.sleep(0.005)
    raise AssertionError("the run did not come so far")


def test_more_processes_than_rows_are_refused_by_all(world: Path, tmp_path: Path) -> None:
    processes = start(world, tmp_path / "a.png", 2, "--region", "0,0,64,8")
    for process in processes:
        process.join(300)
    assert [p.exitcode for p in processes] == [1, 1] and "start at most 1" in said(tmp_path / "a.png", 0)
    assert not unfinished_image(tmp_path / "a.png").exists()


@pytest.mark.slow
def test_torchrun_itself(world: Path, tmp_path: Path) -> None:
    heard, logs = tmp_path / "heard.log", tmp_path / "logs"
    launch = ["--standalone", "--nproc-per-node", "2", "--log-dir", logs, "--redirects", "1", "-m", "ssl_tilegen"]
    agent = forked(heard, torchrun, [str(word) for word in (*launch, *words(world, tmp_path / "a.ome.tif"))])
    agent.join(600)
    told = [path.read_text() for path in logs.rglob("stdout.log")]
    assert agent.exitcode == 0 and len(told) == 2, heard.read_text()
    [report] = filter(None, told)
    assert json.loads(report)["status"] == "done"
    assert (tmp_path / "a.ome.tif").is_file()
