"""How much sooner one model paints than another, in turns on one machine.

    python -m benchmarks.side_by_side --image oam_area3.tif --sides tiny OLD_BUNDLE [--code . OLD_CHECKOUT] --out FOLDER

Each side is a bundle and the checkout whose code runs it (this one, unless told). Both embed the image, and then in
turns paint a crop of ``--size`` with their own defaults, and one of 192 px, for what starting costs. One JSON line for
each run, then the medians: seconds of painting and developing (by the report), processor seconds of the whole command,
and those less the small picture's, which other work on the machine changes least; ratios are to the last side.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

SMALL_PX = 192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--sides", nargs="+", required=True, help="bundles")
    parser.add_argument("--code", nargs="+", type=Path, default=[], help="a checkout for each side")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=3)
    given, extra = parser.parse_known_args()
    given.out.mkdir(parents=True, exist_ok=True)
    code = given.code or [Path.cwd()] * len(given.sides)
    if len(code) != len(given.sides):
        parser.error(f"{len(code)} checkouts for {len(given.sides)} sides")
    stems = (given.out / f"side{number}" for number in range(len(code)))
    sides = [Side(*facts) for facts in zip(given.sides, code, stems, strict=True)]
    for side in sides:
        side.embed(given.image.resolve())
    for _ in range(given.rounds):
        for side in sides:
            print(json.dumps({"side": side.model} | side.paint(given.size, extra)), flush=True)
    print("| bundle | paint and develop, s | ratio | processor, s | without start, s | ratio |")
    print("|---|---|---|---|---|---|")
    last = sides[-1].medians()
    for side in sides:
        own = side.medians()
        print(f"| {side.model} | {own['made_s']:.2f} | {last['made_s'] / own['made_s']:.2f} | {own['cpu_s']:.2f} | "
              f"{own['work_s']:.2f} | {last['work_s'] / own['work_s']:.2f} |")  # fmt: skip


class Side:
    """A bundle, the code that runs it, and what its runs took."""

    def __init__(self, model: str, code: Path, stem: Path) -> None:
        self.model, self.stem, self.runs = model, stem.resolve(), list[dict[str, float]]()
        own = {"PYTHONPATH": str(code.resolve())}
        self._environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | own

    def embed(self, image: Path) -> None:
        if not self.stem.with_suffix(".zarr").exists():
            self._run("embed", str(image), "-o", f"{self.stem}.zarr")

    def paint(self, size: int, extra: list[str]) -> dict[str, float]:
        """Seconds of one picture, and of one so small that it is all start."""
        _, start = self._generate(SMALL_PX, extra)
        report, cpu = self._generate(size, extra)
        facts = {"made_s": report["paint_s"] + report["develop_s"], "seconds": report["seconds"], "cpu_s": cpu,
                 "start_s": start, "work_s": cpu - start}  # fmt: skip
        self.runs.append(facts)
        return {name: round(value, 2) for name, value in facts.items()}

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(run[name] for run in self.runs) for name in self.runs[0]}

    def _generate(self, size: int, extra: list[str]) -> tuple[dict[str, float], float]:
        out = ["-o", f"{self.stem}.{size}.ome.tif", "--json", *extra]
        return self._run("generate", "--grid", f"{self.stem}.zarr", "--size", str(size), "--fit", "crop", *out)

    def _run(self, *words: str) -> tuple[dict[str, float], float]:
        """The report of a command, and its processor seconds."""
        command = [sys.executable, "-m", "ssl_tilegen", *words, "--model", self.model, "--device", "cpu", "--overwrite"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=self.stem.parent, env=self._environment, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
        report = json.loads(done.stdout) if "--json" in words else {}
        return report, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
