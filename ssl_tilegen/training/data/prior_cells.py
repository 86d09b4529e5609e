"""The cells that a prior learns from: grids as they are, and images embedded under several elements of D4."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.bundle_encoder import encoder_key, encoder_of, is_made_by_encoder_of
from ssl_tilegen.errors import FormatError, InputError
from ssl_tilegen.geometry import Resolution, Window
from ssl_tilegen.grids import EmbeddingGrid, Validity
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.salvage import readable_part
from ssl_tilegen.io.tissue import slide_background, tissue_mask
from ssl_tilegen.io.view import view_at
from ssl_tilegen.system.atomic import writing
from ssl_tilegen.system.hashing import file_state, sha256_of_json
from ssl_tilegen.training.data.corpus import apply_d4
from ssl_tilegen.training.data.latent_cache import embedded_grid
from ssl_tilegen.training.data.prior_table import PriorRow

_BACKGROUND_SHRINK = 16
_LEAST_TISSUE = 0.05
_MOST_MISSING = 0.1
_LARGE = 8  # cells along a side from which on one may be lost


@dataclass(frozen=True)
class Piece:
    """A row under one element of D4: ``cells`` (R, K, D) float16, ``state`` (R, K): 1 shows something, 0 does not
    but has an embedding all the same (background), -1 has none."""

    row: int
    cells: np.ndarray
    state: np.ndarray


@dataclass(frozen=True)
class Seen:
    """Facts of a row from its file: domain, resolution and the colour of empty ground."""

    resolution: Resolution
    background: tuple[int, int, int]


def pieces_of(
    rows: list[PriorRow], bundle: ModelBundle, turns: int, seed: int, folder: Path, progress: Callable[[str], None]
) -> tuple[list[Piece], list[Seen]]:
    """All pieces of a table and the facts of its rows, from the cache in ``folder`` or computed and kept there."""
    path = folder / f"cells-{_fingerprint(rows, bundle, turns, seed)}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _save(path, *_compute(rows, bundle, turns, seed, progress))
    return _load(path)


def _fingerprint(rows: list[PriorRow], bundle: ModelBundle, turns: int, seed: int) -> str:
    of_rows = [[str(r.path), file_state(r.file), r.shrink, r.mpp, r.gsd, str(r.region), r.turns] for r in rows]
    preprocessing = [bundle.info.encoder.model_dump(mode="json"), str(bundle.info.resolution("um"))]
    return sha256_of_json([_LARGE, of_rows, turns, seed, encoder_key(bundle), preprocessing])[:12]


def _compute(
    rows: list[PriorRow], bundle: ModelBundle, turns: int, seed: int, progress: Callable[[str], None]
) -> tuple[list[Piece], list[Seen]]:
    pieces: list[Piece] = []
    seen: list[Seen] = []
    encoder = None if all(row.is_grid for row in rows) else encoder_of(bundle)
    for number, row in enumerate(rows):
        rng = np.random.default_rng([seed, number])
        if encoder is None or row.is_grid:
            made, facts = _of_grid(number, row, bundle)
        else:
            made, facts = _of_image(number, row, bundle, encoder, row.turns or turns, rng)
        pieces += made
        seen.append(facts)
        if number % 200 == 0:
            progress(f"embedding: row {number + 1} of {len(rows)}")
    return pieces, seen


def _of_grid(number: int, row: PriorRow, bundle: ModelBundle) -> tuple[list[Piece], Seen]:
    grid = EmbeddingGrid.open(row.path)
    spec, tile = grid.spec, bundle.info.encoder.tile_px
    if not is_made_by_encoder_of(bundle, spec.encoder):
        raise FormatError(f"{row.path}: made by another encoder ({spec.encoder.id}); embed it with this bundle")
    if spec.lattice.stride != tile:
        raise FormatError(f"{row.path}: its stride is {spec.lattice.stride} px; a prior is trained on {tile}")
    if spec.resolution is None:
        raise InputError(f"{row.path}: has no resolution; embed it with --mpp or --gsd")
    cells = grid.read()
    state = np.where(cells.valid == Validity.OK, 1, np.where(cells.usable, 0, -1)).astype(np.int8)
    part = _whole_cells(row.region or Window.of(spec.lattice.size), tile)
    piece = Piece(number, cells.embedding[part], state[part])
    return [piece], Seen(spec.resolution, spec.background)


def _whole_cells(region: Window, tile: int) -> tuple[slice, slice]:
    """The cells that lie in a region of pixels, at least one."""
    starts = -(-region.row // tile), -(-region.col // tile)
    ends = region.row_end // tile, region.col_end // tile
    rows, cols = (slice(start, max(end, start + 1)) for start, end in zip(starts, ends, strict=True))
    return rows, cols


def _of_image(
    number: int, row: PriorRow, bundle: ModelBundle, encoder: Encoder, turns: int, rng: np.random.Generator
) -> tuple[list[Piece], Seen]:
    rgb, valid, seen, stained = _pixels(row, bundle)
    shows = tissue_mask_of(rgb) if stained else np.ones(rgb.shape[:2], bool)
    background = slide_background(rgb, shows) if stained else seen.background
    pieces = []
    for d4 in rng.permutation(8)[:turns] if turns > 1 else [0]:
        seen_so, valid_so, shows_so = (np.ascontiguousarray(apply_d4(p, int(d4))) for p in (rgb, valid, shows))
        pieces.append(_piece(number, seen_so, valid_so, shows_so, encoder, rng))
    return pieces, Seen(seen.resolution, background)


def tissue_mask_of(rgb: np.ndarray) -> np.ndarray:
    """bool (H, W): tissue, found on a coarse view as `embed` finds it."""
    small = rgb[
        : rgb.shape[0] // _BACKGROUND_SHRINK * _BACKGROUND_SHRINK,
        : rgb.shape[1] // _BACKGROUND_SHRINK * _BACKGROUND_SHRINK,
    ]
    blocks = small.reshape(small.shape[0] // _BACKGROUND_SHRINK, _BACKGROUND_SHRINK, -1, _BACKGROUND_SHRINK, 3)
    mask = tissue_mask(blocks.mean((1, 3)).round().astype(np.uint8))
    whole = mask.repeat(_BACKGROUND_SHRINK, 0).repeat(_BACKGROUND_SHRINK, 1)
    spare = ((0, rgb.shape[0] - whole.shape[0]), (0, rgb.shape[1] - whole.shape[1]))
    return np.pad(whole, spare, "edge")


def _pixels(row: PriorRow, bundle: ModelBundle) -> tuple[np.ndarray, np.ndarray, Seen, bool]:
    """Pixels of a row uint8 (H, W, 3), where they are valid, its facts, and whether it is a stained slide."""
    with open_raster(row.path, mpp=row.mpp, gsd=row.gsd) as raster:
        own = raster.resolution
        if own is None:
            raise InputError(f"{row.path}: its resolution is unknown; give a column mpp or gsd")
        wanted = bundle.info.resolution("um") if raster.kind == "slide" and own.unit == "um" else None
        wanted = wanted or Resolution(own.value * row.shrink, own.unit)
        view = view_at(raster, wanted)
        part = row.region or Window.of(view.size)
        if not Window.of(view.size).contains(part):
            raise InputError(f"{row.path}: region {row.region} reaches beyond its {view.size} px")
        rgb, valid = readable_part(view, part)
        return rgb, valid, Seen(wanted, raster.background), raster.stained


def _piece(
    number: int,
    rgb: np.ndarray,
    valid: np.ndarray,
    shows: np.ndarray,
    encoder: Encoder,
    rng: np.random.Generator,
) -> Piece:
    """The whole cells of an image at a random offset of the lattice: any of a large image, of a small one such that it
    loses no cell."""
    tile = encoder.tile_px
    if min(rgb.shape[:2]) < tile:
        raise InputError(f"row {number + 1} of the table: smaller than a tile of {tile} px")
    free = [tile - 1 if length >= _LARGE * tile else length % tile for length in rgb.shape[:2]]
    top, left = (int(rng.integers(most + 1)) for most in free)
    rows, cols = (rgb.shape[0] - top) // tile, (rgb.shape[1] - left) // tile
    part = np.s_[top : top + rows * tile, left : left + cols * tile]
    vectors = embedded_grid(encoder, rgb[: top + rows * tile, : left + cols * tile], (top, left)).cells
    missing, tissue = (plane[part].reshape(rows, tile, cols, tile).mean((1, 3)) for plane in (~valid, shows))
    state = np.where(missing > _MOST_MISSING, -1, np.where(tissue < _LEAST_TISSUE, 0, 1)).astype(np.int8)
    return Piece(number, vectors, state)


def _save(path: Path, pieces: list[Piece], seen: list[Seen]) -> None:
    """Cells end to end in one array: thousands of small ones would take minutes to store."""
    facts = [[s.resolution.value, s.resolution.unit, list(s.background)] for s in seen]
    arrays: dict[str, Any] = {
        "shapes": np.array([[p.row, *p.state.shape] for p in pieces]),
        "cells": np.concatenate([p.cells.reshape(-1, p.cells.shape[-1]) for p in pieces]),
        "states": np.concatenate([p.state.ravel() for p in pieces]),
        "seen": np.array(json.dumps(facts)),
    }
    with writing(path) as part:
        np.savez(part, **arrays)


def _load(path: Path) -> tuple[list[Piece], list[Seen]]:
    with np.load(path) as file:
        shapes, cells, states = file["shapes"], file["cells"], file["states"]
        facts = json.loads(str(file["seen"]))
    seen = [Seen(Resolution(value, unit), tuple(colour)) for value, unit, colour in facts]
    return list(_cut(shapes, cells, states)), seen


def _cut(shapes: np.ndarray, cells: np.ndarray, states: np.ndarray) -> Iterator[Piece]:
    first = 0
    for row, rows, cols in shapes.tolist():
        last = first + rows * cols
        yield Piece(row, cells[first:last].reshape(rows, cols, -1), states[first:last].reshape(rows, cols))
        first = last
