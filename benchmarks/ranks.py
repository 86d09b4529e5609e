"""How much faster many processes paint one image.

Run with `python -m benchmarks.ranks --grid EMB.zarr --out FOLDER`; more words go to `generate`.

Every process has one thread. Prints one JSON line per count, with the largest difference of
pixels from the first one's. `make_s` is painting and developing, `wall_s` everything from the start of the processes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", default="4096")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    options, extra = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    first, image = None, None
    for ranks in options.ranks:
        facts = {"ranks": ranks, **painted(options, ranks, extra)}
        pixels = tifffile.imread(options.out / f"{ranks}.tif").astype(np.int16)
        image, first = pixels if image is None else image, first or facts
        facts["faster"] = round(first["make_s"] / facts["make_s"], 3)
        facts["max_difference"] = int(np.abs(pixels - image).max())
        print(json.dumps(facts), flush=True)


def painted(options: argparse.Namespace, ranks: int, extra: list[str]) -> dict[str, float]:
    """Start the processes as torchrun would; the first one's report."""
    words = ["generate", "--grid", str(options.grid), "--size", options.size, "-o", str(options.out / f"{ranks}.tif"),
             "--overwrite", "--restart", "--json", *extra]  # fmt: skip
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    processes = [
        subprocess.Popen([sys.executable, "-m", "ssl_tilegen", *words], stdout=subprocess.PIPE, text=True,
                         env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(ranks)
    ]  # fmt: skip
    answers = [process.communicate()[0] for process in processes]
    report = json.loads(answers[0])
    make_s = report["paint_s"] + report["develop_s"]
    return {"make_s": round(make_s, 2), "paint_s": report["paint_s"], "develop_s": report["develop_s"],
            "wall_s": round(time.perf_counter() - started, 1)}  # fmt: skip


if __name__ == "__main__":
    main()
