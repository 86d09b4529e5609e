"""Grids of scenes: each region is sampled as if there were nothing else, and a map says whose the places in a cell are.

A prior saw regions meet only where training windows were cut, along cells. Told of a map cell by cell, it draws stairs
of whole cells and exaggerates what differs. So each condition has a grid of its own over the parts of the map where it
is needed, from the same noise. In the cells of a border the coarse images of both are cut along the map and joined; the
rest is mixed by their shares. Borders are rough, by about a quarter of a cell, for what grows has no straight edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ssl_tilegen.diffusion.noise import addressed_noise
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.prior.sampling import BLEED_CELLS, GRID_SEEDS, SampledGrid, restored_grid, sample_cells
from ssl_tilegen.prior.scene import Scene
from ssl_tilegen.prior.spec import PriorSampling

_BAND_PLACES = 1 << 19
_ROUGHNESS = ((1.5, 0.5), (0.4, 0.2))
"""Spacing and strength of what displaces borders, in cells: coarse and fine."""
_ROUGH_STREAM = 1 << 62


def condition_map(
    scene: Scene, of_region: np.ndarray, cells: Size, stride_px: int, places: int, seed: int
) -> np.ndarray:
    """The number of the condition that each place of a grid is of: (rows * places, cols * places), integers.

    ``of_region`` (regions + 1,) numbers the condition of each region, and last that of the rest. Cells lie at every
    ``stride_px`` pixels of the scene's image, with ``places`` on each axis of a cell."""
    numbers = np.empty((cells.rows * places, cells.cols * places), np.min_scalar_type(int(of_region.max())))
    for band in _bands(Window.of(cells), places):
        down, across = displacement(band, places, seed)
        rows, cols = ((np.arange(count * places) + 0.5) / places + first
                      for first, count in ((band.row, band.rows), (band.col, band.cols)))  # fmt: skip
        regions = scene.at((rows[:, None] + down) * stride_px, (cols + across) * stride_px)
        numbers[band.scaled(places).slices] = of_region[regions]
    return numbers


@torch.no_grad()
def sample_scene(
    prior: Any,
    conditions: np.ndarray,
    numbers: np.ndarray,
    sampling: PriorSampling,
    seed: int,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> SampledGrid:
    """A grid in which each place is of the condition, of ``conditions`` (N, C), that a `condition_map` numbers, with
    the prior's own ``places`` in a cell.

    Memory: that of `sample_cells` for the largest part, and D + 1 numbers per cell.
    """
    device, places = next(prior.parameters()).device, prior.places
    rows, cols = (length // places for length in numbers.shape)
    out = torch.zeros(len(prior.mean), rows, cols, device=device)
    parts = [(number, box) for number in range(len(conditions))
             for box in boxes((numbers == number).reshape(rows, places, cols, places).any((1, 3)))]  # fmt: skip
    areas = [box.grown(BLEED_CELLS).size.area for _, box in parts]
    for place, (number, box) in enumerate(parts):

        def tick(done: float, of: float, before: int = sum(areas[:place]), area: int = areas[place]) -> None:
            progress(before + area * done / of, sum(areas))

        cells = sample_cells(prior, conditions[number][:, None, None], box, sampling, seed, tick)
        for band in _bands(box, places):
            mask = torch.from_numpy((numbers[band.scaled(places).slices] == number).astype(np.float32)).to(device)
            out[:, *band.slices] += prior.masked(cells[:, *band.within(box).slices], mask)
    return restored_grid(prior, out)


def _bands(window: Window, places: int) -> Iterator[Window]:
    """Windows of full width, top to bottom, of half a million places, or of one row of cells."""
    rows = max(1, _BAND_PLACES // (window.cols * places**2))
    for row in range(window.row, window.row_end, rows):
        yield Window(row, window.col, min(rows, window.row_end - row), window.cols)


def boxes(needed: np.ndarray) -> list[Window]:
    """Windows that cover all cells needed, and none of them twice: one for each part that lies apart."""
    from scipy.ndimage import binary_dilation, find_objects, label

    near = binary_dilation(needed, np.ones((3, 3), bool), BLEED_CELLS)
    numbers, _ = label(near, np.ones((3, 3), int))
    found = find_objects(np.where(needed, numbers, 0))
    windows = [Window(r.start, c.start, r.stop - r.start, c.stop - c.start) for r, c in filter(None, found)]
    apart: list[Window] = []
    while windows:
        window = windows.pop()
        if other := next((other for other in apart if other.intersection(window)), None):
            apart.remove(other)
            windows.append(_around(window, other))
        else:
            apart.append(window)
    return sorted(apart)


def displacement(window: Window, places: int, seed: int) -> np.ndarray:
    """By how many cells each place of a window of cells is moved before the map is asked: (2, rows, cols), down and
    across. A function of the place and the seed alone."""
    from scipy.ndimage import map_coordinates

    moved = np.zeros((2, window.rows * places, window.cols * places))
    for stream, (spacing, strength) in enumerate(_ROUGHNESS):
        rows, cols = (((np.arange(count * places) + 0.5) / places + first) / spacing
                      for first, count in ((window.row, window.rows), (window.col, window.cols)))  # fmt: skip
        first_row, first_col = int(np.floor(rows[0])) - 2, int(np.floor(cols[0])) - 2
        around = Window(first_row, first_col, int(rows[-1]) + 4 - first_row, int(cols[-1]) + 4 - first_col)
        noise = addressed_noise(around, 2, GRID_SEEDS + seed, _ROUGH_STREAM + stream)
        grid = np.meshgrid(rows - first_row, cols - first_col, indexing="ij")
        moved += strength * np.stack([map_coordinates(part, grid, order=3, prefilter=False) for part in noise])
    return moved


def distinct(conditions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different ones of conditions (N, C), in order, and which of them each is: (N,)."""
    different = {one.tobytes(): one for one in conditions}
    numbers = {key: number for number, key in enumerate(different)}
    return np.stack(list(different.values())), np.array([numbers[one.tobytes()] for one in conditions])


def _around(one: Window, other: Window) -> Window:
    row, col = min(one.row, other.row), min(one.col, other.col)
    return Window(row, col, max(one.row_end, other.row_end) - row, max(one.col_end, other.col_end) - col)
