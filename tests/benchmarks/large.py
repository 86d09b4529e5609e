"""Wall clock and peak memory of `generate` at growing sizes.

Run with `python -m tests.benchmarks.large --grid EMB.zarr --out FOLDER`.

Each size runs as a process of its own, as a user would run it, with default settings. Prints one JSON line per size and
the ratios to the first one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

_RUN = """
import json, resource, sys, time
from ssl_tilegen.cli import main
started = time.perf_counter()
try:
    main()
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"wall_s": round(time.perf_counter() - started, 1), "peak_gib": round(peak, 2)}), file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 4096])
    options, extra = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    first = None
    for size in options.sizes:
        words = ["generate", "--grid", str(options.grid), "--size", str(size), "--overwrite", "--restart"]
        words += ["-o", str(options.out / f"{size}.ome.tif"), *extra]
        done = subprocess.run([sys.executable, "-c", _RUN, *words], capture_output=True, text=True, check=True)
        facts = {"size": size, **json.loads(done.stderr.splitlines()[-1])}
        first = first or facts
        facts["wall_ratio"] = round(facts["wall_s"] / first["wall_s"], 2)
        facts["peak_ratio"] = round(facts["peak_gib"] / first["peak_gib"], 2)
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
