"""An imported model on a canvas: killed and resumed, by one process and by two; calls, seconds, pictures of recipes.

Run with `python -m benchmarks.published --model BUNDLE --grid EMB.zarr --out FOLDER --size 512 --steps 2`. Three parts,
of which `--only` does one:

- `bytes`: paints in one process that is killed (SIGKILL) after its first step and started again, in two processes that
  run through, and in two that are killed and started again. Are the files the same to the byte?
- `calls`: what a step of the bundle's own sampling and of each of its recipes takes: calls of one window (guidance
  counted, from the plan) and seconds (of a few steps of one window that are run, with its condition).
- `pictures`: paints one crop by the bundle's own sampling and by each of its recipes, from the same noise, as PNG files
  in `--out`; PSNR, mean difference and correlation of each recipe's to the bundle's own.

Give few `--steps` to `bytes`: a window of a 400 M network takes three seconds of one core, and its decoding seven. One
JSON line per fact.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.diffusion.denoiser import guided_estimate, schedule_of
from ssl_tilegen.diffusion.guidance import acts
from ssl_tilegen.diffusion.synthesis import plan
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.pyramid import unfinished_image
from ssl_tilegen.system.hashing import sha256_of_file
from ssl_tilegen.workflows.generate.job import PaintJob, prepare
from ssl_tilegen.workflows.generate.run import generate

_POLL_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--grid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--timed", type=int, default=3, help="steps of one window that are timed")
    parser.add_argument("--runs", type=int, default=3, help="how many of the three paintings")
    parser.add_argument("--only", choices=("bytes", "calls", "pictures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    parts = {"bytes": compare_bytes, "calls": count_calls, "pictures": compare_pictures}
    for part in [options.only] if options.only else parts:
        parts[part](options)


def say(**facts: Any) -> None:
    """One JSON line."""
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in facts.items()}), flush=True)


def compare_bytes(options: argparse.Namespace) -> None:
    """One process killed and resumed, two that run through, two killed and resumed: whether their files agree."""
    first = ""
    for number, (ranks, kill) in enumerate(((1, True), (2, False), (2, True))[: options.runs]):
        out, started = options.out / str(number) / "image.ome.tif", time.perf_counter()  # its name stands in the file
        out.parent.mkdir(exist_ok=True)
        step = killed_after_a_step(options, out, ranks) if kill else None
        killed_s = time.perf_counter() - started if kill else None
        finish(start(options, out, ranks))
        sha256 = sha256_of_file(out)
        first = first or sha256
        say(processes=ranks, killed_after_step=step, killed_s=killed_s, wall_s=time.perf_counter() - started,
            sha256=sha256, same_bytes=sha256 == first)  # fmt: skip


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


def killed_after_a_step(options: argparse.Namespace, out: Path, ranks: int) -> int:
    """Start `generate`, kill it when all processes have saved a state of one step; that step."""
    processes = start(options, out, ranks)
    while not (step := saved_step(out, ranks)):
        if any(process.poll() is not None for process in processes):
            raise SystemExit("generate ended before its first step was saved")
        time.sleep(_POLL_S)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.wait()
    if out.exists():
        raise SystemExit("generate was killed too late")
    return step


def saved_step(out: Path, ranks: int) -> int:
    """The latest step that as many states as processes are saved of; 0 where there is none."""
    steps = [int(file.name.split(".")[-2]) for file in unfinished_image(out).glob("latents.state.*")]
    return max((step for step in steps if steps.count(step) == ranks), default=0)


def count_calls(options: argparse.Namespace) -> None:
    """What a step of our own sampling and of each recipe takes: counted calls of one window, times timed ones."""
    bundle = ModelBundle.load(options.model)
    for recipe in (None, *bundle.info.recipes):
        settings = GenerateSettings(grid=options.grid, model=options.model, size=Size(options.size, options.size),
                                    fit="crop", recipe=recipe, batch=1, out=options.out / "x.png")  # fmt: skip
        job = prepare(settings, bundle)
        planned = plan(bundle, job.field, job.region_lat, job.how, job.background)
        calls, wall_s, cpu_s = timed_calls(job, options.timed)
        per_step = planned.network_calls / planned.steps
        say(sampling=recipe or "own", update=job.how.update, guidance=job.how.guidance, steps=planned.steps,
            windows=planned.windows, calls=planned.network_calls, calls_per_step=per_step, timed_calls=calls,
            wall_s_per_call=wall_s, cpu_s_per_call=cpu_s, cpu_s_per_step=per_step * cpu_s,
            cpu_h=planned.network_calls * cpu_s / 3600)  # fmt: skip


def timed_calls(job: PaintJob, count: int) -> tuple[int, float, float]:
    """Calls that some steps in the middle of a job make of one window, and median wall and processor seconds of one;
    the first step does not count."""
    bundle, how, side = job.bundle, job.how, job.bundle.window_lat
    estimate = guided_estimate(bundle, job.field.dim, how)
    window = Window(job.region_lat.row, job.region_lat.col, side, side)
    condition = bundle.conditioning.sample(job.field, [window], layout=how.layout)
    x = torch.randn(1, bundle.latent_channels, side, side, device=bundle.device)
    calls, measured, schedule = 0, [], schedule_of(bundle, how)
    with torch.no_grad():
        for step in islice(schedule.steps(len(schedule) // 2), count + 1):
            made = 1 + acts(how.guidance, how.guidance_interval, step)
            started, used = time.perf_counter(), time.process_time()
            estimate(x, condition, step).sum().item()
            measured.append(((time.perf_counter() - started) / made, (time.process_time() - used) / made))
            calls += made
    walls, cpus = zip(*measured[1:], strict=True)
    return calls, sorted(walls)[count // 2], sorted(cpus)[count // 2]


def compare_pictures(options: argparse.Namespace) -> None:
    """The same crop by the bundle's own sampling and by each of its recipes, and how much they differ."""
    own = None
    for recipe in (None, *ModelBundle.load(options.model).info.recipes):
        out, used = options.out / f"{recipe or 'own'}.png", time.process_time()
        report = generate(GenerateSettings(
            grid=options.grid, model=options.model, size=Size(options.size, options.size), fit="crop", recipe=recipe,
            out=out, overwrite=True))  # fmt: skip
        with Image.open(out) as image:
            rgb = np.asarray(image.convert("RGB")).astype(np.float64)
        own = rgb if own is None else own
        error = float(np.square(rgb - own).mean())
        say(sampling=recipe or "own", file=out.name, network_calls=report.network_calls,
            cpu_s=time.process_time() - used, mean=float(rgb.mean()), deviation=float(rgb.std()),
            psnr_to_own=10 * math.log10(255**2 / error) if error else None,
            difference_to_own=float(np.abs(rgb - own).mean()),
            correlation_to_own=float(np.corrcoef(rgb.ravel(), own.ravel())[0, 1]))  # fmt: skip


if __name__ == "__main__":
    main()
