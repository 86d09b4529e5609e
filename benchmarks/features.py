"""Which offline features see what is wrong with an image? Run with `python -m benchmarks.features`.

Held-out tiles are degraded step by step and compared with training tiles by Frechet distance. Prints one line per
encoder and degradation: the distances in units of the real-against-real one, and whether they rise at every step;
and how far two tissues are apart by the same measure.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.encoders.texture import TextureEncoder
from ssl_tilegen.metrics.frechet import frechet_distance
from ssl_tilegen.metrics.probes import linear_probe, scores
from ssl_tilegen.system.device import tune_allocator

Embed = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--side", type=int, default=224)
    options = parser.parse_args()
    tune_allocator()
    train, train_labels = tiles(options.data / "tiles/he/train", options.side, 1)
    held, labels = tiles(options.data / "tiles/he/val", options.side, 2)
    texture = TextureEncoder(options.side)
    bundle = BundleEncoder(ModelBundle.load("tiny"))
    encoders: dict[str, Embed] = {
        f"texture {texture.dim}": texture.embed, "random convolutions": RandomNetwork().embed,
        "bundle": lambda x: cut(bundle, x),
    }  # fmt: skip
    for name, embed in encoders.items():
        real, own = batched(embed, train), batched(embed, held)
        base = frechet_distance(real, own)
        apart = frechet_distance(real[train_labels == 0], real[train_labels == 1])
        probe = scores(linear_probe(real, train_labels, own, 3), labels).accuracy
        facts = f"dim {real.shape[1]}, real-real {base:.3f}, two tissues {apart / base:.1f}, probe {probe:.3f}"
        print(f"{name}: {facts}", flush=True)
        for kind, steps in DEGRADED.items():
            ratios = [frechet_distance(real, batched(embed, steps(held, i))) / base for i in range(4)]
            rising = all(a < b for a, b in zip([1.0, *ratios], ratios, strict=False))
            verdict = "rising" if rising else "NOT RISING"
            print(f"  {kind:8}" + "".join(f"{r:9.2f}" for r in ratios), verdict, flush=True)


def tiles(folder: Path, side: int, per_group: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``per_group`` images of every group, uint8 (N, side, side, 3), and labels."""
    found, labels = [], []
    for label, kind in enumerate(("benign", "adenocarcinoma", "squamous")):
        groups: dict[str, list[Path]] = {}
        for path in sorted((folder / kind).glob("*.jpg")):
            groups.setdefault(path.name.split("_")[0], []).append(path)
        for paths in groups.values():
            found += [np.asarray(Image.open(p).convert("RGB"))[:side, :side] for p in paths[:per_group]]
            labels += [label] * len(paths[:per_group])
    return np.stack(found), np.array(labels)


def batched(embed: Embed, x: np.ndarray) -> np.ndarray:
    return np.concatenate([embed(x[i : i + 32]) for i in range(0, len(x), 32)])


def cut(encoder: BundleEncoder, x: np.ndarray) -> np.ndarray:
    """Mean over the 64 px cells of every tile."""
    side, n = encoder.tile_px, x.shape[1] // encoder.tile_px
    cells = x[:, : n * side, : n * side].reshape(len(x), n, side, n, side, 3).swapaxes(2, 3)
    return encoder.embed(np.ascontiguousarray(cells.reshape(-1, side, side, 3))).reshape(len(x), n * n, -1).mean(1)


class RandomNetwork:
    """Four strided convolutions with fixed random weights; mean and spread of every channel of every layer."""

    def __init__(self) -> None:
        rng, before, self.layers = np.random.default_rng(0), 3, []
        for width in (16, 32, 48, 64):
            self.layers.append(rng.normal(0, (2 / (before * 9)) ** 0.5, (width, before, 3, 3)).astype(np.float32))
            before = width

    def embed(self, x: np.ndarray) -> np.ndarray:
        import torch

        y, parts = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1, []
        for weight in self.layers:
            y = torch.nn.functional.conv2d(y, torch.from_numpy(weight), stride=2, padding=1).relu()
            parts += [y.mean((2, 3)), y.std((2, 3))]
        return torch.cat(parts, 1).numpy()


def _blur(x: np.ndarray, step: int) -> np.ndarray:
    sigma = (0.6, 1.2, 2.4, 4.8)[step]
    return gaussian_filter(x.astype(np.float32), (0, sigma, sigma, 0)).round().astype(np.uint8)


def _noise(x: np.ndarray, step: int) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, (4, 8, 16, 32)[step], x.shape)
    return (x + noise).clip(0, 255).astype(np.uint8)


def _jpeg(x: np.ndarray, step: int) -> np.ndarray:
    return np.stack([_recoded(tile, (60, 35, 15, 5)[step]) for tile in x])


def _recoded(tile: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _colour(x: np.ndarray, step: int) -> np.ndarray:
    shift = np.array([1.0, -0.5, 0.3]) * (6, 12, 24, 48)[step]
    return (x + shift).clip(0, 255).astype(np.uint8)


def _shuffle(x: np.ndarray, step: int) -> np.ndarray:
    """Square pieces put in random order: right texture, wrong structure, and seams."""
    side = (112, 56, 28, 14)[step]
    n, rng = x.shape[1] // side, np.random.default_rng(0)
    pieces = x[:, : n * side, : n * side].reshape(len(x), n, side, n, side, 3).swapaxes(2, 3)
    pieces = pieces.reshape(len(x), n * n, side, side, 3)
    pieces = np.stack([tile[rng.permutation(n * n)] for tile in pieces])
    return pieces.reshape(len(x), n, n, side, side, 3).swapaxes(2, 3).reshape(len(x), n * side, n * side, 3)


DEGRADED: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "blur": _blur, "noise": _noise, "jpeg": _jpeg, "colour": _colour, "shuffle": _shuffle,
}  # fmt: skip


if __name__ == "__main__":
    main()
