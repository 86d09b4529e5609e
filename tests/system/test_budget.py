"""What is too large is refused by arithmetic, with the figure and the option that allows it."""

from __future__ import annotations

import re

import pytest

from ssl_tilegen.errors import BudgetError
from ssl_tilegen.system.budget import GIB, check_memory, check_pixels, free_memory, limits


@pytest.mark.parametrize("side", [400_000, 1 << 20, 1_000_000_000, float("inf"), float("nan")])
def test_too_many_pixels_name_the_option_that_allows_them(side: float) -> None:
    with pytest.raises(BudgetError, match="--max-gpx") as caught:
        check_pixels(side, side, "--size")
    line = str(caught.value)
    assert "\n" not in line and "gigapixels" in line
    allowed = float(re.findall(r"--max-gpx (\S+)", line)[0])
    if side < float("inf"):
        with limits(gpx=allowed):
            check_pixels(side, side, "--size")
        with pytest.raises(BudgetError):
            check_pixels(side, side, "--size")


def test_what_is_allowed_passes() -> None:
    check_pixels(100_000, 100_000, "--size")
    with limits(gib=1):
        check_memory(GIB, "it")
    check_memory(1, "it")


def test_memory_is_held_against_what_is_free_or_allowed() -> None:
    for need, limit in ((2 * free_memory(), None), (2 * GIB, 1)):
        with limits(gib=limit), pytest.raises(BudgetError, match="GiB of memory") as caught:
            check_memory(need, "the grid")
        with limits(gib=float(re.findall(r"--max-gib (\S+)", str(caught.value))[0])):
            check_memory(need, "the grid")
