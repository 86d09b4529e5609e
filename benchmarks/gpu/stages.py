"""The command line on the device: one rank through `generate` and `train`, and the painter trained on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

LARGEST_BYTES = 16 << 20
_GRACE_S = 60.0
_DENOISER = """\
bundle = "{model}"
start_from = "{model}"
[run]
steps = 2
batch = 2
[[data.sources]]
paths = ["pictures/*.png"]
domain = "he"
mpp = 0.5
"""


def ranks(model: str, device: torch.device) -> dict[str, Any]:
    """One rank under torchrun: seconds of an image of 256 px and of two steps of training."""
    with tempfile.TemporaryDirectory() as folder:  # it is no result, and would be many files
        return _ranks(Path(folder), model, device)


def _ranks(folder: Path, model: str, device: torch.device) -> dict[str, Any]:
    (folder / "pictures").mkdir()
    for number in range(2):
        coarse = np.random.default_rng(number).integers(60, 220, (8, 8, 3), np.uint8)
        image = Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC)
        image.save(folder / "pictures" / f"{number}.png")
    (folder / "denoiser.toml").write_text(_DENOISER.format(model=model))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m"]
    own, where = [*launch, "ssl_tilegen"], ["--device", device.type]
    embed = [sys.executable, "-m", "ssl_tilegen", "embed", "pictures/0.png", "--mpp", "0.5", "-o", "grid.zarr"]
    commands = {
        "embed": [*embed, "--model", model, *where],
        "generate": [*own, "generate", "--grid", "grid.zarr", "-o", "made.png", "--model", model, *where],
        "train": [*own, "train", "denoiser", "--config", "denoiser.toml", "--out", "run", *where],
    }
    return {name: _seconds(command, folder) for name, command in commands.items()}


def painter(config: Path, out: Path, device: torch.device, seconds: float) -> dict[str, Any]:
    """`train painter` for ``seconds``, stopped by a signal if it is not done; its weights go to ``out``/painter."""
    if seconds <= 0:
        return {"left_s": round(seconds), "trained": False}
    run, started = config.parent / "run", time.monotonic()
    command = [sys.executable, "-m", "ssl_tilegen", "train", "painter", "--config", str(config), "--out", str(run)]
    with (out / "painter.log").open("w") as log:
        process = subprocess.Popen([*command, "--device", device.type], stdout=log, stderr=log, env=_environment())
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # it saves its state, and the same command goes on
            process.wait(_GRACE_S)
    told = (out / "painter.log").read_text().strip().splitlines()
    facts = {"exit_code": process.returncode, "trained_s": round(time.monotonic() - started), "last": told[-1:]}
    if process.returncode not in (0, 128 + signal.SIGTERM) or not (run / "painter" / "checkpoint").exists():
        return facts | {"trained": False}
    return facts | {"files": _weights(run / "bundle", out / "painter")}


def _weights(bundle: Path, out: Path) -> dict[str, int]:
    """Copy a bundle's denoiser and its facts; sizes of what was copied. ValueError for files that may not travel."""
    found = [path for path in sorted((bundle / "denoiser").glob("*")) if path.is_file()]
    for path in [*found, bundle / "bundle.json"]:
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"{path}: {path.stat().st_size >> 20} MiB, more than {LARGEST_BYTES >> 20}")
        target = out / path.relative_to(bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return {path.name: path.stat().st_size for path in found}


def _seconds(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{command[4:8]}: {done.stderr.strip().splitlines()[-1][:300]}")
    return round(time.perf_counter() - started, 2)


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}
