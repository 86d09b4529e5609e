"""Which images `augment` makes: for every original its samples, each with its own seed and partner, in sheets.

A sheet is painted in one go, stored, and never done twice: up to ``batch`` samples of one size, or one large
image. Sheets are a function of the originals and the settings, so shards and resumed runs have the same ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_tilegen.config import AugmentSettings
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Size
from ssl_tilegen.io.image_files import stem_of
from ssl_tilegen.system.budget import check_memory
from ssl_tilegen.workflows.augment.inputs import Original

_MARK = 6
_SAMPLE_BYTES = 600  # of a sample with its name, and in the key of the run
_LARGE = {"slide": ".ome.tif", "map": ".tif", "picture": ".png"}


@dataclass(frozen=True)
class Sample:
    """One image to be made of ``original`` (an index), the ``k``-th of it; ``partner``: whose embedding is mixed in.

    ``seed`` belongs to (the original's name, the run's seed, k) alone. ``file`` is relative to the output's folder.
    """

    original: int
    k: int
    seed: int
    partner: int | None
    file: str


@dataclass(frozen=True)
class Sheet:
    """Samples painted together; their originals are all of ``size`` px."""

    samples: tuple[Sample, ...]
    size: Size
    level: str


def plan_sheets(originals: Sequence[Original], settings: AugmentSettings, per_sheet: int) -> list[Sheet]:
    """All sheets of a run, in a fixed order: an image's samples follow each other. BudgetError where they are more than
    memory holds."""
    count = len(originals) * settings.per_image
    check_memory(count * _SAMPLE_BYTES, f"--per-image {settings.per_image}: {count:,} images to make")
    stems = _stems(originals)
    partners = _partners(originals) if settings.mix else {}
    by_size: dict[tuple[Size, str], list[Sample]] = defaultdict(list)
    for index, original in enumerate(originals):
        for k in range(settings.per_image):
            seed = sample_seed(settings.seed, original.name, k)
            others = partners.get(index)
            partner = others[seed % len(others)] if others else None
            suffix = _LARGE.get(original.level, settings.suffix)
            file = "/".join(filter(None, (original.split, original.label, f"{stems[index]}-s{k}{suffix}")))
            by_size[original.size, original.level].append(Sample(index, k, seed, partner, file))
    return [
        Sheet(tuple(batch[first : first + step]), size, level)
        for (size, level), batch in by_size.items()
        for step in [per_sheet if level == "patch" else 1]
        for first in range(0, len(batch), step)
    ]


def sample_seed(seed: int, name: str, k: int) -> int:
    """The seed of a sample, below 2^48 so that it can be written down anywhere."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}\0{k}".encode()).digest()[:6], "big")


def check_groups(originals: Sequence[Original]) -> None:
    """InputError where the gate cannot judge a class, for it asks the images of *other* groups."""
    for label, group in single_groups(originals).items():
        raise InputError(
            f"class {label} has one group, {group}; --keep-best and --min-cosine need two or more in each class: name "
            "groups in a CSV (path,label,group), or leave the options out"
        )


def single_groups(originals: Sequence[Original]) -> dict[str, str]:
    """The classes that have but one group, with it."""
    groups = defaultdict(set)
    for original in originals:
        groups[original.label].add(original.group)
    return {label: next(iter(own)) for label, own in sorted(groups.items()) if len(own) == 1}


def _partners(originals: Sequence[Original]) -> dict[int, list[int]]:
    """For every original those it may be mixed with: of its class and split, of other groups where there are any."""
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, original in enumerate(originals):
        alike[original.label, original.split].append(index)
    found = {}
    for index, original in enumerate(originals):
        others = [other for other in alike[original.label, original.split] if other != index]
        foreign = [other for other in others if originals[other].group != original.group]
        found[index] = foreign or others
    return found


def _stems(originals: Sequence[Original]) -> list[str]:
    """Names of the outputs: the file's own, with a mark where two of a class would be called the same."""
    plain = [stem_of(original.path) for original in originals]
    places = [(o.split, o.label, stem) for o, stem in zip(originals, plain, strict=True)]
    count = Counter(places)
    marks = (hashlib.sha256(o.name.encode()).hexdigest()[:_MARK] for o in originals)
    return [
        f"{stem}-{mark}" if count[place] > 1 else stem for stem, place, mark in zip(plain, places, marks, strict=True)
    ]
