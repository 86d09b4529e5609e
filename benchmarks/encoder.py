"""What an encoder keeps and leaves out: `python -m benchmarks.encoder [--bundle FOLDER | --encoder NAME]`.

One JSON line per figure. For a slide and a raster: the cells of the image moved by 8 px, and mirrored, look for their
own cell among all of the unmoved image (cosine to it, first, among five): a grid means little for generation where a
shift by an eighth of a tile loses the cell. For the H&E tiles: k-nearest-neighbour classes of held-out tiles, each
the mean of nine cells; train and val share no field of view.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.geometry import Lattice, Size, Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.view import RasterView, view_at
from ssl_tilegen.metrics.retrieval import retrieval
from ssl_tilegen.workflows.embed.run import load_encoder

SHIFT_PX, NEIGHBOURS, CELLS_A_SIDE = 8, 10, 3
IMAGES = ("slides/cmu-1-small-region.svs", "rasters/oam_area3.tif")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--encoder", help="an encoder by name instead of the bundle's")
    parser.add_argument("--every", type=int, default=4, help="take every N-th tile of the classes")
    given = parser.parse_args()
    encoder = load_encoder(EmbedSettings(model=given.bundle, encoder=given.encoder))
    print(json.dumps({"encoder": encoder.id, "dim": encoder.dim, "tile_px": encoder.tile_px}), flush=True)
    for name in IMAGES:
        for change, facts in robustness(encoder, given.data / name).items():
            print(json.dumps({"figure": change, "image": name} | facts), flush=True)
    print(json.dumps({"figure": "kNN"} | classes(encoder, given.data / "tiles/he", given.every)), flush=True)


def robustness(encoder: Encoder, path: Path) -> dict[str, dict[str, float]]:
    """Retrieval of the cells of the image moved and mirrored, among its own cells."""
    with open_raster(path) as raster:
        wanted = encoder.resolution
        same_unit = raster.resolution and wanted and raster.resolution.unit == wanted.unit
        view = view_at(raster, wanted) if wanted and same_unit else RasterView(raster, 1.0)
        pixels = view.read(Window.of(view.size)).rgb[:-SHIFT_PX, :-SHIFT_PX]
        moved = view.read(Window.of(view.size)).rgb[SHIFT_PX:, SHIFT_PX:]
    own = _cells(encoder, pixels)
    changed = {f"moved by {SHIFT_PX} px": _cells(encoder, moved), "mirrored": _cells(encoder, pixels, mirrored=True)}
    return {name: _rounded(asdict(retrieval(cells, own))) for name, cells in changed.items()}


def _cells(encoder: Encoder, pixels: np.ndarray, *, mirrored: bool = False) -> np.ndarray:
    """The vectors (N, D) of all tiles of uint8 (H, W, 3); each tile mirrored by itself if asked."""
    lattice = Lattice(Size(*pixels.shape[:2]), encoder.tile_px, encoder.tile_px)
    tiles = (pixels[lattice.window(r, c).slices] for r, c in np.ndindex(lattice.shape.rows, lattice.shape.cols))
    return _embedded(encoder, (tile[:, ::-1] if mirrored else tile for tile in tiles))


def classes(encoder: Encoder, folder: Path, every: int) -> dict[str, float]:
    """Share of val tiles whose class most of their nearest train tiles have, by cosine."""
    (known, labels), (asked, truth) = (_described(encoder, folder / part, every) for part in ("train", "val"))
    nearest = np.argsort(-(asked @ known.T), axis=1)[:, :NEIGHBOURS]
    votes = (labels[nearest][..., None] == np.unique(labels)).sum(1)
    right = np.unique(labels)[votes.argmax(1)] == truth
    per_class = {name: right[truth == name].mean() for name in np.unique(truth)}
    return {"k": NEIGHBOURS, "train": len(known), "val": len(asked)} | _rounded({"accuracy": right.mean()} | per_class)


def _described(encoder: Encoder, folder: Path, every: int) -> tuple[np.ndarray, np.ndarray]:
    """(unit vectors (N, D), class names (N,)) of every N-th tile of a folder."""
    paths = sorted(folder.glob("*/*.jpg"))[::every]
    vectors = _embedded(encoder, (cell for path in paths for cell in _nine(path, encoder.tile_px)))
    means = vectors.reshape(len(paths), CELLS_A_SIDE**2, -1).mean(1)
    return means / np.linalg.norm(means, axis=1, keepdims=True), np.array([path.parent.name for path in paths])


def _nine(path: Path, tile_px: int) -> list[np.ndarray]:
    """Nine tiles spread evenly over an image, enlarged where it is smaller than one."""
    image = Image.open(path).convert("RGB")
    scale = max(1.0, tile_px / min(image.size))
    pixels = np.asarray(image.resize((round(image.width * scale), round(image.height * scale))))
    rows, cols = (np.linspace(0, side - tile_px, CELLS_A_SIDE).astype(int) for side in pixels.shape[:2])
    return [pixels[row : row + tile_px, col : col + tile_px] for row in rows for col in cols]


def _embedded(encoder: Encoder, tiles: Iterable[np.ndarray]) -> np.ndarray:
    """(N, D) of any number of tiles, a batch at a time."""
    found, batch = [], []
    for tile in tiles:
        batch.append(tile)
        if len(batch) == encoder.batch:
            found.append(encoder.embed(np.stack(batch)))
            batch.clear()
    return np.concatenate([*found, encoder.embed(np.stack(batch))] if batch else found)


def _rounded(facts: dict[str, float]) -> dict[str, float]:
    return {name: value if isinstance(value, int) else round(float(value), 4) for name, value in facts.items()}


if __name__ == "__main__":
    main()
