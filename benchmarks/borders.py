"""Does what a prior draws go on from cell to cell? Run with
`python -m benchmarks.borders --bundle FOLDER --table prior.csv --cache FOLDER`.

Grids of every label are sampled, their layout part is decoded into a coarse image,
and the change across the borders of cells is set against the change elsewhere (``metrics.seams``). The same is done
with the real cells of the prior's own table, whose embeddings `train prior` keeps in ``OUT/prior/cache``. Real layout
parts do not meet exactly either, for they are principal components. Prints one JSON line per label, and their mean.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.metrics.seams import seam_score
from ssl_tilegen.prior.prompt_encoder import PromptEncoder, prior_of
from ssl_tilegen.prior.sampling import sample_prior
from ssl_tilegen.prior.scene import Region
from ssl_tilegen.training.data.prior_cells import Piece, pieces_of
from ssl_tilegen.training.data.prior_table import PriorRow, read_table
from ssl_tilegen.training.prior import coarse_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=4, help="what the prior was trained with")
    parser.add_argument("--cells", type=int, default=12, help="side of a drawn grid")
    parser.add_argument("--count", type=int, default=2, help="drawn grids per label")
    parser.add_argument("--out", type=Path, help="folder for the coarse images")
    options = parser.parse_args()
    bundle = ModelBundle.load(options.bundle)
    rows = read_table(options.table)
    pieces, _ = pieces_of(rows, bundle, options.turns, 0, options.cache, print)
    scores = []
    for label in prior_of(bundle).names:
        found = drawn_score(label, bundle, options), real_score(label, rows, pieces, bundle)
        scores.append(found)
        print(json.dumps({"label": label, "drawn": round(found[0], 3), "real": round(found[1], 3)}), flush=True)
    drawn, real = np.mean(scores, 0)
    print(json.dumps({"label": "mean of all", "drawn": round(float(drawn), 3), "real": round(float(real), 3)}))


def drawn_score(label: str, bundle: ModelBundle, options: argparse.Namespace) -> float:
    info = prior_of(bundle)
    condition, _ = PromptEncoder(bundle, info)(Region(label=label))
    field = np.broadcast_to(condition[:, None, None], (len(condition), options.cells, options.cells)).copy()
    images = [
        coarse_image(sample_prior(bundle.prior, field, info.sampling, seed).embedding, bundle)
        for seed in range(options.count)
    ]
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(images, 1)).save(options.out / f"{label.replace(' ', '-')}.png")
    return mean_score(images, options.cells)


def real_score(label: str, rows: list[PriorRow], pieces: list[Piece], bundle: ModelBundle) -> float:
    own = [piece for piece in pieces if rows[piece.row].label == label and (piece.state > 0).all()]
    chosen = own[:: max(1, len(own) // 100)][:100]
    return float(np.mean([mean_score([coarse_image(p.cells, bundle)], p.cells.shape[0]) for p in chosen]))


def mean_score(images: list[np.ndarray], cells: int) -> float:
    """The seam score at the borders of cells."""
    return float(np.mean([seam_score(image, image.shape[0] // cells) for image in images]))


if __name__ == "__main__":
    main()
