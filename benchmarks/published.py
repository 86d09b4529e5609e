"""An imported model on a canvas: killed and resumed, by one process and by two, to the same bytes; calls and seconds.

Run with `python -m benchmarks.published --model BUNDLE --grid EMB.zarr --out FOLDER --size 512 --steps 2`.

Paints once in one process that is killed (SIGKILL) after its first step and started again, and once in two processes
that run through; says whether the files are the same to the byte. Then times some network calls of one window and says
what a step of the bundle's own sampling and of each of its recipes takes: calls of one window (guidance counted) and
seconds. `--only calls` or `--only bytes` does one of the two. Give few `--steps`: a window of a 400 M network takes
about three seconds of one core. One JSON line per fact.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.diffusion.synthesis import plan
from ssl_tilegen.geometry import Size
from ssl_tilegen.io.pyramid import unfinished_image
from ssl_tilegen.system.hashing import sha256_of_file
from ssl_tilegen.workflows.generate.job import prepare

_POLL_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--grid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--timed", type=int, default=3, help="network calls that are timed")
    parser.add_argument("--only", choices=("bytes", "calls"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only != "calls":
        compare_bytes(options)
    if options.only != "bytes":
        count_calls(options)


def say(**facts: Any) -> None:
    """One JSON line."""
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in facts.items()}), flush=True)


def compare_bytes(options: argparse.Namespace) -> None:
    """One process killed and resumed, and two processes: whether their files agree."""
    killed, two = options.out / "killed.ome.tif", options.out / "two.ome.tif"
    started = time.perf_counter()
    step = killed_after_a_step(options, killed)
    killed_s = time.perf_counter() - started
    finish(start(options, killed, 1))
    say(run="one process, killed and resumed", killed_after_step=step, killed_s=killed_s, sha256=sha256_of_file(killed),
        wall_s=time.perf_counter() - started)  # fmt: skip
    started = time.perf_counter()
    finish(start(options, two, 2))
    same = sha256_of_file(killed) == sha256_of_file(two)
    say(run="two processes", sha256=sha256_of_file(two), wall_s=time.perf_counter() - started, same_bytes=same)


def start(options: argparse.Namespace, out: Path, ranks: int) -> list[subprocess.Popen[bytes]]:
    """`generate` in as many processes as torchrun would start."""
    how = ["--size", str(options.size), "--steps", str(options.steps), "--guidance", str(options.guidance)]
    words = ["generate", "--grid", str(options.grid), "--model", options.model, "-o", str(out), "--batch", "1", *how]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    facts = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    return [
        subprocess.Popen([sys.executable, "-m", "ssl_tilegen", *words], stdout=subprocess.DEVNULL,
                         env=os.environ | (facts | {"RANK": str(k), "LOCAL_RANK": str(k)} if ranks > 1 else {}))
        for k in range(ranks)
    ]  # fmt: skip


def finish(processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for a run to end well."""
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit(f"a process of generate failed: {codes}")


def killed_after_a_step(options: argparse.Namespace, out: Path) -> int:
    """Start `generate`, kill it when a state is saved; the step that the state is of."""
    [process] = start(options, out, 1)
    while not (saved := list(unfinished_image(out).glob("latents.state.*"))):
        if process.poll() is not None:
            raise SystemExit("generate ended before its first step was saved")
        time.sleep(_POLL_S)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if out.exists():
        raise SystemExit("generate was killed too late")
    return max(int(file.name.split(".")[-2]) for file in saved)


def count_calls(options: argparse.Namespace) -> None:
    """Network calls of one window and seconds that a step takes, of our own sampling and of each recipe."""
    bundle = ModelBundle.load(options.model)
    wall_s, cpu_s = timed_call(bundle, options.timed)
    say(timed_calls=options.timed, window_px=bundle.info.window_px, wall_s_per_call=wall_s, cpu_s_per_call=cpu_s)
    for recipe in (None, *bundle.info.recipes):
        settings = GenerateSettings(grid=options.grid, model=options.model, size=Size(options.size, options.size),
                                    fit="crop", recipe=recipe, batch=1, dry_run=True)  # fmt: skip
        job = prepare(settings, bundle)
        planned = plan(bundle, job.field, job.region_lat, job.how, job.background)
        per_step = planned.network_calls / planned.steps
        say(sampling=recipe or "own", update=job.how.update, guidance=job.how.guidance, steps=planned.steps,
            windows=planned.windows, calls=planned.network_calls, calls_per_step=per_step,
            cpu_s_per_step=per_step * cpu_s, cpu_s=planned.network_calls * cpu_s)  # fmt: skip


def timed_call(bundle: ModelBundle, count: int) -> tuple[float, float]:
    """Median wall and processor seconds of a call of one window, after one that is not counted."""
    side = bundle.window_lat
    x, t = torch.zeros(1, bundle.latent_channels, side, side, device=bundle.device), torch.full((1,), 500.0)
    measured: list[Any] = []
    with torch.no_grad():
        for _ in range(count + 1):
            started, used = time.perf_counter(), time.process_time()
            bundle.predict(x, t.to(bundle.device), None).sum().item()
            measured.append((time.perf_counter() - started, time.process_time() - used))
    walls, cpus = zip(*measured[1:], strict=True)
    return sorted(walls)[count // 2], sorted(cpus)[count // 2]


if __name__ == "__main__":
    main()
