"""Every figure of a bundle again: `python -m benchmarks.remeasure --out FOLDER [--bundle tiny] [--only NAME ...]`.

Runs the scripts behind README, card and examples/benchmarks.md one after the other, each in a process of its own; what
a script prints is in FOLDER/NAME.log. ``--full`` takes the counts that were published; else reduced ones. A step whose
log is whole is not done again, so the same command goes on after a stop. ``--plan`` prints the commands alone. Ends
with a table of wall and processor seconds.

The figures: judge (distances in ImageNet features, sheets), lines (patterns at the period of latents), quality (round
trips, PSNR), class_check, probes (encoder), listens (labels and wordings), drawn (pictures from labels), bars
(copying), texts (the six images), merges and recipes (examples/benchmarks.md), startup, ranks (many processes),
background (its cost, its borders), share (what painting spends its time on).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

STEPS: dict[str, tuple[str, str, str]] = {
    "embed": ("-m ssl_tilegen embed {area3} -o {out}/area3.zarr --model {bundle} --overwrite", "", ""),
    "embed-slide": ("-m ssl_tilegen embed {cmu} -o {out}/cmu.zarr --model {bundle} --overwrite", "", ""),
    "judge": ("-m benchmarks.judge --data {data} --bundle {bundle} --sheet {out}/pairs", "--only he", "--variant 1 2"),
    "painted": (
        "-m ssl_tilegen generate --grid {out}/area3.zarr -o {out}/area3.png --model {bundle} --overwrite",
        "--region 0,0,512,512",
        "",
    ),
    "painted-slide": (
        "-m ssl_tilegen generate --grid {out}/cmu.zarr -o {out}/cmu.png --model {bundle} --overwrite",
        "--region 832,960,512,512",
        "",
    ),
    "lines": ("-m benchmarks.lines {out}/area3.png {out}/cmu.png", "", ""),
    "quality": ("-m benchmarks.quality --data {data} --bundle {bundle} --out {out}/quality", "--every 16", "--every 8"),
    "class_check": ("-m benchmarks.class_check --data {data} --bundle {bundle}", "--tiles 105", ""),
    "probes": ("-m benchmarks.probes --data {data} --bundle {bundle} --out {out}/crops", "--draws 4", ""),
    "listens-grid": (
        "-m benchmarks.listens --data {data} --bundle {bundle} --features {out}/listens",
        "--count 100",
        "",
    ),
    "listens-image": (
        "-m benchmarks.listens --data {data} --bundle {bundle} --features {out}/listens --level image "
        "--out {out}/listens",
        "--count 24",
        "--count 60",
    ),
    "drawn": ("-m benchmarks.drawn --data {data} --bundle {bundle} --out {out}/drawn", "--seeds 1", "--variant 1 2"),
    "bars": ("-m benchmarks.bars --data {data} --bundle {bundle} --out {out}/bars", "--count 150", ""),
    "texts": ("", "1024", "4096"),
    "merges": (
        "-m benchmarks.merges --grid {out}/area3.zarr --image {area3} --bundle {bundle}",
        "--sizes 768",
        "--sizes 1024 2048",
    ),
    "recipes": (
        "-m benchmarks.recipes --pair {out}/area3.zarr {area3} --pair {out}/cmu.zarr {cmu} --bundle {bundle}",
        "--size 512",
        "",
    ),
    "startup": ("-m benchmarks.startup --model {bundle}", "--rounds 3", ""),
    "ranks": ("-m benchmarks.ranks --grid {out}/area3.zarr --out {out}/ranks --model {bundle}", "--size 1024", ""),
    "background": (
        "-m benchmarks.background --slide {out}/cmu.zarr --out {out}/background --bundle {bundle}",
        "--only slide --region 1200,0,640,640",
        "",
    ),
    "share": ("-m benchmarks.share --grid {out}/area3.zarr --out {out}/share --model {bundle}", "--sizes 1024", ""),
}
"""Name -> the arguments of Python, what is added for reduced counts, and for those published. ``texts``: a script and
its sizes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--plan", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    done = given.out / "seconds.json"
    took: dict[str, tuple[float, float]] = json.loads(done.read_text()) if done.exists() else {}
    for name in given.only:
        words = command(name, given)
        print(" ".join(words), flush=True)
        if given.plan or name in took:
            continue
        wall, own, code = ran(words, given.out / f"{name}.log")
        if code:
            print(f"{name}: ended with {code}; see {given.out / name}.log", file=sys.stderr)
            continue
        took[name] = (round(wall, 1), round(own, 1))
        done.write_text(json.dumps(took))
    print("| figure | wall s | processor s |\n|---|---|---|")
    for name, (wall, own) in took.items():
        print(f"| {name} | {wall} | {own} |")


def command(name: str, given: argparse.Namespace) -> list[str]:
    """The words of one step."""
    common, reduced, full = STEPS[name]
    added = full if given.full else reduced
    out = given.out.resolve()
    if name == "texts":
        return ["bash", str(Path(__file__).parents[1] / "examples/text/six.sh"), str(out / "texts"), added]
    data = given.data.resolve()
    places = {"out": out, "data": data, "bundle": given.bundle, "area3": data / "rasters/oam_area3.tif",
              "cmu": data / "slides/cmu-1-small-region.svs"}  # fmt: skip
    return [sys.executable, *(word.format(**places) for word in f"{common} {added}".split())]


def ran(words: list[str], log: Path) -> tuple[float, float, int]:
    """Wall and processor seconds of a process, and how it ended."""
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with log.open("w") as file:
        code = subprocess.run(
            words, stdout=file, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": path}
        ).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, own, code


if __name__ == "__main__":
    main()
