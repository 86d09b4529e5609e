"""Laws of sizes, windows, lattices and resolutions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ssl_tilegen.geometry import Lattice, Resolution, Size, Window, cover, starts

lengths = st.integers(1, 200)
places = st.integers(-300, 300)
sizes = st.builds(Size, lengths, lengths)
windows = st.builds(Window, places, places, lengths, lengths)


@given(sizes, st.integers(1, 50))
def test_ceil_div_is_the_least_cover(size: Size, by: int) -> None:
    steps = size.ceil_div(by)
    assert steps.rows * by >= size.rows > (steps.rows - 1) * by
    assert steps.cols * by >= size.cols > (steps.cols - 1) * by


@given(sizes, st.floats(0.01, 4))
def test_scaled_size_is_within_half_a_pixel_and_never_empty(size: Size, factor: float) -> None:
    scaled = size.scaled(factor)
    assert abs(scaled.rows - size.rows * factor) <= 0.5 or scaled.rows == 1
    assert abs(scaled.cols - size.cols * factor) <= 0.5 or scaled.cols == 1


@pytest.mark.parametrize("rows, cols", [(0, 1), (1, 0), (-1, 5)])
def test_empty_sizes_and_windows_are_refused(rows: int, cols: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Size(rows, cols)
    with pytest.raises(ValueError, match="must be positive"):
        Window(0, 0, rows, cols)


@given(windows, windows)
def test_intersection_is_what_both_cover(a: Window, b: Window) -> None:
    meet = a.intersection(b)
    both = _painted(a) & _painted(b)
    assert meet == b.intersection(a)
    assert both.sum() == (meet.size.area if meet else 0)
    if meet:
        assert (_painted(meet) == both).all()
        assert a.contains(meet) and b.contains(meet)


@given(windows)
def test_a_window_meets_and_contains_itself(window: Window) -> None:
    assert window.intersection(window) == window
    assert window.contains(window)
    assert window.within(window) == Window.of(window.size)


@given(windows, places, places)
def test_shifting_there_and_back_changes_nothing(window: Window, rows: int, cols: int) -> None:
    assert window.shifted(rows, cols).shifted(-rows, -cols) == window
    assert window.shifted(rows, cols).size == window.size


@given(windows, st.integers(0, 40))
def test_grown_window_holds_the_old_one_in_its_middle(window: Window, margin: int) -> None:
    grown = window.grown(margin)
    assert grown.contains(window)
    assert window.within(grown) == Window(margin, margin, window.rows, window.cols)


@given(windows, st.integers(1, 64))
def test_aligned_is_the_smallest_on_the_lattice(window: Window, step: int) -> None:
    aligned = window.aligned(step)
    assert aligned.contains(window)
    assert all(edge % step == 0 for edge in (aligned.row, aligned.col, aligned.row_end, aligned.col_end))
    assert window.row - aligned.row < step and aligned.row_end - window.row_end < step
    assert window.col - aligned.col < step and aligned.col_end - window.col_end < step


@given(windows, windows, st.integers(1, 8))
def test_scaling_keeps_what_meets(a: Window, b: Window, factor: int) -> None:
    meet, scaled = a.intersection(b), a.scaled(factor).intersection(b.scaled(factor))
    assert scaled == (meet and meet.scaled(factor))


def test_slices_refuse_negative_places() -> None:
    assert Window(1, 2, 3, 4).slices == (slice(1, 4), slice(2, 6))
    with pytest.raises(ValueError, match="negative"):
        _ = Window(-1, 0, 2, 2).slices


@given(sizes, sizes)
def test_cover_is_disjoint_and_complete(size: Size, step: Size) -> None:
    assume(size.ceil_div(step.rows).rows * size.ceil_div(step.cols).cols < 400)
    count = np.zeros((size.rows, size.cols), int)
    for window in cover(size, step):
        assert window.rows <= step.rows and window.cols <= step.cols
        count[window.slices] += 1
    assert (count == 1).all()


@given(lengths, lengths, lengths, places)
def test_starts_cover_the_axis_and_stay_inside(length: int, window: int, stride: int, offset: int) -> None:
    assume(stride <= window <= length)
    found = starts(length, window, stride, offset)
    covered = np.zeros(length, bool)
    for start in found:
        assert 0 <= start <= length - window
        covered[start : start + window] = True
    assert covered.all()
    assert found == sorted(set(found))
    inner = [start for start in found if 0 < start < length - window]
    assert all((start - offset) % stride == 0 for start in inner)


def test_starts_refuse_what_cannot_cover() -> None:
    with pytest.raises(ValueError, match="larger than the axis"):
        starts(10, 11, 5)
    with pytest.raises(ValueError, match="uncovered"):
        starts(100, 10, 11)


@given(sizes, st.integers(1, 64), st.integers(1, 64))
def test_lattice_tiles_lie_inside_and_no_more_would(size: Size, tile: int, stride: int) -> None:
    lattice = Lattice(size, tile, stride)
    last = lattice.window(lattice.shape.rows - 1, lattice.shape.cols - 1)
    if size.rows >= tile:
        assert last.row_end <= size.rows < last.row_end + stride
    else:
        assert lattice.shape.rows == 1
    if size.cols >= tile:
        assert last.col_end <= size.cols < last.col_end + stride
    else:
        assert lattice.shape.cols == 1


@given(sizes, st.integers(1, 64), st.integers(1, 64))
def test_a_covering_lattice_leaves_no_pixel_over_and_has_no_tile_beyond(size: Size, tile: int, stride: int) -> None:
    lattice, whole = Lattice.covering(size, tile, stride), Lattice(size, tile, stride)
    last = lattice.window(lattice.shape.rows - 1, lattice.shape.cols - 1)
    assert last.row < size.rows and last.col < size.cols
    if stride <= tile:
        assert last.row_end >= size.rows and last.col_end >= size.cols
    assert (lattice == whole) == (lattice.shape == whole.shape)
    assert 0 <= lattice.shape.rows - whole.shape.rows <= 1 and 0 <= lattice.shape.cols - whole.shape.cols <= 1


@given(st.builds(Lattice, sizes, st.integers(20, 64), st.integers(20, 64)))
def test_lattice_cells_run_row_by_row_with_centres_in_their_tiles(lattice: Lattice) -> None:
    cells = list(lattice.cells())
    assert len(cells) == lattice.shape.area
    assert cells == sorted(cells)
    for cell in cells:
        window = lattice.window(*cell)
        assert lattice.centre(*cell) == ((window.row + window.row_end) / 2, (window.col + window.col_end) / 2)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_resolution_must_be_a_positive_number(value: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        Resolution(value, "um")


def test_resolution_knows_its_units() -> None:
    assert str(Resolution(0.25, "um")) == "0.25 um/px"
    with pytest.raises(ValueError, match="unit"):
        Resolution(1.0, "mm")


def _painted(window: Window) -> np.ndarray:
    """The window's pixels on a plane that holds all windows drawn here."""
    plane = np.zeros((800, 800), bool)
    plane[window.shifted(300, 300).slices] = True
    return plane
