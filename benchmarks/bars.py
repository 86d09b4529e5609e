"""Does a bundle draw what real images look like, and does it copy? Run `python -m benchmarks.bars --out FOLDER`.

Patches of the training window's side are painted through the engine from the embeddings of real images, once of
training images and once of held-out ones, and compared with held-out images in two feature spaces that no generator
was trained towards: `texture` and convolutions with random weights. Prints one table, writes ``bars.json`` and
``pairs.png`` (source above generated, the first that the seed drew). Rows:

- ``real``: the very patches whose embeddings were painted; its distance is what a perfect model would have
- ``autoencoder``: the same patches through the autoencoder alone: what the decoder loses
- ``generated``; and ``... as jpeg``: saved as the real files are (H&E tiles are JPEG files, and both spaces see that)

The bar is ratio = distance of generated / distance of real, both of training embeddings to held-out images, <= 1.5.
Nearness: how often a generated patch lies nearer to its nearest training patch than a held-out real patch does to its
own (0.5: no copying). Painted from training embeddings it must lie near its own source, which is in the training set:
that row measures memorising and obedience together. Painted from held-out embeddings it is the test of copying.

About 10 minutes on two quiet cores; --count 300 about 2.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.features import RandomNetwork
from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.diffusion.decoding import to_uint8
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.encoders.texture import TextureEncoder
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.metrics.copying import share_nearer
from ssl_tilegen.metrics.distances import nearest
from ssl_tilegen.metrics.fidelity import psnr
from ssl_tilegen.metrics.frechet import frechet_distance
from ssl_tilegen.metrics.resampling import Interval, half_samples, interval
from ssl_tilegen.system.device import pick_device, tune_allocator
from ssl_tilegen.training.data.corpus import apply_d4, is_flat
from ssl_tilegen.workflows.augment.paint_stack import develop_stack, paint_stack
from ssl_tilegen.workflows.augment.patches import BLEED_LAT, cells_of
from ssl_tilegen.workflows.labelled_images import group_of

BAR, SHOWN, STACK, ROUNDS, BLOCK_PX, COARSE = 1.5, 8, 32, 20, 512, 4
Embed = Callable[[np.ndarray], np.ndarray]


class Patches(NamedTuple):
    """``rgb`` uint8 (N, S, S, 3), with a margin of context around the patch; ``group`` (N,): field, or part of an
    image."""

    rgb: np.ndarray
    group: np.ndarray

    def first(self, count: int) -> Patches:
        return Patches(self.rgb[:count], self.group[:count])


@dataclass(frozen=True)
class Domain:
    """Files of one kind: trained on with their weights, and held out. ``jpeg``: how the real files are compressed."""

    name: str
    train: dict[str, float]
    held_out: dict[str, float]
    count: int
    jpeg: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000, help="H&E patches; half as many aerial ones")
    parser.add_argument("--guidance", type=float, help="left out: the bundle's own")
    parser.add_argument("--only", choices=["he", "aerial"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tune_allocator()
    painter, started = Painter(options.bundle, options.guidance), time.perf_counter()
    spaces: dict[str, Embed] = {"texture": TextureEncoder(painter.side).embed, "random": RandomNetwork().embed}
    results, rows = [], []
    for domain in domains(options.count):
        if options.only in (None, domain.name):
            facts, pairs = measured(domain, painter, spaces, options)
            results.append(facts)
            rows += pairs
            print(table(facts), flush=True)
    sheet(rows, options.out / "pairs.png")
    seconds = round(time.perf_counter() - started)
    facts = {"bundle": painter.bundle.info.name, "sha256": painter.bundle.hash, "patch_px": painter.side,
             "sampling": painter.sampling, "seconds": seconds, "domains": results}  # fmt: skip
    (options.out / "bars.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{seconds} s; figures in {options.out / 'bars.json'}, pairs in {options.out / 'pairs.png'}")


def domains(count: int) -> list[Domain]:
    """H&E tiles, and aerial images with the weights of the recipe."""
    oam = ["oam_area1_half", "oam_area4_a", "oam_area4_b", "oam_sample2_rgba"]
    aerial = {f"rasters/{name}.tif": 0.27 / len(oam) for name in oam} | {"rasters/neon/*.tif": 0.13}
    held_out = {"rasters/oam_area3.tif": 0.75, "rasters/neon_bart.tif": 0.25}
    return [
        Domain("he", {"tiles/he/train/*/*.jpg": 1.0}, {"tiles/he/val/*/*.jpg": 1.0}, count, True),
        Domain("aerial", aerial, held_out, max(2, count // 2), False),
    ]


def measured(
    domain: Domain, painter: Painter, spaces: dict[str, Embed], options: argparse.Namespace
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """All figures of a domain, and two rows of images."""
    few = max(2, domain.count // 4)
    rng = np.random.default_rng([options.seed, domain.count])
    train = draw(options.data, domain.train, domain.count, painter.context_px, rng)
    more = draw(options.data, domain.train, domain.count, painter.context_px, rng)
    held_out = draw(options.data, domain.held_out, domain.count, painter.context_px, rng)
    reference = draw(options.data, domain.held_out, domain.count, painter.context_px, rng)
    sources = {"train": train, "held-out": held_out.first(few)}
    painted = {name: painter.painted(source.rgb) for name, source in sources.items()}
    views = {name: versions(painter, source, painted[name], domain) for name, source in sources.items()}
    real = {name: painter.core(p.rgb) for name, p in (("more", more), ("reference", reference), ("held", held_out))}
    facts: dict[str, Any] = {"domain": domain.name, "distances": [], "nearness": [], "closeness": []}
    for space, embed in spaces.items():
        known = {name: batched(embed, rgb) for name, rgb in real.items()}
        seen = {name: {kind: batched(embed, rgb) for kind, rgb in own.items()} for name, own in views.items()}
        for name, own in seen.items():
            facts["distances"] += distances(space, name, own, sources[name].group, known["reference"], reference.group)
        pool = np.concatenate([seen["train"]["real"], known["more"]])
        facts["nearness"] += nearness(space, seen, sources, pool, known["held"], held_out.group)
    facts["nearness"] += of_pixels(views, sources, real, held_out.group)
    facts["closeness"] = [closeness(name, own, sources[name].group) for name, own in views.items()]
    shown = painter.images(options.data, domain, options.seed)
    return facts, shown


class Painter:
    """Paints the middles of patches from the cells that cover them, as the generator would."""

    def __init__(self, name: str, guidance: float | None) -> None:
        self.bundle = ModelBundle.load(name, pick_device("auto"))
        self.encoder = BundleEncoder(self.bundle)
        own, tile = self.bundle.info.sampling, self.encoder.tile_px
        self.side = self.bundle.info.window_px
        self.context_px = -(-self.side // tile) * tile
        self.how = SynthesisSettings(
            steps=own.steps, times=own.times, update=own.update,
            guidance=own.guidance if guidance is None else guidance,
            guidance_interval=own.guidance_interval, bleed_lat=0,
        )  # fmt: skip
        self.sampling = {"steps": own.steps, "update": own.update, "guidance": self.how.guidance}

    def painted(self, sources: np.ndarray, first_seed: int = 0, bleed_lat: int = 0) -> np.ndarray:
        """uint8 (N, S, S, 3) of whole cells -> images of the same size painted from their embeddings.

        Without a bleed the outermost latents, which no loss ever saw, are for the caller to cut off (see ``core``).
        """
        parts, size = [], Size(*sources.shape[1:3])
        how = replace(self.how, bleed_lat=bleed_lat)
        for start in range(0, len(sources), STACK):
            cells = cells_of(self.encoder, sources[start : start + STACK])
            fields = [self._field(each) for each in cells]
            seeds = range(first_seed + start, first_seed + start + len(fields))
            latents = paint_stack(self.bundle, fields, size, seeds, how)
            parts.append(develop_stack(self.bundle, latents, size, how))
        return np.concatenate(parts)

    def _field(self, cells: np.ndarray) -> ConditionField:
        tile = self.encoder.tile_px
        return ConditionField.of_grid(cells, tile_px=tile, stride_px=tile, factor=self.bundle.factor)

    def restored(self, sources: np.ndarray) -> np.ndarray:
        """Through the autoencoder and back."""
        return np.stack([to_uint8(self.bundle.decode(self.bundle.encode(rgb)[None])[0]) for rgb in sources])

    def core(self, rgb: np.ndarray) -> np.ndarray:
        """The patches in the middle of their context."""
        first = (rgb.shape[1] - self.side) // 2
        return np.ascontiguousarray(rgb[:, first : first + self.side, first : first + self.side])

    def images(self, data: Path, domain: Domain, seed: int) -> list[np.ndarray]:
        """Held-out patches with all their context, each of another group, and what is painted from them."""
        drawn = draw(data, domain.held_out, 8 * SHOWN, self.context_px, np.random.default_rng([seed, 77]), turns=False)
        _, first = np.unique(drawn.group, return_index=True)
        chosen = [*sorted(first), *sorted(set(range(len(drawn.rgb))) - set(first))][:SHOWN]
        return [drawn.rgb[chosen], self.painted(drawn.rgb[chosen], 10**6, BLEED_LAT)]


def draw(
    data: Path, patterns: dict[str, float], count: int, side: int, rng: np.random.Generator, *, turns: bool = True
) -> Patches:
    """Random patches of the files of weighted patterns; no background, nothing without data."""
    files = {p: sorted(data.glob(p)) for p in patterns}
    weight = np.array(list(patterns.values())) / sum(patterns.values())
    images: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
    rgb: list[np.ndarray] = []
    group: list[Any] = []
    while len(rgb) < count:
        own = files[list(patterns)[rng.choice(len(patterns), p=weight)]]
        path = own[rng.integers(len(own))]
        if path not in images:
            images[path] = _read(path)
        pixels, valid = images[path]
        row, col = (int(rng.integers(n - side + 1)) for n in pixels.shape[:2])
        at = (slice(row, row + side), slice(col, col + side))
        turn = int(rng.integers(8)) if turns else 0
        if not valid[at].all() or is_flat(pixels[at]):
            continue
        rgb.append(apply_d4(pixels[at], turn))
        part = f"{row // BLOCK_PX}-{col // BLOCK_PX}" if path.suffix == ".tif" else path.parent.name
        group.append(f"{group_of(path) if path.suffix != '.tif' else path.stem}/{part}")
    return Patches(np.stack(rgb), np.array(group))


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if path.suffix == ".jpg":
        pixels = np.asarray(Image.open(path).convert("RGB"))
        return pixels, np.ones(pixels.shape[:2], bool)
    with open_raster(path) as raster:
        found = raster.read(Window.of(raster.size))
    return found.rgb, found.valid


def versions(painter: Painter, source: Patches, made: np.ndarray, domain: Domain) -> dict[str, np.ndarray]:
    """Name -> the patches of a row of the table."""
    whole = {"real": source.rgb, "autoencoder": painter.restored(source.rgb), "generated": made}
    if domain.jpeg:
        whole |= {f"{name} as jpeg": as_jpeg(whole[name]) for name in ("autoencoder", "generated")}
    return {name: painter.core(rgb) for name, rgb in whole.items()}


def as_jpeg(images: np.ndarray) -> np.ndarray:
    """Saved at the quality of the real tiles (75, colour halved), and read again."""
    out = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=75)
        out.append(np.asarray(Image.open(file)))
    return np.stack(out)


def batched(embed: Embed, x: np.ndarray) -> np.ndarray:
    return np.concatenate([embed(x[i : i + 32]) for i in range(0, len(x), 32)])


def distances(
    space: str, name: str, own: dict[str, np.ndarray], groups: np.ndarray, known: np.ndarray, known_groups: np.ndarray
) -> list[dict[str, Any]]:
    """Frechet distance of every version of the patches to the reference, and its ratio to that of the real ones."""
    whole = {kind: frechet_distance(vectors, known) for kind, vectors in own.items()}
    replicas: dict[str, list[float]] = {kind: [] for kind in own}
    for mine, theirs in half_samples([groups, known_groups], ROUNDS):
        base = frechet_distance(own["real"][mine], known[theirs])
        for kind, vectors in own.items():
            replicas[kind].append(frechet_distance(vectors[mine], known[theirs]) / base)
    return [
        {"space": space, "embeddings": name, "patches": kind, "n": len(own[kind]), "distance": round(whole[kind], 4),
         "to_own_source": round(frechet_distance(own[kind], own["real"]), 4),
         "ratio": rounded(interval(whole[kind] / whole["real"], replicas[kind], low=0.0))} for kind in own
    ]  # fmt: skip


def nearness(
    space: str, seen: dict[str, dict[str, np.ndarray]], sources: dict[str, Patches], pool: np.ndarray,
    held: np.ndarray, held_groups: np.ndarray,
) -> list[dict[str, Any]]:  # fmt: skip
    """How often at most 500 generated patches lie nearer to the training patches than held-out real ones do."""
    theirs, _ = nearest(held, pool)
    rows = []
    for name, own in seen.items():
        mine, _ = nearest(own["generated"][:500], pool)
        groups = sources[name].group[: len(mine)]
        draws = half_samples([groups, held_groups], ROUNDS)
        replicas = [share_nearer(mine[a], theirs[b]) for a, b in draws]
        rows.append({
            "space": space, "embeddings": name, "n": len(mine), "pool": len(pool),
            "nearer": rounded(interval(share_nearer(mine, theirs), replicas, 0, 1)),
            "median": [round(float(np.median(mine)), 4), round(float(np.median(theirs)), 4)],
        })  # fmt: skip
    return rows


def of_pixels(
    views: dict[str, dict[str, np.ndarray]], sources: dict[str, Patches], real: dict[str, np.ndarray],
    held_groups: np.ndarray,
) -> list[dict[str, Any]]:  # fmt: skip
    """``nearness`` by pixels, four times coarser, as they lie."""
    seen = {name: {"generated": coarse(own["generated"][:500])} for name, own in views.items()}
    pool = np.concatenate([coarse(views["train"]["real"]), coarse(real["more"])])
    return nearness("pixels", seen, sources, pool, coarse(real["held"][:500]), held_groups[:500])


def coarse(x: np.ndarray) -> np.ndarray:
    """uint8 (N, S, S, 3) -> float32 (N, D): means of squares."""
    n, side = len(x), x.shape[1] // COARSE
    cut = x[:, : side * COARSE, : side * COARSE].reshape(n, side, COARSE, side, COARSE, 3)
    return (cut.mean((2, 4), dtype=np.float32) / 255).reshape(n, -1)


def closeness(name: str, own: dict[str, np.ndarray], groups: np.ndarray) -> dict[str, Any]:
    """PSNR of generated patches to their own sources: higher on training images than on others is memorising."""
    values = np.array([psnr(a, b) for a, b in zip(own["generated"][:500], own["real"][:500], strict=True)])
    replicas = [float(values[half].mean()) for (half,) in half_samples([groups[: len(values)]], ROUNDS)]
    return {"embeddings": name, "n": len(values), "psnr_db": rounded(interval(float(values.mean()), replicas))}


def rounded(found: Interval) -> list[float]:
    return [round(float(v), 3) for v in found]


def table(facts: dict[str, Any]) -> str:
    """The figures of a domain as aligned lines."""
    lines = [f"{facts['domain']}: Frechet distance to held-out patches (bar: ratio of 'generated', train <= {BAR})"]
    for d in facts["distances"]:
        value, low, high = d["ratio"]
        lines.append(
            f"  {d['space']:8} {d['embeddings']:9} {d['patches']:20} n {d['n']:5}  distance {d['distance']:9.4f}"
            f"  ratio {value:7.2f} [{low:.2f}, {high:.2f}]  to own source {d['to_own_source']:9.4f}"
        )
    lines.append("  nearer to training patches than held-out real patches are (0.5: no copying)")
    for d in facts["nearness"]:
        value, low, high = d["nearer"]
        lines.append(
            f"  {d['space']:8} {d['embeddings']:9} n {d['n']:4}, {d['pool']} training patches  nearer {value:.3f}"
            f" [{low:.3f}, {high:.3f}]  median distance {d['median'][0]:.3f}, real {d['median'][1]:.3f}"
        )
    for d in facts["closeness"]:
        value, low, high = d["psnr_db"]
        lines.append(f"  PSNR to own source, {d['embeddings']} embeddings: {value:.2f} dB [{low:.2f}, {high:.2f}]")
    return "\n".join(lines)


def sheet(rows: Sequence[np.ndarray], out: Path) -> None:
    """Rows of images (N, H, W, 3), with gaps, as one PNG."""
    gap = 4
    padded = [np.pad(row, ((0, 0), (gap, 0), (gap, 0), (0, 0)), constant_values=255) for row in rows]
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in padded], 0)).save(out)


if __name__ == "__main__":
    main()
