"""How much of the time of `augment` is spent in the networks, and how many images a second that makes.

    python -m benchmarks.augment_speed FOLDER [images] [steps]

FOLDER has one sub-folder per class; the first images of each are taken. Prints one line.
"""

from __future__ import annotations

import functools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import AugmentSettings
from ssl_tilegen.encoders.module_encoder import NetworkEncoder
from ssl_tilegen.workflows.augment.run import augment

spent: dict[str, float] = {}


def timed(owner: type, name: str) -> None:
    """Count the seconds of a method under its name; waits for the device, so that they are the device's."""
    method: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(method)
    def counted(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = method(*args, **kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - started
        return result

    setattr(owner, name, counted)


def main(folder: Path, images: int = 32, steps: int | None = None) -> None:
    for owner, name in ((ModelBundle, "predict"), (ModelBundle, "decode"), (ModelBundle, "encode"),
                        (NetworkEncoder, "embed")):  # fmt: skip
        timed(owner, name)
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    with tempfile.TemporaryDirectory() as scratch:
        for kind in classes:
            (Path(scratch) / "in" / kind.name).mkdir(parents=True)
            for path in sorted(kind.iterdir())[: -(-images // len(classes))]:
                shutil.copy(path, Path(scratch) / "in" / kind.name)
        for strength in (None, 0.5):
            spent.clear()
            settings = AugmentSettings(out=Path(scratch) / f"out-{strength}", strength=strength, mix=0.3, steps=steps)
            started = time.perf_counter()
            report = augment(Path(scratch) / "in", settings)
            total = time.perf_counter() - started
            shares = ", ".join(f"{name} {seconds / total:.1%}" for name, seconds in spent.items())
            print(f"strength {strength}: {report.painted} images in {total:.1f} s, {report.painted / total:.2f}/s; "
                  f"in the networks {sum(spent.values()) / total:.1%} ({shares})")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:4]))
