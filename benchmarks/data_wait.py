"""How long do the steps of training wait for data? Trains a stage on real slides and rasters and says what share.

    python -m benchmarks.data_wait [--stage encoder|autoencoder] [--steps 60] [--readers 2] [--window-by-window]

Images are held in memory, or with --window-by-window read from their files at every step.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from ssl_tilegen.workflows.train import train

DATA = Path(os.environ.get("SSL_TILEGEN_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
NETS = {
    "encoder": 'tile_px = 64\narch = "convnext_atto"\nlocal_views = 2\nlocal_px = 48\nfit_tiles = 500\n'
    "[arch_args]\nls_init_value = 0.3\n",
    "autoencoder": "window_px = 128\n[net]\nlatent_channels = 16\n",
}
BATCH = {"encoder": 128, "autoencoder": 16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", default="autoencoder", choices=NETS)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--window-by-window", action="store_true")
    options = parser.parse_args()
    run = f"[run]\nsteps = {options.steps}\nbatch = {BATCH[options.stage]}\n"
    run += f"log_every = 10\nreaders = {options.readers}\n"
    sources = "".join(
        f'[[data.sources]]\npaths = ["{DATA / where}"]\n{how}'
        for where, how in (("slides/*.svs", "mpp = 0.499\n"), ("rasters/oam_area4_*.tif", ""))
    )
    memory = f"memory_mib = {1 if options.window_by_window else 8192}\n"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "wait.toml"
        config.write_text(f"{NETS[options.stage]}{run}[data]\n{memory}{sources}")
        train(options.stage, config, Path(folder) / "run")
        lines = (Path(folder) / "run" / options.stage / "log.jsonl").read_text().splitlines()
    waits = [record["data_wait"] for record in map(json.loads, lines) if "data_wait" in record][1:]
    held = "read window by window" if options.window_by_window else "held in memory"
    share = 100 * sum(waits) / len(waits)
    print(f"{options.stage}, images {held}, {options.readers} readers: the step waits {share:.1f} % of the time")


if __name__ == "__main__":
    main()
