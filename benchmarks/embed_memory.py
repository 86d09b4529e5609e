"""Peak memory of `embed` over the slide's size: `python -m benchmarks.embed_memory SLIDE [--large 60000]`.

Slides are made by repeating the tiles of SLIDE; the encoder is a small random one, so that the pixels are the load.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.slides import tiles_of, write_slide
from ssl_tilegen.bundle import SCHEDULER, BundleInfo, EncoderInfo, save_component, write_info
from ssl_tilegen.geometry import Window
from ssl_tilegen.grids import is_complete
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.nets import build_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path, help="Where the tiles come from.")
    parser.add_argument("--small", type=int, default=6_000)
    parser.add_argument("--large", type=int, default=60_000)
    parser.add_argument("--tile", type=int, default=224, help="Pixels of a cell.")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("options", nargs="*", help="More options of embed, after --.")
    given = parser.parse_args()
    with open_raster(given.slide) as raster:
        tiles = tiles_of(raster.read(Window.of(raster.size)).rgb)
    with tempfile.TemporaryDirectory() as folder:
        bundle = _bundle(Path(folder) / "bundle", given.tile, given.dim)
        peaks = [_peak(Path(folder), side, tiles, bundle, given.options) for side in (given.small, given.large)]
    print(f"ratio {peaks[1] / peaks[0]:.3f} (at most 1.2 is wanted)")


def _bundle(folder: Path, tile_px: int, dim: int) -> Path:
    args = {"patch_size": 32, "depth": 1, "embed_dim": 96, "num_heads": 3}
    config: dict[str, Any] = {"arch": "vit_tiny_patch16_224", "tile_px": tile_px, "dim": dim, "arch_args": args}
    torch.manual_seed(0)
    save_component(build_encoder(config), folder / "encoder", config)
    facts = EncoderInfo(id="small", tile_px=tile_px, dim=dim)
    write_info(folder, BundleInfo(name="small", encoder=facts, resolutions={"he": (0.5, "um")}), SCHEDULER)
    return folder


def _peak(folder: Path, side: int, tiles: list[bytes], bundle: Path, options: list[str]) -> float:
    """MiB resident at most while a slide of ``side`` px is embedded in a process of its own."""
    slide = write_slide(folder / f"{side}.tif", side, tiles)
    command = [sys.executable, "-m", "ssl_tilegen", "embed", str(slide), "--model", str(bundle), "--device", "cpu"]
    started = time.perf_counter()
    job = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(job.pid, 0)
    assert status == 0 and is_complete(slide.with_suffix(".zarr"))
    peak = usage.ru_maxrss / 1024
    print(f"{side} px: {peak:.0f} MiB at most, {time.perf_counter() - started:.0f} s", flush=True)
    return peak


if __name__ == "__main__":
    main()
