"""How fast pyramids are written, in megapixels of the finest level per second.

Run with `python -m benchmarks.writers --image IMAGE --out FOLDER`.

The image (a real one: noise does not compress) is repeated over ``--size`` px and given in bands of 1024 rows, as
`generate` gives them. Counts everything from the first row to the finished file; one JSON line per kind of file.
`mpx_per_core_s` is per second of work, of all threads: a machine that is busy with other things changes it less.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.io.pyramid import ImageSpec, open_writer
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.system.resources import cores

_BAND_ROWS = 1024
KINDS = (("a.ome.tif", "jpeg"), ("a.tif", "deflate"), ("a.ome.tif", "zstd"), ("a.zarr", "zstd"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=8192)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with open_raster(options.image) as raster:
        rgb = raster.read(Window.of(raster.size)).rgb
    size = Size(options.size, options.size)
    for name, compression in KINDS:
        path = options.out / name
        given = list(bands(rgb, size))
        started, used = time.perf_counter(), time.process_time()
        spec = ImageSpec(size, Resolution(0.5, "um"), compression=compression)
        with open_writer(path, spec, overwrite=True, restart=True) as writer:
            for band in given:
                writer.write(band)
        seconds, busy = time.perf_counter() - started, time.process_time() - used
        whole = path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        print(json.dumps({"kind": name.removeprefix("a"), "compression": compression, "size": options.size,
                          "cores": cores(), "mpx_per_s": round(size.area / 1e6 / seconds, 1),
                          "mpx_per_core_s": round(size.area / 1e6 / busy, 1),
                          "bits_per_px": round(8 * whole / size.area, 2)}), flush=True)  # fmt: skip
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def bands(rgb: np.ndarray, size: Size) -> Iterator[np.ndarray]:
    """``rgb`` (1024 rows or more) side by side over ``size``; views, so that this costs nothing."""
    across = -(-size.cols // rgb.shape[1])
    wide = np.tile(rgb, (2, across, 1))[:, : size.cols]
    for first in range(0, size.rows, _BAND_ROWS):
        yield wide[first % len(rgb) :][: min(_BAND_ROWS, size.rows - first)]


if __name__ == "__main__":
    main()
