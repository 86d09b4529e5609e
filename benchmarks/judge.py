"""Held-out tiles beside what a bundle paints from their embeddings, in ImageNet features that it was not trained on.

    python -m benchmarks.judge --data DATA [--bundle tiny] [--only he more aerial] [--variant 1 2] [--sheet FOLDER]

One JSON line per set of images and network. ``halves`` is the Frechet distance between two halves of the real tiles
(of other fields where the files say which), in 64 principal components of the pooled features of all. The features are
those of EfficientNet-Lite, of the variants given. ``painted`` is the distance of one half painted to the other half
real, the mean of both ways; ``autoencoder`` is the same for the autoencoder alone. Painted H&E tiles are saved as JPEG
as the real ones were. Where tiles overlap, halves share pixels, so that no picture made anew can come as near to one:
``apart`` has halves, painted and autoencoder for the ``apart_n`` tiles that share none. ``spread``: the variance of the
painted and of the autoencoded tiles' features in these components, the real one being 1. ``first``, ``cosine``: the
painted 64 px cells among all real ones by the bundle's own encoder. ``chroma``: the 99.5th percentile of CIELAB chroma,
real and painted. ``detail``: how strong the two finest octaves of lightness (less a Gaussian of 1 px; between those of
1 and 2 px) are in painted tiles, the real ones being 1 (the geometric mean over tiles of the ratio of deviations).
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.metrics.frechet import frechet_distance
from ssl_tilegen.nets.efficientnet_lite import EfficientNetLite, load_packaged
from ssl_tilegen.workflows.augment.paint_stack import develop_stack, paint_stack

COMPONENTS, TILE_PX, QUALITY, TILES, STACK = 64, 224, 75, 360, 16
Images = list[np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--only", nargs="*", default=["he", "more", "aerial"], choices=["he", "more", "aerial"])
    parser.add_argument("--variant", type=int, nargs="+", default=[1], help="of EfficientNet-Lite, 0 to 4")
    parser.add_argument("--sheet", type=Path, help="folder for eight (real, painted) pairs of each set, evenly spaced")
    given = parser.parse_args()
    bundle, judges = ModelBundle.load(given.bundle), {variant: Judge(variant) for variant in given.variant}
    for name in given.only:
        real, half, apart = {"he": lung, "more": other_organs, "aerial": town}[name](given.data)
        painted = paint_tiles(bundle, real)
        through = [autoencoded(bundle, tile) for tile in real]
        saved = saved_as_jpeg if name == "he" else (lambda image: image)
        found = own_cells(bundle, real, painted) | {"detail": detail(real, [saved(i) for i in painted])}
        for variant, judge in judges.items():
            facts = judge.compared(real, half, apart, [saved(i) for i in painted], [saved(i) for i in through])
            print(json.dumps({"set": name, "n": len(real), "network": variant} | facts | found), flush=True)
        if given.sheet:
            save_pairs(given.sheet / f"{name}.png", real, painted)


class Judge:
    """A pretrained network that neither the bundle nor its discriminator has seen."""

    def __init__(self, variant: int) -> None:
        self.net = EfficientNetLite(variant)
        self.net.load_state_dict(load_packaged(variant), strict=False)
        self.net.eval()

    @torch.inference_mode()
    def features(self, images: Images) -> np.ndarray:
        """(N, 1280), the mean over space of the last feature map."""
        batches = (np.stack(images[first : first + 16]) for first in range(0, len(images), 16))
        tensors = (torch.from_numpy(batch).movedim(-1, 1).float() / 127.5 - 1 for batch in batches)
        return np.concatenate([self.net(batch)[0].mean((2, 3)).double().numpy() for batch in tensors])

    def compared(
        self, real: Images, half: np.ndarray, apart: np.ndarray, painted: Images, through: Images
    ) -> dict[str, Any]:
        """The figures of the module's docstring; ``half`` and ``apart`` are 0 or 1, or -1 for tiles left out."""
        features = self.features(real)
        mean = features.mean(0)
        basis = np.linalg.eigh(np.cov((features - mean).T))[1][:, ::-1][:, :COMPONENTS]
        sets = [(f - mean) @ basis for f in (features, self.features(painted), self.features(through))]

        def across(made: np.ndarray, half: np.ndarray) -> float:
            first, second = half == 0, half == 1
            ways = ((made[a], sets[0][b]) for a, b in ((first, second), (second, first)))
            return round(float(np.mean([frechet_distance(one, other) for one, other in ways])), 2)

        names = ("halves", "painted", "autoencoder")
        variance, *others = (float(f.var(0).sum()) for f in sets)
        return {name: across(made, half) for name, made in zip(names, sets, strict=True)} | {
            "apart": [across(made, apart) for made in sets],
            "apart_n": int((apart >= 0).sum()),
            "spread": [round(other / variance, 2) for other in others],
        }


