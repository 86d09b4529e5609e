"""What a first GPU should tell, in ten minutes: `python -m benchmarks.gpu --out FOLDER [--painter TOML]`.

Steps, each a line of JSON on stdout and in FOLDER/report.jsonl as soon as it is done, so that a run that is cut short
leaves what it has; a step that fails says why, and the next one is done:

- ``machine``: card, library versions, and the measured peak of a matrix product in each precision;
- ``same``: one image painted on the CPU and on the device, in float32 and in the fast precisions;
- ``tiny``: seconds and memory of 1024 and 4096 px with the bundle, by precision, with and without torch.compile;
- ``paper``: windows a second and share of the peak of the network of Graikos et al. 2024 (random weights);
- ``ranks``: one rank under torchrun through `generate` and `train denoiser` (NCCL on a GPU, gloo on a CPU);
- ``painter``: with --painter, `train painter` goes on for the time that is left; its weights are copied to
  FOLDER/painter in files of at most 16 MiB. `python -m benchmarks.gpu.pack` makes the TOML and all it needs.

FOLDER then holds at most eight files, no more than two folders down.

``--rehearse`` does all of it in small, on whatever there is.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.speed import machine, paper, same, tiny
from benchmarks.gpu.stages import painter, ranks
from ssl_tilegen.system.device import pick_device

_SPARE_S = 30.0  # for the last copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--painter", type=Path, help="TOML of `train painter`")
    parser.add_argument("--only", nargs="+", help="some of the steps")
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    end, device = time.monotonic() + 60 * given.minutes, pick_device(given.device)
    steps: dict[str, Callable[[], Any]] = {
        "machine": partial(machine, device, given.rehearse),
        "same": partial(same, given.model, device, given.rehearse),
        "tiny": partial(tiny, given.model, device, given.rehearse),
        "paper": partial(paper, device, given.rehearse),
        "ranks": partial(ranks, given.model, device),
    }
    if given.painter:
        steps["painter"] = lambda: painter(given.painter, given.out, device, end - _SPARE_S - time.monotonic())
    for name, step in steps.items():
        if given.only is None or name in given.only:
            record(given.out / "report.jsonl", name, step)


def record(file: Path, name: str, step: Callable[[], Any]) -> None:
    """Do a step and write what it found, or why it failed."""
    started = time.monotonic()
    try:
        found = {"step": name, "found": step()}
    except Exception as error:
        found = {"step": name, "error": f"{type(error).__name__}: {error}"[:500], "at": traceback.format_exc()[-800:]}
    line = json.dumps(found | {"seconds": round(time.monotonic() - started, 1)})
    print(line, flush=True)
    with file.open("a") as report:
        report.write(line + "\n")


if __name__ == "__main__":
    main()
