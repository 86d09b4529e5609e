"""Laws of the sketch: cells' images side by side, the same in pieces as whole, and silent when layout is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssl_tilegen.diffusion.coarse_latents import LocalCondition, coarse_latents, condition_while
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.schedule import Step
from ssl_tilegen.geometry import Window

SIDE, CHANNELS = 4, 2
DIM = CHANNELS * SIDE**2


def decode_cells(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.unflatten(-1, (CHANNELS, SIDE, SIDE))


def field(rows: int = 3, cols: int = 5, **place) -> ConditionField:
    cells = np.random.default_rng(0).standard_normal((rows, cols, DIM), np.float32)
    return ConditionField.of_grid(cells, **{"tile_px": 32, "stride_px": 32, "factor": 8, **place})


def by_hand(of: ConditionField, kept: slice = slice(None)) -> torch.Tensor:
    """The images of all cells, pasted one by one."""
    rows = [torch.cat([decode_cells(cell)[:, kept, kept] for cell in row], 2) for row in of.embedding]
    return torch.cat(rows, 1)


def test_on_the_cells_own_lattice_it_is_their_pictures_side_by_side() -> None:
    of = field()
    assert torch.equal(coarse_latents(of, decode_cells, SIDE, Window(0, 0, 12, 20)), by_hand(of))


def test_beyond_the_grid_its_edge_goes_on() -> None:
    of = field()
    wide = coarse_latents(of, decode_cells, SIDE, Window(-4, -4, 20, 28))
    assert torch.equal(wide[:, 4:-4, 4:-4], by_hand(of))
    assert torch.equal(wide[:, :5, 4:-4], by_hand(of)[:, :1].expand(-1, 5, -1))


def test_a_lattice_moved_by_whole_latents_moves_the_sketch() -> None:
    of = field(corner_px=(-24.0, 16.0))
    assert torch.equal(coarse_latents(of, decode_cells, SIDE, Window(3, -2, 12, 20)), by_hand(of))


@pytest.mark.parametrize("place", [{}, {"stretch": (1.5, 2.3)}, {"corner_px": (5.0, -3.0)}, {"stride_px": 16}])
def test_pieces_equal_the_whole(place: dict) -> None:
    of, rng = field(**place), np.random.default_rng(1)
    whole = coarse_latents(of, decode_cells, SIDE, Window(-8, -8, 40, 48))
    for _ in range(20):
        row, col = rng.integers(-8, 24), rng.integers(-8, 32)
        window = Window(int(row), int(col), int(rng.integers(1, 9)), int(rng.integers(1, 9)))
        piece = coarse_latents(of, decode_cells, SIDE, window)
        torch.testing.assert_close(piece, whole[:, *window.within(Window(-8, -8, 40, 48)).slices])


def test_stretched_pictures_are_read_bilinearly() -> None:
    of = field(stretch=(2.0, 2.0))
    seen = coarse_latents(of, decode_cells, SIDE, Window(0, 0, 24, 40))
    expected = torch.nn.functional.interpolate(by_hand(of)[None], scale_factor=2, mode="bilinear")[0]
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)


def test_of_tiles_that_overlap_the_inner_part_is_used() -> None:
    of = field(stride_px=16)
    seen = coarse_latents(of, decode_cells, SIDE, Window(1, 1, 6, 10))  # a cell's own part starts 8 px into its tile
    assert torch.equal(seen, by_hand(of, slice(1, 3)))


def test_without_layout_nothing_tells_of_it() -> None:
    told = LocalCondition(stride=4, layout_dim=6, side=SIDE, decode_cells=decode_cells)
    with_it, without = (told(field(), Window(0, 0, 12, 20), layout=layout) for layout in (True, False))
    assert with_it.shape == without.shape == (DIM + 16 * CHANNELS, 3, 5)
    assert not with_it.isnan().any()
    assert without[DIM - 6 :].isnan().all()
    assert torch.equal(with_it[: DIM - 6], without[: DIM - 6])


def test_a_loose_layout_is_told_only_while_there_is_much_noise():
    seen = []

    def clean_of(x, cond, step):
        seen.append(None if cond is None else cond.isnan().any((0, 2, 3)).tolist())
        return x

    told = torch.zeros(1, 10, 2, 2)  # four numbers of content, two of layout, a sketch of four
    loose = condition_while(clean_of, 0.5, 6, 2)
    for sigma in (0.9, 0.5, 0.4):
        loose(told, told, Step(0, sigma, 1 - sigma, sigma, 1, 0))
    loose(told, None, Step(0, 0.1, 0.9, 0.1, 1, 0))
    everything, content = [False] * 10, [False] * 4 + [True] * 6
    assert seen == [everything, everything, content, None] and not told.isnan().any()
