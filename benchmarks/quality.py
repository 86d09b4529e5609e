"""The figures of a bundle on held-out images: run with `python -m benchmarks.quality --out FOLDER`.

Prints one JSON line per figure: autoencoder PSNR on held-out tiles and raster, and for a slide and a raster the
embed -> generate -> embed round trip: cosine of a generated cell to its own source, how often it finds its source
first among all cells (all usable ones, and tissue or ground only), and the seam score at the cells' lattice beside
that of the real image.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.judge import autoencoded
from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EmbedSettings, GenerateSettings
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.geometry import Window
from ssl_tilegen.grids import EmbeddingGrid, Validity
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.metrics.fidelity import psnr
from ssl_tilegen.metrics.retrieval import retrieval
from ssl_tilegen.metrics.seams import seam_score
from ssl_tilegen.workflows.embed.run import embed
from ssl_tilegen.workflows.generate.run import generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=int, default=4, help="take every N-th held-out tile")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bundle = ModelBundle.load(options.bundle)
    tiles = sorted((options.data / "tiles/he/val").glob("*/*.jpg"))[:: options.every]
    say(figure="psnr he/val", n=len(tiles), db=round(float(np.mean([restored(bundle, read(t)) for t in tiles])), 2))
    area = read(options.data / "rasters/oam_area3.tif")
    say(figure="content of restored cells oam_area3", cosine=round(restored_content(bundle, area), 4))
    say(figure="psnr oam_area3", db=round(restored(bundle, area), 2))
    round_trip(options.data / "slides/cmu-1-small-region.svs", ".ome.tif", options)
    round_trip(options.data / "rasters/oam_area3.tif", ".tif", options)


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def read(path: Path) -> np.ndarray:
    """All of an image at its own resolution, cut to whole latents."""
    with open_raster(path) as raster:
        rows, cols = raster.size.rows // 8 * 8, raster.size.cols // 8 * 8
        return raster.read(Window(0, 0, rows, cols)).rgb


def squares(rgb: np.ndarray, side: int) -> np.ndarray:
    """Mean colours of squares of ``side`` px."""
    rows, cols = rgb.shape[0] // side, rgb.shape[1] // side
    return rgb[: rows * side, : cols * side].reshape(rows, side, cols, side, 3).mean((1, 3))


def restored_content(bundle: ModelBundle, rgb: np.ndarray) -> float:
    """Mean cosine of the content of cells that only went through the autoencoder to that of their originals."""
    info, rows, cols = bundle.info.encoder, *(length // bundle.info.encoder.tile_px for length in rgb.shape[:2])
    images = (rgb, autoencoded(bundle, rgb))
    places = [(r * info.tile_px, c * info.tile_px) for r in range(rows) for c in range(cols)]
    one, other = (BundleEncoder(bundle).embed(np.stack([i[r : r + info.tile_px, c : c + info.tile_px]
                                                        for r, c in places]))[:, : info.dim - info.layout_dim]
                  for i in images)  # fmt: skip
    return float(((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).mean())


def restored(bundle: ModelBundle, rgb: np.ndarray) -> float:
    """PSNR in dB after the autoencoder, latents in float16, pixels in 8 bits."""
    latents = torch.from_numpy(bundle.encode_raw(rgb)).half().float()[None]
    with torch.no_grad():
        image = bundle.autoencoder.decode(latents)[0]
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().movedim(0, -1).numpy()
    return psnr(pixels, rgb)


def round_trip(source: Path, suffix: str, options: argparse.Namespace) -> None:
    grid, again = options.out / f"{source.stem}.zarr", options.out / f"{source.stem}.generated.zarr"
    image = options.out / f"{source.stem}.generated{suffix}"
    common = {"model": options.bundle, "overwrite": True}
    embed([source], EmbedSettings(out=grid, **common))
    started = time.perf_counter()
    generate(GenerateSettings(grid=grid, out=image, **common))
    seconds = time.perf_counter() - started
    embed([image], EmbedSettings(out=again, **common))
    real, made = EmbeddingGrid.open(grid).read(), EmbeddingGrid.open(again).read()
    rows, cols = (min(a, b) for a, b in zip(real.valid.shape, made.valid.shape, strict=True))
    for name, mask in (("usable", real.usable), ("tissue or ground", real.valid == Validity.OK)):
        keep = mask[:rows, :cols]
        found = retrieval(made.embedding[:rows, :cols][keep], real.embedding[:rows, :cols][keep])
        say(figure=f"round trip {source.name}", cells=name, n=found.cells, cosine=round(found.cosine, 4),
            top1=round(found.top1, 4), top5=round(found.top5, 4), generate_s=round(seconds, 1))  # fmt: skip
    tile = EmbeddingGrid.open(grid).spec.lattice.tile
    both = [squares(read(path).astype(np.float64), tile) for path in (source, image)]
    rows, cols = (min(a, b) for a, b in zip(both[0].shape[:2], both[1].shape[:2], strict=True))
    apart = both[1][:rows, :cols] - both[0][:rows, :cols]
    say(figure=f"colours {source.name}", side_px=tile, grey_levels=round(float(np.sqrt((apart**2).mean())), 2))
    say(figure=f"seams {source.name}", lattice_px=tile, real=round(seam_score(read(source), tile), 3),
        generated=round(seam_score(read(image), tile), 3))  # fmt: skip


if __name__ == "__main__":
    main()
