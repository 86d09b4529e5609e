"""The sets that `evaluate` compares: folders, slides, rasters and images, cut into windows of one size; or grids."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_tilegen.errors import FormatError, InputError, ResolutionError, TilegenError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.grids import EmbeddingGrid, is_grid
from ssl_tilegen.io.image_files import is_image
from ssl_tilegen.io.jpeg_quality import storage_of
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.base import Raster
from ssl_tilegen.io.tissue_map import TissueMap
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.system.budget import check_memory, check_pixels
from ssl_tilegen.workflows.labelled_images import group_of, read_manifest

LEAST_PX, MOST_PX = 32, 256
_LARGE = 4  # windows a side from which an image counts as large
_BLOCK = 4  # windows a side of the blocks of a large image that are resampled together
_LEAST_TISSUE, _MOST_MISSING, _ENOUGH = 0.05, 0.1, 500
_SAME_RESOLUTION = 0.01
_KEPT_OPEN = 4
_PLACE_BYTES = 600  # of a window, its group and its part of the key of the cache


@dataclass(frozen=True)
class Image:
    """One image of a set: ``size`` of its level 0, ``resolution`` if it says any, ``storage`` by `storage_of`."""

    path: Path
    group: str
    size: Size
    resolution: Resolution | None
    storage: str


@dataclass(frozen=True)
class ImageSet:
    """``images`` of a path and ``skipped`` ones (path, why); or ``grids`` of embeddings instead of images.

    ``left_out``: images that a manifest says are of the other kind.
    """

    path: Path
    images: tuple[Image, ...] = ()
    skipped: tuple[tuple[Path, str], ...] = ()
    left_out: int = 0
    grids: tuple[EmbeddingGrid, ...] = field(default=(), compare=False)

    @property
    def storage(self) -> dict[str, float]:
        """Share of the images by how they were stored."""
        counts = Counter(image.storage for image in self.images)
        return {kind: count / len(self.images) for kind, count in counts.most_common()}


class Place(NamedTuple):
    """A window of an image: level-0 pixels per window pixel, and the window in those pixels."""

    image: Image
    window: Window
    factor: float


def read_set(path: Path, *, kind: str = "", if_unknown: Resolution | None = None) -> ImageSet:
    """The images at ``path``: a folder (searched to any depth), one image, one grid, or a folder of grids.

    ``kind``: real or synthetic; images of which the manifest that `augment` writes says the other are left out.
    Images that cannot be read are listed and left out. InputError where nothing is left.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the path")
    grids = [path] if is_grid(path) else sorted(p for p in path.glob("*.zarr") if is_grid(p)) if path.is_dir() else []
    found = [path] if not path.is_dir() or is_image(path) else sorted(_images_in(path))
    if grids and not (found and path.is_dir() and not is_grid(path)):
        return ImageSet(path, grids=tuple(EmbeddingGrid.open(p) for p in grids))
    if not found:
        raise InputError(f"{path}: no images there; give a folder of images, slides or rasters, or a grid")
    others = _of_other_kind(path, kind)
    own = [p for p in found if p not in others]
    if not own:
        raise InputError(f"{path}: its manifest says that none of its images are {kind}; give another folder")
    part = described(path, [(p, _group(p, path)) for p in own], if_unknown=if_unknown)
    return replace(part, left_out=len(found) - len(own))


def _of_other_kind(path: Path, kind: str) -> set[Path]:
    """The images of which a manifest in ``path``, or up to two folders above it, says another kind than ``kind``."""
    for folder in (path, *path.absolute().parents[:2]) if kind and path.is_dir() else ():
        rows = read_manifest(folder)
        if any(row.get("kind") for row in rows.values()):
            named = {folder / name: row.get("kind") for name, row in rows.items()}
            inside = named if folder == path else {path / p.relative_to(path.absolute()): k for p, k in named.items()
                                                   if p.is_relative_to(path.absolute())}  # fmt: skip
            return {file for file, said in inside.items() if said in ("real", "synthetic") and said != kind}
    return set()


def described(path: Path, found: Sequence[tuple[Path, str]], *, if_unknown: Resolution | None = None) -> ImageSet:
    """A set of the (path, group) pairs ``found``, each opened once; those that cannot be are skipped."""
    images, skipped = [], []
    for file, group in found:
        try:
            with open_raster(file, if_unknown=if_unknown) as raster:
                if raster.kind == "picture":
                    raster.read(Window.of(raster.size))  # an image that is cut short says so only when decoded
                images.append(Image(file, group, raster.size, raster.resolution, storage_of(file)))
        except (TilegenError, OSError) as error:
            skipped.append((file, str(error)))
    if not images:
        raise InputError(f"{path}: none of its {len(found)} images can be read; the first: {skipped[0][1]}")
    return ImageSet(path, tuple(images), tuple(skipped))


