"""Prompts that say what lies where: how they are read, and the map that they become."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_tilegen.geometry import Size
from ssl_tilegen.prior.spatial_prompt import parts_map, split, texts


@pytest.mark.parametrize(
    "text, read",
    [
        ("dense tumour nests beside normal alveoli", "(dense tumour nests | normal alveoli)"),
        ("A town is next to the forest.", "(town | forest)"),
        ("a town to the left of a forest", "(town | forest)"),
        ("a town to the right of a forest", "(forest | town)"),
        ("a town on the right side of a forest", "(forest | town)"),
        ("town on the left and forest on the right", "(town | forest)"),
        ("town on the right, forest on the left", "(forest | town)"),
        ("town on the left, forest", "(town | forest)"),
        ("forest at the top and a shore at the bottom", "(forest / shore)"),
        ("forest above dry grass", "(forest / dry grass)"),
        ("forest below dry grass", "(dry grass / forest)"),
        ("a town between forest and savanna", "(forest | town | savanna)"),
        ("a village surrounded by forest", "(village in forest)"),
        ("a village in the centre of a forest", "(village in forest)"),
        ("forest beside savanna beside town", "(forest | savanna | town)"),
        ("italian pines beside that town", "(italian pines | that town)"),
        ("a village surrounded by forest above savanna", "(village in (forest / savanna))"),
    ],
)
def test_relations_are_read(text, read):
    assert str(split(text)) == read


@pytest.mark.parametrize(
    "text",
    ["benign lung", "huts with tin roofs between trees", "houses between palm trees", "beside a forest", "forest above",
     "a leftover field", "pines over a shrubby ground", "", "a village with a forest beside it", "It above savanna",
     "houses next to each other", "forest beside a town with savanna above it."],
)  # fmt: skip
def test_anything_else_is_one_text(text):
    assert isinstance(split(text), str) and len(texts(split(text))) == 1


@pytest.mark.parametrize("seed", range(8))
def test_parts_lie_where_the_words_say(seed):
    size = Size(24, 32)
    beside = parts_map(split("forest beside town"), size, seed)
    assert (beside[:, :8] == 0).all() and (beside[:, -8:] == 1).all()
    above = parts_map(split("forest above town"), size, seed)
    assert (above[:5] == 0).all() and (above[-5:] == 1).all()
    inside = parts_map(split("forest surrounded by town"), size, seed)
    edges = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    assert inside[12, 16] == 0 and (edges == 1).mean() > 0.9 and 0.1 < (inside == 0).mean() < 0.5
    between = parts_map(split("town between forest and savanna"), size, seed)
    assert [between[12, col] for col in (1, 16, 30)] == [0, 1, 2]


def test_a_part_that_is_split_again_keeps_to_its_place():
    tree = split("village surrounded by forest above savanna")
    found = parts_map(tree, Size(32, 32), 3)
    assert texts(tree) == ["village", "forest", "savanna"]
    assert found[16, 16] == 0 and found[1, 1] == 1 and found[-2, -2] == 2


def test_a_map_is_a_function_of_the_seed_and_grows_with_the_grid():
    tree = split("forest beside town")
    small, same, other = (parts_map(tree, Size(16, 16), seed) for seed in (1, 1, 2))
    assert np.array_equal(small, same) and not np.array_equal(small, other)
    large = parts_map(tree, Size(48, 48), 1)
    assert (large[1::3, 1::3] == small).all()
    changes = (np.diff(large, axis=1) != 0).sum(1)
    assert (changes == 1).all()  # one smooth border
    places = np.argmax(large, axis=1)
    assert np.abs(np.diff(places)).max() <= 3
