"""Throughput of `embed` beside its parts: `python -m benchmarks.embed_speed SLIDE [--model BUNDLE]`.

In one run, in turns, tiles per second of: the encoder alone on tiles in memory (on the threads `embed` gives it; with
``--in-turn`` also one batch after the other on all cores), the reader alone (pixels cut into tiles and judged, no
network), the pipeline, and the whole command with the tissue map and the grid written. Prints whole / min(encoder,
reader), which on a GPU can reach 1, and whole / what the parts allow when they share the cores: 1 / (1/e + 1/r).
`--raw` compares reading level 0 by OpenSlide with decoding the slide's tiles directly.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.slides import tiles_of, write_slide
from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.threaded import EncoderPool
from ssl_tilegen.geometry import Lattice, Size, Window, cover
from ssl_tilegen.grids import shards
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.slide import Slide
from ssl_tilegen.io.tissue_map import TissueMap
from ssl_tilegen.system.progress import silent
from ssl_tilegen.workflows.embed.inputs import EmbedJob
from ssl_tilegen.workflows.embed.run import embed_one, load_encoder
from ssl_tilegen.workflows.embed.tiles import Rules, encode_shards
from ssl_tilegen.workflows.embed.view import open_view


class NoEncoder:
    """Takes tiles and gives zeros at once."""

    def __init__(self, other: Encoder) -> None:
        self.id, self.tile_px, self.dim, self.resolution = other.id, other.tile_px, other.dim, other.resolution
        self.normalisation, self.pooling, self.weights_sha256 = other.normalisation, other.pooling, other.weights_sha256
        self.batch = other.batch

    def embed(self, tiles: np.ndarray) -> np.ndarray:
        return np.zeros((len(tiles), self.dim), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--encoder")
    parser.add_argument("--side", type=int, default=4096, help="pixels of the slide made of the tiles of SLIDE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-turn", action="store_true")
    parser.add_argument("--raw", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open_raster(given.slide) as raster:
        tiles = tiles_of(raster.read(Window.of(raster.size)).rgb)
        slide = write_slide(Path(folder) / "s.tif", given.side, tiles)
        if given.raw:
            compare_raw(slide, given.rounds)
        else:
            settings = EmbedSettings(model=given.model, encoder=given.encoder, restart=True)
            compare(slide, settings, given.rounds, given.in_turn)


def compare(slide: Path, settings: EmbedSettings, rounds: int, in_turn: bool) -> None:
    encoder = load_encoder(settings)
    nothing = NoEncoder(encoder)
    rules = Rules(0.05, 0.1, False, settings.reading_threads)
    with open_view(slide, encoder) as view:
        lattice = Lattice(view.size, encoder.tile_px, encoder.tile_px)
        tissue, cells = TissueMap.of(view, 2), lattice.shape.area
        every = range(len(shards(lattice.shape)))
        read = view.read(Window(0, 0, encoder.tile_px * encoder.batch, encoder.tile_px)).rgb
        batch = read.reshape(encoder.batch, encoder.tile_px, encoder.tile_px, 3)

        def encode(count: int = cells) -> None:
            with EncoderPool(encoder) as pool:
                for future in [pool.submit(list(batch)) for _ in range(0, count, encoder.batch)]:
                    future.result()

        def encode_in_turn() -> None:
            for _ in range(0, cells, encoder.batch):
                encoder.embed(batch)

        def only_read() -> None:
            for _ in encode_shards(view, lattice, every, nothing, tissue, rules, silent):
                pass

        def whole() -> None:
            for _ in encode_shards(view, lattice, every, encoder, tissue, rules, silent):
                pass

        def command() -> None:
            grid = slide.with_name(f"{time.monotonic_ns()}.zarr")
            embed_one(EmbedJob(slide, grid), settings, encoder)

        encode(encoder.batch)
        works: dict[str, Callable[[], None]] = {
            "encoder": encode, "reader": only_read, "pipeline": whole, "command": command}  # fmt: skip
        if in_turn:
            works["encoder in turn"] = encode_in_turn
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
    rate = {name: cells / min(times) for name, times in seconds.items()}
    alone = max(rate["encoder"], rate.get("encoder in turn", 0.0))
    shared, least = 1 / (1 / alone + 1 / rate["reader"]), min(alone, rate["reader"])
    print(f"{cells} tiles of {encoder.tile_px} px, {encoder.id}, batch {encoder.batch}")
    print("tiles/s: " + ", ".join(f"{name} {value:.0f}" for name, value in rate.items()))
    for name in ("pipeline", "command"):
        print(
            f"{name} / min(encoder, reader) = {rate[name] / least:.3f}; / sharing the cores = {rate[name] / shared:.3f}"
        )


def compare_raw(slide: Path, rounds: int) -> None:
    """256 px tiles per second on 1 and 2 threads: OpenSlide's read_region, and the slide's tiles decoded directly.

    Windows that are tiles of the file, and windows shifted by half a tile, which meet four each.
    """
    with open_raster(slide) as direct, open_raster(slide) as plain:
        assert isinstance(direct, Slide) and isinstance(plain, Slide) and direct.tiles and plain.tiles
        plain.tiles.close()
        plain.tiles = None
        readers: dict[str, Callable[[Window], object]] = {"openslide": plain.read, "direct": direct.read}
        for shift in (0, 128):
            windows = [w.shifted(shift, shift) for w in cover(direct.size, Size(256, 256))]
            for window in windows[:8]:
                np.testing.assert_array_equal(plain.read(window).rgb, direct.read(window).rgb)
            for threads in (1, 2):
                _race(readers, windows, threads, rounds, "aligned" if not shift else "shifted")


def _race(
    readers: dict[str, Callable[[Window], object]], windows: list[Window], threads: int, rounds: int, what: str
) -> None:
    """Print tiles per second of each reader, best of ``rounds`` in turns."""
    best = dict.fromkeys(readers, 0.0)
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            for name, read in readers.items():
                started = time.perf_counter()
                list(pool.map(read, windows))
                best[name] = max(best[name], len(windows) / (time.perf_counter() - started))
    rates = ", ".join(f"{name} {rate:.0f}/s" for name, rate in best.items())
    print(f"{what}, {threads} thread(s): {rates}, {best['direct'] / best['openslide']:.2f} x")


if __name__ == "__main__":
    main()
