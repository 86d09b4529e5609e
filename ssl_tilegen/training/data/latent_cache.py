"""The training data of a denoiser, computed once: latents of whole images and the embeddings of their cells.

Each image is stored under several elements of D4 (flips and rotations), each with the cells of several lattice offsets.
So training windows fall anywhere between the cells, as windows of a generated canvas do. Images that are paired with a
grid are stored as they are, with the cells of that grid. Of images too large for memory, random parts are stored. The
files are ``.npz`` of some images each, in a folder named after a fingerprint of everything that went in; a stopped run
goes on after the last file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config.train import WindowSettings
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.bundle_encoder import encoder_of
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.system.atomic import writing
from ssl_tilegen.system.signals import check_stop
from ssl_tilegen.training.data.corpus import Corpus, apply_d4
from ssl_tilegen.training.data.images import TrainingImage
from ssl_tilegen.training.data.latent_cache_key import cache_folder
from ssl_tilegen.training.data.paired_grids import Grid, paired_grid

_EMBED_BATCH = 512
_PART_PX, _PART_STEP_PX = 1024, 64
_PER_FILE = 200
_STOPPED = "the latents of finished hundreds of images are kept; the same command continues"


class SceneOrigin(NamedTuple):
    """Where a scene comes from: index of the image, element of D4, and part of the image (row, col, rows, cols)."""

    image: int
    d4: int
    row: int
    col: int
    rows: int
    cols: int

    @property
    def part(self) -> Window:
        """The part of the image, in its pixels."""
        return Window(self.row, self.col, self.rows, self.cols)


@dataclass(frozen=True)
class LatentScene:
    """An image under one element of D4: raw ``latents`` (C, h, w) float16, ``dull`` and ``valid`` (h, w) bool, grids.

    ``chance`` is its share of the windows, ``group`` the number of its domain.
    """

    latents: np.ndarray
    dull: np.ndarray
    valid: np.ndarray
    grids: list[Grid]
    origin: SceneOrigin
    chance: float = 0.0
    group: int = 0


def scenes_of(
    corpus: Corpus,
    bundle: ModelBundle,
    settings: WindowSettings,
    folder: Path,
    progress: Callable[[str], None],
    count_px: Callable[[int, int], None] = lambda done, total: None,
) -> list[LatentScene]:
    """The scenes of a corpus, from the files in ``folder`` or freshly computed and kept there.

    ``count_px`` is told how many pixels are encoded, and of how many in all: images differ in size by orders.
    InputError where no image is as large as a cell; Interrupted by a signal, with the files kept that were made.
    """
    kept = cache_folder(folder, corpus.images, bundle, settings)
    kept.mkdir(parents=True, exist_ok=True)
    builder, scenes, count = _SceneBuilder(corpus, bundle, settings), list[LatentScene](), len(corpus.images)
    for first in range(0, count, _PER_FILE):
        path = kept / f"{first:06d}.npz"
        if not path.exists():
            numbers = range(first, min(first + _PER_FILE, count))
            _save(path, list(builder.scenes(numbers, count_px)), builder.rng)
        scenes += _load(path, builder.rng)
    left_out = count - len({scene.origin.image for scene in scenes})
    if not scenes:
        tile = bundle.info.encoder.tile_px
        raise InputError(f"no training image is as large as a cell ({tile} px) at its resolution")
    if left_out:
        progress(f"{left_out} of {count} images are smaller than a cell, or show nothing, and are left out")
    return _with_chances(scenes, corpus)


def _with_chances(scenes: Sequence[LatentScene], corpus: Corpus) -> list[LatentScene]:
    """Each with its share of its image's chance, and the number of its image's domain."""
    parts = Counter(scene.origin.image for scene in scenes)
    domains = [source.domain for source in corpus.settings.sources]
    known = sorted(set(domains))
    found = []
    for scene in scenes:
        image = scene.origin.image
        group = known.index(domains[corpus.images[image].source])
        found.append(replace(scene, chance=float(corpus.chances[image]) / parts[image], group=group))
    return found


class _SceneBuilder:
    """Makes scenes; its generator is drawn from in the order of the images."""

    def __init__(self, corpus: Corpus, bundle: ModelBundle, settings: WindowSettings) -> None:
        self.corpus, self.bundle, self.settings = corpus, bundle, settings
        self.rng = np.random.default_rng([settings.run.seed, 3])
        self._tile = bundle.info.encoder.tile_px
        self._budget_mib = settings.data.memory_mib // len(corpus.images)
        self._px_until = [0, *accumulate(map(self._pixels, corpus.images))]

    @cached_property
    def encoder(self) -> Encoder:
        """The bundle's encoder; not loaded where all images have grids beside them."""
        return encoder_of(self.bundle, batch=_EMBED_BATCH)

    def scenes(self, numbers: range, count_px: Callable[[int, int], None]) -> Iterator[LatentScene]:
        """Of the corpus's images ``numbers``; none of those smaller than a cell."""
        total = self._px_until[-1]
        count_px(self._px_until[numbers.start], total)
        for number in numbers:
            done = self._px_until[number]
            for scene in self._of_image(number, self.corpus.images[number]):
                yield scene
                done += scene.origin.part.size.area
                count_px(done, total)
            if done != self._px_until[number + 1]:  # parts that show nothing are left out
                count_px(self._px_until[number + 1], total)

    def _pixels(self, image: TrainingImage) -> int:
        """The pixels of an image that are encoded, in all its elements of D4."""
        if min(image.size.rows, image.size.cols) < self._tile:
            return 0
        source = self.settings.data.sources[image.source]
        size, count = _parts_wanted(image, self._budget_mib)
        return size.area * count * (1 if source.grids else source.turns)

    def _of_image(self, number: int, image: TrainingImage) -> Iterator[LatentScene]:
        check_stop(_STOPPED)
        if min(image.size.rows, image.size.cols) >= self._tile:
            for part in _parts(self.rng, image, self._budget_mib):
                yield from self._of_part(number, image, part)

    def _of_part(self, number: int, image: TrainingImage, part: Window) -> Iterator[LatentScene]:
        source = self.settings.data.sources[image.source]
        pixels, valid = image.take(part)
        if source.grids:
            grid = paired_grid(image, source.grids, self.bundle, part)
            yield self._scene(pixels, valid, [grid], SceneOrigin(number, 0, *_place(part)))
            return
        elements = self.rng.permutation(8)[: source.turns]
        for place, d4 in enumerate(elements if len(elements) > 1 else [0]):
            rgb = np.ascontiguousarray(apply_d4(pixels, int(d4)))
            rgb = self.corpus.recoloured(self.rng, rgb) if place else rgb
            its_valid = None if valid is None else apply_d4(valid, int(d4))
            origin = SceneOrigin(number, int(d4), *_place(part))
            yield self._scene(rgb, its_valid, None, origin)

    def _scene(
        self, rgb: np.ndarray, valid: np.ndarray | None, grids: list[Grid] | None, origin: SceneOrigin
    ) -> LatentScene:
        check_stop(_STOPPED)
        factor = self.bundle.factor
        rows, cols = rgb.shape[0] // factor * factor, rgb.shape[1] // factor * factor
        rgb = rgb[:rows, :cols]
        blocks = rgb.reshape(rows // factor, factor, cols // factor, factor, 3).astype(np.float32)
        whole = np.ones(rgb.shape[:2], bool) if valid is None else valid[:rows, :cols]
        return LatentScene(
            latents=self.bundle.encode_raw(rgb).astype(np.float16),
            dull=blocks.std((1, 3)).max(-1) < 4,
            valid=np.asarray(whole.reshape(rows // factor, factor, cols // factor, factor).all((1, 3))),
            grids=grids or [self._grid(rgb) for _ in range(self.settings.offsets)],
            origin=origin,
        )

    def _grid(self, rgb: np.ndarray) -> Grid:
        """Cells at a random lattice offset; small images keep as many whole cells as fit."""
        tile, step = self._tile, self.bundle.factor
        corner = []
        for length in rgb.shape[:2]:
            spare = length % tile if length < 8 * tile else tile - 1
            corner.append(int(self.rng.integers(spare // step + 1)) * step)
        return embedded_grid(self.encoder, rgb, (corner[0], corner[1]))


def embedded_grid(encoder: Encoder, rgb: np.ndarray, corner: tuple[int, int]) -> Grid:
    """The cells of (H, W, 3) uint8 on a lattice without gaps from ``corner`` (row, col) on."""
    tile = encoder.tile_px
    rows, cols = ((length - start) // tile for length, start in zip(rgb.shape[:2], corner, strict=True))
    part = rgb[corner[0] : corner[0] + rows * tile, corner[1] : corner[1] + cols * tile]
    tiles = part.reshape(rows, tile, cols, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    parts = [encoder.embed(tiles[i : i + _EMBED_BATCH]) for i in range(0, len(tiles), _EMBED_BATCH)]
    return Grid(corner, np.concatenate(parts).reshape(rows, cols, -1).astype(np.float16), tile)


def _parts_wanted(image: TrainingImage, budget_mib: int) -> tuple[Size, int]:
    """The size and the number of the stored parts of an image: all of it if it is in memory, else some within the
    budget."""
    if image.in_memory:
        return image.size, 1
    size = Size(min(_PART_PX, image.size.rows), min(_PART_PX, image.size.cols))
    return size, max(4, min((budget_mib << 20) // (3 * size.area), image.size.area // size.area))


def _parts(rng: np.random.Generator, image: TrainingImage, budget_mib: int) -> list[Window]:
    """The stored parts of an image; those of one that is not in memory are random ones with content."""
    if image.in_memory:
        return [Window.of(image.size)]
    size, wanted = _parts_wanted(image, budget_mib)
    rows, cols = size.rows, size.cols
    found: list[Window] = []
    for _ in range(50 * wanted):
        row, col = (int(rng.integers(spare + 1)) // _PART_STEP_PX * _PART_STEP_PX
                    for spare in (image.size.rows - rows, image.size.cols - cols))  # fmt: skip
        part = Window(row, col, rows, cols)
        if not image.seems_empty(part):
            found.append(part)
        if len(found) == wanted:
            break
    return found


def _place(part: Window) -> tuple[int, int, int, int]:
    return part.row, part.col, part.rows, part.cols


def _save(path: Path, scenes: list[LatentScene], rng: np.random.Generator) -> None:
    """The scenes, and the state of the generator after them."""
    state = json.dumps(rng.bit_generator.state)
    arrays: dict[str, np.ndarray] = {"count": np.array(len(scenes)), "rng": np.array(state)}
    for number, scene in enumerate(scenes):
        arrays |= {f"{number}/latents": scene.latents, f"{number}/dull": scene.dull, f"{number}/valid": scene.valid}
        arrays[f"{number}/origin"] = np.array(scene.origin)
        for k, grid in enumerate(scene.grids):
            arrays |= {f"{number}/cells{k}": grid.cells, f"{number}/corner{k}": np.array(grid.corner_px)}
            arrays[f"{number}/stride{k}"] = np.array(grid.stride_px)
    with writing(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def _load(path: Path, rng: np.random.Generator) -> list[LatentScene]:
    with np.load(path) as file:
        names = set(file.files)
        rng.bit_generator.state = json.loads(str(file["rng"]))
        return [_scene_at(file, names, number) for number in range(int(file["count"]))]


def _scene_at(file: Any, names: set[str], number: int) -> LatentScene:
    grids: list[Grid] = []
    while f"{number}/cells{len(grids)}" in names:
        k = len(grids)
        row, col = (int(v) for v in file[f"{number}/corner{k}"])
        grids.append(Grid((row, col), file[f"{number}/cells{k}"], int(file[f"{number}/stride{k}"])))
    latents, dull, valid = (file[f"{number}/{name}"] for name in ("latents", "dull", "valid"))
    return LatentScene(latents, dull, valid, grids, SceneOrigin(*map(int, file[f"{number}/origin"])))
