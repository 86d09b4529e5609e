"""How long commands take to start: `python -m benchmarks.startup [--rounds 5]`.

In one run, in turns: `import torch` alone, `embed` of one tile, and `generate` of one small image with one step, each
in a process of its own, with their bytecode at hand. Prints the medians of wall and of processor seconds, and their
ratio to `import torch`.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="tiny")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(Path(folder) / "tile.png")
        program = [sys.executable, "-m", "ssl_tilegen"]
        model = ["--model", given.model, "--device", "cpu", "--overwrite"]
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "embed": [*program, "embed", "tile.png", "--gsd", "0.1", *model],
            "generate": [*program, "generate", "--grid", "tile.zarr", "--steps", "1", "-o", "made.png", *model],
        }
        for command in commands.values():  # once, so that bytecode and the grid are there
            timed(command, folder)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(given.rounds):
            for name, command in commands.items():
                found[name].append(timed(command, folder))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    print("| | wall s | processor s | wall / torch | processor / torch |\n|---|---|---|---|---|")
    for name, (wall, own) in medians.items():
        over = [value / base for value, base in zip((wall, own), medians["import torch"], strict=True)]
        print(f"| {name} | {wall:.2f} | {own:.2f} | {over[0]:.2f} | {over[1]:.2f} |")


def timed(command: list[str], folder: str) -> tuple[float, float]:
    """Wall and processor seconds of a process."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), environment.get("PYTHONPATH", "")])
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
