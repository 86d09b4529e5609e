"""Wall clock and peak memory of `generate` at growing sizes.

Run with `python -m benchmarks.large --grid EMB.zarr --out FOLDER`.

Each size runs as a process of its own, as a user would run it, with default settings; more words go to `generate`.
Prints one JSON line per size and the ratios to the first one, and checks that OpenSlide and GDAL open the file.
``peak_gib`` is the process's own memory (RssAnon, looked at ten times a second), ``peak_with_files_gib`` counts the
pages of mapped files too, which the system drops when it needs room.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import rasterio

_RUN = """
import json, resource, sys, threading, time
from ssl_tilegen.cli import main
started, peak, over = time.perf_counter(), [0], threading.Event()

def watch():
    while not over.wait(0.1):
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        peak[0] = max(peak[0], int(status["RssAnon"].split()[0]))

watcher = threading.Thread(target=watch)
watcher.start()
try:
    main()
finally:
    over.set()
    watcher.join()
    facts = {"wall_s": round(time.perf_counter() - started, 1), "peak_gib": round(peak[0] / 2**20, 3),
             "peak_with_files_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)}
    print(json.dumps(facts), file=sys.stderr)
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
        facts |= opened(options.out / f"{size}.ome.tif")
        print(json.dumps(facts), flush=True)


def opened(path: Path) -> dict[str, object]:
    """What two readers say of a file."""
    with openslide.OpenSlide(path) as slide, rasterio.open(path) as raster:
        corner = slide.read_region((slide.dimensions[0] - 64, slide.dimensions[1] - 64), 0, (64, 64))
        last = raster.read(window=((raster.height - 64, raster.height), (raster.width - 64, raster.width)))
        same = (np.asarray(corner)[..., :3].transpose(2, 0, 1) == last).all()
        return {"openslide": slide.dimensions, "levels": slide.level_count, "rasterio": (raster.width, raster.height),
                "same_corner": bool(same), "bigtiff": path.open("rb").read(4)[2] == 43,
                "gib": round(path.stat().st_size / 2**30, 2)}  # fmt: skip


if __name__ == "__main__":
    main()