def _images_in(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if is_image(path):
            yield path
        elif path.is_dir() and not path.name.startswith(".") and path.suffix not in (".zarr", ".part"):
            yield from _images_in(path)


def _group(path: Path, root: Path) -> str:
    """Sub-folder and name's group: g012 of one class is not g012 of another."""
    inside = path.relative_to(root).parent if path != root else Path()
    return str(inside / group_of(path))


def common_resolution(sets: Sequence[ImageSet], wanted: Resolution | None = None) -> Resolution | None:
    """The resolution to read at: ``wanted``, else the coarsest where all say theirs and they differ, else None (as
    stored). ResolutionError where a set mixes um and m, or ``wanted`` is in another unit."""
    known = [image.resolution for part in sets for image in part.images]
    units = {r.unit for r in known if r}
    if wanted and units - {wanted.unit}:
        raise ResolutionError(f"{wanted}: the images are in {units.pop()}/px; give --mpp for um, --gsd for m")
    if wanted and all(known):
        return wanted
    if len(units) > 1:
        raise ResolutionError("the sets are in um/px and in m/px; tissue and ground cannot be compared")
    values = [r.value for r in known if r]
    if not known or not all(known) or max(values) / min(values) - 1 <= _SAME_RESOLUTION:
        return None
    return Resolution(max(values), units.pop())


def factor_of(image: Image, resolution: Resolution | None) -> float:
    """Level-0 pixels per pixel at ``resolution``."""
    if resolution is None or image.resolution is None:
        return 1.0
    factor = resolution.value / image.resolution.value
    return float(round(factor)) if abs(factor / max(1, round(factor)) - 1) <= _SAME_RESOLUTION else factor


def common_window(sets: Sequence[ImageSet], resolution: Resolution | None, asked: int | None = None) -> int:
    """Side of the windows that all sets are cut into: ``asked``, or the largest common one up to 256 px, halved while a
    set of larger images gives fewer than 500. InputError where there is no common size."""
    sides = [(min(i.size.rows, i.size.cols) / factor_of(i, resolution), i) for part in sets for i in part.images]
    least, smallest = min(sides, key=lambda pair: pair[0])
    if least < max(LEAST_PX, asked or 0):
        raise InputError(
            f"{smallest.path}: {smallest.size} px, no common size with the others; windows take at least "
            f"{max(LEAST_PX, asked or 0)} px" + (", give a smaller --window" if asked else ", leave it out")
        )
    side = asked or min(MOST_PX, int(least))
    while (
        not asked
        and side >= 2 * LEAST_PX
        and any(_count(part, side, resolution) < _ENOUGH and _can_be_cut(part, side, resolution) for part in sets)
    ):
        side //= 2
    return side


def _count(part: ImageSet, side: int, resolution: Resolution | None) -> int:
    sizes = (i.size.scaled(1 / factor_of(i, resolution)) for i in part.images)
    return sum((s.rows // side) * (s.cols // side) for s in sizes)


def _can_be_cut(part: ImageSet, side: int, resolution: Resolution | None) -> bool:
    """Whether all images are larger than a window, so that smaller ones show no less of them."""
    return all(min(i.size.rows, i.size.cols) / factor_of(i, resolution) >= 1.5 * side for i in part.images)


def is_large(image: Image, side: int, resolution: Resolution | None = None) -> bool:
    """Whether an image is many windows, so that seams and structure across windows can be asked for."""
    return min(image.size.rows, image.size.cols) / factor_of(image, resolution) >= _LARGE * side


def places(
    part: ImageSet, side: int, resolution: Resolution | None, *, shift: int = 0, coarser: int = 1, limit: int = 0
) -> tuple[list[Place], list[str]]:
    """Windows of ``side`` px and the group of each; in images with background only those that show tissue.

    ``shift`` px from the corner (else centred where the image is small); ``coarser``: each shows so many times more;
    ``limit``: so many at most, drawn evenly. BudgetError where they are more than memory holds.
    """
    plan = _WindowPlan(part, side, resolution, shift, coarser)
    drawn = plan.total if not limit or plan.total <= limit else limit
    check_memory(drawn * _PLACE_BYTES, f"{part.path}: {drawn:,} windows of {side} px (--limit draws fewer)")
    found = [plan.place(int(i)) for i in np.linspace(0, plan.total - 1, drawn).round()]
    return found, [_block(place) for place in found]


class _WindowPlan:
    """The windows of a set by their number, image by image and row by row. BudgetError where an image is too large."""

    def __init__(self, part: ImageSet, side: int, resolution: Resolution | None, shift: int, coarser: int) -> None:
        self._side, self._images = side, part.images
        self._factors = [factor_of(image, resolution) * coarser for image in part.images]
        self._leads, self._cells = [], []
        for image, factor in zip(part.images, self._factors, strict=True):
            check_pixels(
                image.size.rows / factor, image.size.cols / factor, f"{image.path} at {resolution or 'its own pixels'}"
            )
            size = image.size.scaled(1 / factor)
            lead = _leads(size, side, shift)
            self._leads.append(lead)
            self._cells.append((max(0, (size.rows - lead[0]) // side), max(0, (size.cols - lead[1]) // side)))
        self._ends = list(accumulate(rows * cols for rows, cols in self._cells))
        self.total = self._ends[-1] if self._ends else 0

    def place(self, number: int) -> Place:
        """The window ``number``, from 0 up to ``total`` (exclusive)."""
        at = bisect_right(self._ends, number)
        row, col = divmod(number - (self._ends[at - 1] if at else 0), self._cells[at][1])
        lead, side = self._leads[at], self._side
        window = Window(lead[0] + row * side, lead[1] + col * side, side, side)
        return Place(self._images[at], window, self._factors[at])


def _leads(size: Size, side: int, shift: int) -> tuple[int, int]:
    """Where the first window starts: at ``shift``; of a small image the middle is used."""
    small = max(size.rows, size.cols) < 2 * side
    return ((size.rows - side) // 2, (size.cols - side) // 2) if small else (shift, shift)


def _block(place: Place) -> str:
    """The group of a window: its image's, or its block of a large image, whose windows would else be one group."""
    image, window = place.image, place.window
    if max(image.size.rows, image.size.cols) / place.factor < 2 * _LARGE * window.rows:
        return image.group
    step = _BLOCK * window.rows
    return f"{image.group}@{window.row // step},{window.col // step}"


def windows(
    found: Sequence[Place], threads: int, *, after: int = -1, if_unknown: Resolution | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(index, uint8 (side, side, 3)) of the windows past index ``after``, image by image, without those that show
    background or no data."""
    start = 0
    while start < len(found):
        first, end = found[start], start
        while end < len(found) and found[end].image is first.image and found[end].factor == first.factor:
            end += 1
        if end <= after + 1:
            start = end
            continue
        with open_raster(first.image.path, if_unknown=if_unknown) as raster:
            view = RasterView(raster, first.factor)
            tissue = TissueMap.of(view, threads) if end - start > 1 else TissueMap(raster.background)
            keep = [i for i in range(max(start, after + 1), end) if tissue.fraction(found[i].window) >= _LEAST_TISSUE]
            for i, (_, pixels) in zip(keep, view.read_many((found[i].window for i in keep), threads), strict=True):
                if pixels.error is None and pixels.valid.mean() >= 1 - _MOST_MISSING:
                    yield i, pixels.rgb
        start = end


class Reader:
    """Reads single windows and keeps the last few images open. Use as a context manager."""

    def __init__(self) -> None:
        self._open: dict[Path, Raster] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for raster in self._open.values():
            raster.close()

    def read(self, place: Place) -> np.ndarray:
        """uint8 (side, side, 3) of one window."""
        raster = self._open.pop(place.image.path, None) or open_raster(place.image.path)
        self._open[place.image.path] = raster  # the last one used is the last to go
        if len(self._open) > _KEPT_OPEN:
            self._open.pop(next(iter(self._open))).close()
        return RasterView(raster, place.factor).read(place.window).rgb


def storage_warning(real: ImageSet, synthetic: ImageSet) -> str | None:
    """A line where the sets were stored differently, with the shares; None where they are alike."""
    a, b = real.storage, synthetic.storage
    apart = sum(abs(a.get(kind, 0) - b.get(kind, 0)) for kind in a.keys() | b.keys()) / 2
    if not a or not b or apart < 0.01:
        return None
    return (
        f"{apart:.0%} of the images were stored differently (real: {_shares(a)}; synthetic: {_shares(b)}): JPEG marks "
        "move every distance; compare images stored alike"
    )


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{share:.0%} {kind}" for kind, share in list(shares.items())[:4])


def same_encoder(grids: Sequence[EmbeddingGrid]) -> None:
    """FormatError where grids were made by different encoders."""
    for grid in grids[1:]:
        if grid.spec.encoder != grids[0].spec.encoder:
            raise FormatError(
                f"{grid.path}: made by {grid.spec.encoder.id}, {grids[0].path} by {grids[0].spec.encoder.id}; embed "
                "both with one encoder"
            )