Tiles = tuple[Images, np.ndarray, np.ndarray]
"""Tiles, the half of each (0 or 1), and the half among tiles that share no pixels (-1: not among these)."""


def lung(data: Path) -> Tiles:
    """The first tiles of every field of view of the held-out lung tiles; fields alternate between the halves."""
    found = lung_files(data)
    half = np.array([n % 2 for n, _ in found])
    return [np.asarray(Image.open(p).convert("RGB")) for _, p in found], half, half


def lung_files(data: Path) -> list[tuple[int, Path]]:
    """The number of the field and the file of each, one tile of every field before any second one."""
    fields: dict[str, list[Path]] = {}
    for path in sorted((data / "tiles/he/val").glob("*/*.jpg")):
        fields.setdefault(path.parent.name + path.name.split("_")[0], []).append(path)
    ordered = sorted((place, number, path) for number, field in enumerate(fields[key] for key in sorted(fields))
                     for place, path in enumerate(field))[:TILES]  # fmt: skip
    return [(number, path) for _, number, path in ordered]


def other_organs(data: Path) -> Tiles:
    """Crops of held-out images of other organs and stains, at about 0.5 um/px."""
    folder = data / "tiles/more/val"
    files = [(path, 2 if path.parent.name == "025um" else 1) for path in sorted(folder.glob("*/*.png"))]
    return _crops(_shrunk(path, factor) for path, factor in files)


def town(data: Path) -> Tiles:
    """Crops of a town seen from the air that was never trained on."""
    from ssl_tilegen.io.raster import open_raster

    with open_raster(data / "rasters/oam_area3.tif") as raster:
        return _crops([raster.read(Window(0, 0, 2048, 2048)).rgb])


