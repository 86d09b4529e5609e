"""How long commands take to start, and what they load: `python -m benchmarks.startup [--rounds 5]`.

In one run, in turns: `import torch` alone, and each command on as little work as there is (`embed` of one tile,
`generate` of one small image with one step), each in a process of its own, with their bytecode at hand. Prints the
medians of wall and of processor seconds, their ratio to `import torch`, and which large libraries were imported.
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

COMMANDS = {
    "--version": "--version",
    "--help": "--help",
    "models list": "models list",
    "models info": "models info {model}",
    "embed": "embed tile.png --gsd 0.1 --model {model} --device cpu --overwrite",
    "grid info": "grid info tile.zarr",
    "grid preview": "grid preview tile.zarr -o tile.preview.png --overwrite",
    "generate --dry-run": "generate --grid tile.zarr -o dry.png --model {model} --device cpu --dry-run",
    "generate": "generate --grid tile.zarr --steps 1 -o made.png --model {model} --device cpu --overwrite",
}
LIBRARIES = ("torch", "torchvision", "timm", "diffusers", "transformers", "scipy", "skimage", "sklearn", "rasterio",
             "tifffile", "openslide", "zarr")  # fmt: skip
_LOADS = f"""
import atexit, sys
atexit.register(lambda: print("loads", *(n for n in {LIBRARIES} if n in sys.modules), file=sys.stderr))
from ssl_tilegen.cli import main
main()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="tiny")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(Path(folder) / "tile.png")
        words = {name: line.format(model=given.model).split() for name, line in COMMANDS.items()}
        loaded = {name: loads(line, folder) for name, line in words.items()}  # so bytecode and the grid are there, too
        commands = {"import torch": [sys.executable, "-c", "import torch"]}
        commands |= {name: [sys.executable, "-m", "ssl_tilegen", *line] for name, line in words.items()}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(given.rounds):
            for name, command in commands.items():
                found[name].append(timed(command, folder))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    print("| | wall s | processor s | wall / torch | processor / torch | loads |\n|---|---|---|---|---|---|")
    for name, (wall, own) in medians.items():
        over = [value / base for value, base in zip((wall, own), medians["import torch"], strict=True)]
        print(f"| {name} | {wall:.2f} | {own:.2f} | {over[0]:.2f} | {over[1]:.2f} | {loaded.get(name, 'torch')} |")


def loads(words: list[str], folder: str) -> str:
    """The large libraries that a command imports."""
    done = subprocess.run([sys.executable, "-c", _LOADS, *words], cwd=folder, env=environment(), capture_output=True,
                          text=True)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-300:]}")
    return done.stderr.strip().splitlines()[-1].removeprefix("loads").strip()


def environment() -> dict[str, str]:
    """Ours, with this checkout's code and bytecode kept."""
    found = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return found | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}


def timed(command: list[str], folder: str) -> tuple[float, float]:
    """Wall and processor seconds of a process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, env=environment(), capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
