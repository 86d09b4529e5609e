"""The study's tasks and learners: parts share no ground, labels are as written, the network learns and is kept."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.transform
from PIL import Image

from ssl_tilegen.encoders.texture import TextureEncoder

STUDY = Path(__file__).parents[2] / "examples" / "augment"
MODULES = ("tasks", "learners", "report", "study")


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules, as they import each other, and gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDY))
        import learners
        import study
        import tasks

        yield {"tasks": tasks, "learners": learners, "study": study}
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def built(modules: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The task `built` of rasters of the sizes that built.csv speaks of, each pixel saying where it is: row and column
    of its window."""
    root = tmp_path_factory.mktemp("built")
    folder = root / "data" / "rasters"
    folder.mkdir(parents=True)
    extent: dict[str, tuple[int, int]] = {}
    for row in labels():
        rows, cols = extent.get(row["file"], (0, 0))
        extent[row["file"]] = max(rows, int(row["row"]) + 1), max(cols, int(row["col"]) + 1)
    for name, (rows, cols) in extent.items():
        y, x = np.mgrid[: rows * 192, : cols * 192] // 192
        shape: dict[str, Any] = {"height": y.shape[0], "width": y.shape[1], "count": 3, "dtype": "uint8"}
        where = rasterio.transform.from_origin(500, 700, 1, 1)
        with rasterio.open(folder / name, "w", driver="GTiff", compress="deflate", transform=where, **shape) as file:
            file.write(np.stack([y, x, y * 0]).astype(np.uint8))
    return modules["tasks"].TASKS["built"](root / "data", root, 60)


def labels() -> list[dict[str, str]]:
    with (STUDY / "built.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_labels_are_written_once_and_are_known() -> None:
    rows = labels()
    assert len({(row["file"], row["row"], row["col"]) for row in rows}) == len(rows)
    assert {row["label"] for row in rows} == {"built", "open", "trees", "mixed"}


def test_windows_are_those_of_the_table(built: Any) -> None:
    known = {(Path(row["file"]).stem, row["row"], row["col"]): row["label"] for row in labels()}
    for item in (*built.train, *built.held, *built.test):
        stem, place = item.path.stem.rsplit("_", 1)
        row, col = place.split("-")
        assert (known[stem, row, col] == "built") == (item.label == "built")
        pixels = np.asarray(Image.open(item.path))
        assert pixels.shape == (192, 192, 3)
        assert (pixels[..., 0] == int(row)).all() and (pixels[..., 1] == int(col)).all()


def test_parts_and_groups_share_no_ground(built: Any) -> None:
    """Windows of two parts are never neighbours, not even by a corner; nothing of the town is trained on."""
    parts = [
        [(*item.path.stem.rsplit("_", 1), item) for item in part] for part in (built.train, built.held, built.test)
    ]
    places = [{(stem, *map(int, place.split("-"))) for stem, place, _ in part} for part in parts]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        near = {(s, r + i, c + j) for s, r, c in places[one] for i in (-1, 0, 1) for j in (-1, 0, 1)}
        assert not near & places[other]
    assert {stem for stem, _, _ in places[0] | places[1]}.isdisjoint({"oam_area3"})
    assert len({item.group for item in built.test}) >= 25 and built.block > 1
    for part in (built.train, built.held, built.test):
        assert {item.label for item in part} == {"built", "empty"}


def test_a_small_network_learns_what_is_plain_and_is_kept(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    learners = modules["learners"]
    rng = np.random.default_rng(0)
    y = np.arange(12) % 2
    x = rng.integers(0, 60, (12, 16, 16, 3)) + 120 * y[:, None, None, None]
    part = learners.LabelledSet(x.astype(np.uint8), y, y.astype(str))
    learn = learners.network("turned", tmp_path)
    said = learn(False, part, part.x, 2, 0)
    assert (said.argmax(1) == y).all() and np.allclose(said.sum(1), 1, atol=1e-5)
    (kept,) = tmp_path.glob("network-*.npy")
    np.save(kept, said * 0)
    assert (learn(False, part, part.x, 2, 0) == 0).all()  # taken up again, not trained again
    assert not (learn(False, part, part.x, 2, 1) == 0).all() and not (learn(True, part, part.x, 2, 0) == 0).all()


def test_features_are_of_pictures_and_their_views_and_are_kept(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    tasks, learners = modules["tasks"], modules["learners"]
    items, rng = [], np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        items.append(tasks.Item(tmp_path / f"{number}.png", "ab"[number % 2], str(number)))
    task = tasks.Task("toy", "Toy", items, items, items, 32, (1,), True)
    encoder = TextureEncoder(32)
    alone = learners.features(task, items, None, encoder, tmp_path)
    viewed = learners.features(task, items, "mild", encoder, tmp_path)
    assert alone.x.shape[1] == 1 and viewed.x.shape[1] == 1 + learners.VIEWS
    assert np.array_equal(viewed.x[:, :1], alone.x) and not np.allclose(viewed.x[:, 1], alone.x[:, 0])
    items[0].path.unlink()  # nothing is read again
    assert np.array_equal(learners.features(task, items, "mild", encoder, tmp_path).x, viewed.x)
