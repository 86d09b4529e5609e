"""Images that belong together: a synthetic one and the real one it was made from, compared pixel by pixel."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_tilegen.io.image_files import stem_of
from ssl_tilegen.metrics.fidelity import psnr, ssim
from ssl_tilegen.metrics.resampling import half_samples, interval
from ssl_tilegen.system.names import recordable
from ssl_tilegen.workflows.evaluate.features import Features
from ssl_tilegen.workflows.evaluate.image_sets import Image, ImageSet
from ssl_tilegen.workflows.evaluate.scores import Score
from ssl_tilegen.workflows.evaluate.windows import Place, Reader
from ssl_tilegen.workflows.labelled_images import read_manifest

_CLIP_DB, _CHANCE = 60.0, 100


@dataclass(frozen=True)
class PairScore:
    """Two windows that show the same place; ``cosine`` of their vectors about the real set's mean."""

    real: Place
    synthetic: Place
    psnr: float
    ssim: float
    cosine: float


class Matches(NamedTuple):
    """``pairs``: synthetic image -> real one; ``guessed``: how many of them nothing but a name speaks for."""

    pairs: dict[Image, Image]
    guessed: int

    def warning(self) -> str | None:
        """A line where pairs are guessed; None where there are none."""
        if not self.guessed:
            return None
        return (
            f"{self.guessed} of {len(self.pairs)} pairs were matched by file name alone: no manifest and no .json "
            "beside them says what they were made from; if the folders are unrelated, the pair scores mean nothing"
        )


def matched_images(real: ImageSet, synthetic: ImageSet) -> Matches:
    """Synthetic -> real: by ``source`` of the synthetic folder's manifest, else by equal names, else the two images
    where each set has one. A ``-synthetic`` at the end of a name does not count. Sizes must agree."""
    sources: dict[str, str] = {}
    if len(real.images) == len(synthetic.images) == 1:
        pairs = [(synthetic.images[0], real.images[0])]
    else:
        by_name = {_name(image, real): image for image in real.images}
        sources = _sources(synthetic)
        names = ((image, sources.get(_name(image, synthetic), _name(image, synthetic))) for image in synthetic.images)
        pairs = [(image, by_name[name]) for image, name in names if name in by_name]
    found = {made: own for made, own in pairs if made.size == own.size}
    guessed = [made for made, own in found.items() if _name(made, synthetic) not in sources and not _made_of(made, own)]
    return Matches(found, len(guessed))


def _made_of(made: Image, own: Image) -> bool:
    """Whether the .json that `generate` writes beside an image names the other as its source."""
    try:
        facts = json.loads(made.path.with_name(f"{made.path.name}.json").read_text(encoding="utf-8"))
        return facts["provenance"]["source"] == recordable(own.path.name)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _name(image: Image, part: ImageSet) -> str:
    """Path inside the set without suffix."""
    inside = image.path.relative_to(part.path) if image.path != part.path else image.path
    return str(inside.parent / stem_of(inside).removesuffix("-synthetic")) if inside.name else ""


def _sources(part: ImageSet) -> dict[str, str]:
    """Name -> name of the source as CLASS/FILE without suffix, of a folder with a manifest that says so."""
    rows = read_manifest(part.path) if part.path.is_dir() else {}
    return {_bare(path): _bare(row["source"]) for path, row in rows.items() if row.get("source")}


def _bare(path: str) -> str:
    """The last two parts of a path without suffix: its class and its name."""
    parts = path.replace("\\", "/").split("/")[-2:]
    return "/".join([*parts[:-1], stem_of(Path(parts[-1]))])


def pair_scores(pairs: dict[Image, Image], real: Features, synthetic: Features) -> list[PairScore]:
    """All windows of synthetic images whose real counterpart has a vector too, worst first."""
    at = {(p.image, p.window): i for i, p in enumerate(real.places)}
    centre = real.x.mean(0)
    found = []
    with Reader() as reader:
        for i, place in enumerate(synthetic.places):
            other = at.get((pairs[place.image], place.window)) if place.image in pairs else None
            if other is not None:
                a, b = reader.read(real.places[other]), reader.read(place)
                cosine = _cosine(real.x[other] - centre, synthetic.x[i] - centre)
                found.append(PairScore(real.places[other], place, min(psnr(a, b), _CLIP_DB), ssim(a, b), cosine))
    return sorted(found, key=lambda pair: pair.cosine)


def nearest_pairs(
    index: np.ndarray, distance: np.ndarray, synthetic: Features, other: Features, count: int, *, far: bool
) -> Iterator[tuple[Place, Place, float]]:
    """(synthetic, its nearest of ``other``, distance): the ``count`` farthest or nearest, one of each group at most."""
    seen: set[str] = set()
    for i in np.argsort(-distance if far else distance, kind="stable"):
        if len(seen) == count:
            return
        if synthetic.groups[i] not in seen:
            seen.add(synthetic.groups[i])
            yield synthetic.places[i], other.places[index[i]], float(distance[i])


def spread(pairs: Sequence[PairScore], count: int) -> list[PairScore]:
    """``count`` of ``pairs`` for the gallery: two thirds the worst, the others evenly from the rest, up to the best."""
    pairs = list({_spot(pair.synthetic): pair for pair in reversed(pairs)}.values())[::-1]
    worst = list(pairs[: max(1, 2 * count // 3)])
    rest = pairs[len(worst) :]
    more = min(count - len(worst), len(rest))
    return worst + ([rest[i] for i in np.linspace(0, len(rest) - 1, more).round().astype(int)] if more > 0 else [])


def scores_of_pairs(name: str, pairs: Sequence[PairScore], dim: int, rounds: int, seed: int) -> list[Score]:
    """Means over pairs; the baseline is two real windows of different images, or places, i.e. chance."""
    rng = np.random.default_rng(seed)
    groups = np.array([f"{p.real.image.group}@{p.real.window.row // 1024},{p.real.window.col // 1024}" for p in pairs])
    drawn = [index for (index,) in half_samples([groups], rounds, seed)] if len(pairs) > 1 else []
    others = np.sort(rng.permutation(len(pairs))[: min(_CHANCE, len(pairs) - 1)]).tolist()
    with Reader() as reader:
        chance = [(reader.read(pairs[i].real), reader.read(pairs[(i + len(pairs) // 2) % len(pairs)].real))
                  for i in others]  # fmt: skip
    rows = (
        ("psnr", "Pairs: PSNR, dB", [p.psnr for p in pairs], (0.0, np.inf), "higher", "peak signal-to-noise ratio",
         [min(psnr(a, b), _CLIP_DB) for a, b in chance]),
        ("ssim", "Pairs: SSIM", [p.ssim for p in pairs], (-1.0, 1.0), "higher", "Wang et al. 2004",
         [ssim(a, b) for a, b in chance]),
        ("pair_cosine", "Pairs: cosine about the real mean", [p.cosine for p in pairs], (-1.0, 1.0), "higher",
         "Graikos et al. 2024", [0.0]),
    )  # fmt: skip
    found = []
    for key, title, values, bounds, better, paper, by_chance in rows:
        x = np.array(values)
        own = interval(float(x.mean()), [float(x[i].mean()) for i in drawn], *bounds)
        found.append(
            Score(key, title, name, dim, len(x), len(x), *own, better=better, paper=paper,
                   baseline=float(np.mean(by_chance)) if len(by_chance) else None)
        )  # fmt: skip
    return found


def _spot(place: Place) -> tuple[Image, int, int]:
    """About where a window is, so that a gallery does not show one spot again and again."""
    return place.image, place.window.row // 256, place.window.col // 256


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
