"""Which images `evaluate` counts as real and synthetic, which pairs it trusts, and where shares end."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.errors import BudgetError, InputError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.workflows.evaluate.features import Features
from ssl_tilegen.workflows.evaluate.image_sets import read_set
from ssl_tilegen.workflows.evaluate.pairs import matched_images
from ssl_tilegen.workflows.evaluate.run import evaluate
from ssl_tilegen.workflows.evaluate.scores import scores_of
from ssl_tilegen.workflows.evaluate.windows import places
from ssl_tilegen.workflows.labelled_images import group_of

SIDE = 48


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(path)


@pytest.fixture
def augmented(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of originals, and one as `augment --originals copy` makes it: they lie beside what was painted."""
    real, made = tmp_path / "real", tmp_path / "made"
    rows = []
    for n in range(8):
        draw(real / "a" / f"r{n}.png", n)
        draw(made / "a" / f"r{n}.png", n)
        draw(made / "a" / f"r{n}_1.png", 100 + n)
        rows += [
            {"path": f"a/r{n}.png", "kind": "real", "source": f"a/r{n}.png"},
            {"path": f"a/r{n}_1.png", "kind": "synthetic", "source": f"a/r{n}.png"},
        ]
    with (made / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["path", "kind", "source"])
        table.writeheader()
        table.writerows(rows)
    return real, made


@pytest.mark.parametrize(("kind", "count"), [("synthetic", 8), ("real", 8), ("", 16)])
@pytest.mark.parametrize("below", ["", "a"])
def test_the_manifest_says_which_images_are_of_a_set(
    augmented: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, kind: str, count: int, below: str
) -> None:
    for folder in (augmented[1] / below, Path("made") / below):
        monkeypatch.chdir(augmented[1].parent)
        part = read_set(folder, kind=kind)
        assert len(part.images) == count and part.left_out == 16 - count
        assert all(("_1" in image.path.name) == (kind == "synthetic") for image in part.images if kind)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("g012_03.jpg", "g012"),
        ("1.2.840.1_001.png", "1.2.840.1"),
        ("1.2.840.2_001.ome.tif", "1.2.840.2"),
        ("1.2.840.3.dcm", "1.2.840.3"),
        ("slide v1.5_7.ome.zarr", "slide v1.5"),
        ("plain.png", "plain"),
    ],
)
def test_a_group_is_the_name_before_its_last_underscore(name: str, group: str) -> None:
    assert group_of(Path("class") / name) == group


def test_a_set_of_originals_alone_is_not_synthetic(augmented: tuple[Path, Path]) -> None:
    for path in augmented[1].glob("a/*_1.png"):
        path.unlink()
    with pytest.raises(InputError, match="none of its images are synthetic"):
        read_set(augmented[1], kind="synthetic")


def test_originals_beside_what_was_painted_do_not_flatter_it(augmented: tuple[Path, Path]) -> None:
    real, made = augmented
    report = evaluate(EvaluateSettings(real=real, synthetic=made, encoder=("texture",), metrics=("pairs",), rounds=10))
    psnr = next(score for score in report.scores if score.name == "psnr")
    assert psnr.n_synthetic == 8 and psnr.value < 15, "originals would pair with themselves at 60 dB"
    assert any("8 images" in line and "manifest" in line for line in report.warnings)
    assert not any("name alone" in line for line in report.warnings)


def test_pairs_that_only_a_name_speaks_for_are_said_to_be(tmp_path: Path) -> None:
    for n in range(3):
        draw(tmp_path / "real" / f"p{n}.png", n)
        draw(tmp_path / "made" / f"p{n}.png", 10 + n)
    sets = read_set(tmp_path / "real"), read_set(tmp_path / "made")
    found = matched_images(*sets)
    assert (len(found.pairs), found.guessed) == (3, 3)
    assert "3 of 3" in str(found.warning()) and "name alone" in str(found.warning())
    beside = tmp_path / "made" / "p1.png.json"
    beside.write_text(json.dumps({"provenance": {"source": "p1.png"}}))
    assert matched_images(*sets).guessed == 2
    for broken in ("{", "[]", '{"provenance": 3}'):
        beside.write_text(broken)
        assert matched_images(*sets).guessed == 3


@pytest.mark.parametrize("end", ["", "-synthetic"])
def test_images_whose_names_hold_dots_pair_with_their_own(tmp_path: Path, end: str) -> None:
    for n in range(3):
        draw(tmp_path / "real" / f"1.2.840.{n}_00{n}.png", n)
        draw(tmp_path / "made" / f"1.2.840.{n}_00{n}{end}.png", 10 + n)
    found = matched_images(read_set(tmp_path / "real"), read_set(tmp_path / "made")).pairs
    assert len(found) == 3
    assert all(own.path.stem == made.path.stem.removesuffix(end) for made, own in found.items())


def test_intervals_of_shares_end_at_0_and_1() -> None:
    rng = np.random.default_rng(0)
    sets = []
    for shift in (0.0, 0.3):
        groups = np.array([str(n % 6) for n in range(60)])
        sets.append(Features(rng.standard_normal((60, 4)) + shift, groups, []))
    found = list(scores_of("x", *sets, ("manifold",), neighbours=5, rounds=40, seed=0))
    assert [figure.name for figure in found] == ["precision", "recall", "density", "coverage"]
    for figure in found:
        assert 0 <= figure.low <= figure.high
        assert figure.name == "density" or figure.high <= 1
    assert found[0].high == 1.0, "the interval of the precision reaches its end here"


def test_windows_are_drawn_evenly_by_their_number(tmp_path: Path) -> None:
    for number, size in enumerate(((160, 200), (48, 48), (90, 200), (20, 20))):
        Picture.new("RGB", size).save(tmp_path / f"{number}.png")
    found, groups = places(read_set(tmp_path), 32, None)
    assert len(found) == len(groups) == 5 * 6 + 1 + 2 * 6 and len(set(found)) == len(found)
    assert found[30].window.row == found[30].window.col == 8, "the middle of a small image"
    few, _ = places(read_set(tmp_path), 32, None, limit=7)
    assert few == [found[i] for i in np.linspace(0, len(found) - 1, 7).round().astype(int)]


def test_images_far_coarser_than_asked_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 0)
    with pytest.raises(BudgetError, match="--max-gpx"):
        places(read_set(tmp_path, if_unknown=Resolution(0.5, "um")), 32, Resolution(1e-9, "um"), limit=10)