def _shrunk(path: Path, factor: int) -> np.ndarray:
    image = Image.open(path).convert("RGB")
    size = (image.width // factor, image.height // factor)
    return np.asarray(image.resize(size, Image.Resampling.BOX) if factor > 1 else image)


def _crops(images: Any) -> Tiles:
    """Overlapping crops that show anything; neighbours alternate between the halves. So do those that are apart."""
    found, half, apart = [], [], []
    for number, image in enumerate(images):
        step = 112 if min(image.shape[:2]) > 1024 else 72
        every = -(-TILE_PX // step)
        for row, col in _places(image.shape[:2], step):
            crop, steps = np.ascontiguousarray(image[row : row + TILE_PX, col : col + TILE_PX]), (row + col) // step
            if crop.std() > 6:
                found.append(crop)
                half.append(steps % 2)
                is_apart = row // step % every == 0 and col // step % every == 0
                apart.append((steps // every + number) % 2 if is_apart else -1)
    return found, np.array(half), np.array(apart)


def _places(shape: tuple[int, int], step: int) -> Iterator[tuple[int, int]]:
    rows, cols = (range(0, length - TILE_PX + 1, step) for length in shape)
    return ((row, col) for row in rows for col in cols)


def paint_tiles(bundle: ModelBundle, tiles: Images, seed: int = 0) -> Images:
    """Tiles of one size painted from the cells over each (mirrored beyond its edge), by the bundle's own recipe; the
    seed of a tile is its number after ``seed``."""
    own, size = bundle.info.sampling, Size(*tiles[0].shape[:2])
    how = SynthesisSettings(steps=own.steps, times=own.times, update=own.update, guidance=own.guidance,
                            guidance_interval=own.guidance_interval)  # fmt: skip
    painted: Images = []
    for first in range(0, len(tiles), STACK):
        fields = fields_of(bundle, tiles[first : first + STACK])
        latents = paint_stack(bundle, fields, size, range(seed + first, seed + first + len(fields)), how)
        painted += list(develop_stack(bundle, latents, size, how))
    return painted


def fields_of(bundle: ModelBundle, tiles: Images) -> list[ConditionField]:
    """The condition of each tile: one embedding per whole or mirrored cell."""
    side = bundle.info.encoder.tile_px
    spare = [(0, -length % side) for length in tiles[0].shape[:2]]
    whole = np.stack([np.pad(tile, (*spare, (0, 0)), mode="symmetric") for tile in tiles])
    cells = whole.reshape(len(tiles), whole.shape[1] // side, side, -1, side, 3).swapaxes(2, 3)
    vectors = BundleEncoder(bundle).embed(cells.reshape(-1, side, side, 3)).reshape(*cells.shape[:3], -1)
    return [ConditionField.of_grid(own, tile_px=side, stride_px=side, factor=bundle.factor) for own in vectors]


def autoencoded(bundle: ModelBundle, tile: np.ndarray) -> np.ndarray:
    image = bundle.decode(bundle.encode(tile)[None])[0].clamp(-1, 1)
    return ((image + 1) * 127.5).round().byte().movedim(0, -1).numpy()


def own_cells(bundle: ModelBundle, real: Images, painted: Images) -> dict[str, Any]:
    """How well cells of a hundred painted tiles find their own source, and how colourful both are."""
    side, count = bundle.info.encoder.tile_px, 100
    encoder, starts = BundleEncoder(bundle), range(0, TILE_PX - side + 1, side)

    def cells(images: Images) -> np.ndarray:
        tiles = np.stack([i[r : r + side, c : c + side] for i in images[:count] for r in starts for c in starts])
        parts = [encoder.embed(tiles[first : first + 64]) for first in range(0, len(tiles), 64)]
        vectors = np.concatenate(parts)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    likeness = cells(painted) @ cells(real).T
    first = float((likeness.argmax(1) == np.arange(len(likeness))).mean())
    chroma = [round(_chroma(images[:count]), 1) for images in (real, painted)]
    return {"cosine": round(float(np.diag(likeness).mean()), 3), "first": round(first, 3), "chroma": chroma}


def detail(real: Images, painted: Images) -> list[float]:
    """The strength of the two finest octaves in painted tiles, that of the real ones being 1."""
    ratios = [np.divide(_octaves(made), _octaves(own)) for own, made in zip(real, painted, strict=True)]
    return [round(float(ratio), 2) for ratio in np.exp(np.log(ratios).mean(0))]


def _octaves(image: np.ndarray) -> list[float]:
    lightness = image.mean(2)
    fine, coarse = (gaussian_filter(lightness, sigma) for sigma in (1, 2))
    return [(lightness - fine).std() + 0.5, (fine - coarse).std() + 0.5]


def _chroma(images: Images) -> float:
    values = [np.hypot(*rgb2lab(image[::2, ::2])[..., 1:].reshape(-1, 2).T) for image in images]
    return float(np.quantile(np.concatenate(values), 0.995))


def saved_as_jpeg(image: np.ndarray) -> np.ndarray:
    """An image after a round through JPEG, as the real H&E tiles were saved."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(file).convert("RGB"))


def save_pairs(path: Path, real: Images, painted: Images) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = np.linspace(0, len(real) - 1, 8).astype(int)
    rows = [np.concatenate([images[index] for index in chosen], 1) for images in (real, painted)]
    Image.fromarray(np.concatenate(rows)).save(path)


if __name__ == "__main__":
    main()
