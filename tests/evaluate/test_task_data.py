"""Where `evaluate --task` finds its real, synthetic and test images."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ssl_tilegen.errors import InputError
from ssl_tilegen.workflows.evaluate.task_data import TASK_SETS, find_task_data
from ssl_tilegen.workflows.labelled_images import read_labelled

CLASSES = ("dots", "lines")


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def fill(folder: Path) -> None:
    for label in CLASSES:
        for group in range(2):
            put(folder / label / f"g{group}_0.png")


def augmented(folder: Path, splits: tuple[str, ...] = ("test", "train"), kinds: tuple[str, ...] = ("real", "synthetic")
              ) -> Path:  # fmt: skip
    """What `augment` leaves of a CSV with a column split."""
    lines = ["path,kind,source,label,group,split"]
    for split in splits:
        for kind in kinds:
            for label in CLASSES:
                name = f"{split}/{label}/{label}{split} 1{'-s0' if kind == 'synthetic' else ''}.png"
                put(folder / name)
                lines.append(f"{name},{kind},x.png,{label},{label}-{split},{split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(("real", "test"), [("real", "test"), ("train", "val")])
def test_folders_by_part(tmp_path: Path, real: str, test: str) -> None:
    for name in (real, "synthetic", test):
        fill(tmp_path / name)
    found = find_task_data(tmp_path)
    assert [len(found[part]) for part in TASK_SETS] == [4, 4, 4]
    assert found["test"].paths[0].is_relative_to(tmp_path / test)


def test_an_augmented_set_beside_the_real_ones_gives_its_train_split(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    augmented(tmp_path / "synthetic", kinds=("synthetic",))
    found = find_task_data(tmp_path)["synthetic"]
    assert {path.parts[-3] for path in found.paths} == {"train"} and len(found) == 2


@pytest.mark.parametrize("test", ["test", "val"])
def test_what_augment_made_of_a_csv_with_splits(tmp_path: Path, test: str) -> None:
    found = find_task_data(augmented(tmp_path, (test, "train")))
    names = {part: [path.relative_to(tmp_path).as_posix() for path in own.paths] for part, own in found.items()}
    assert names["real"] == ["train/dots/dotstrain 1.png", "train/lines/linestrain 1.png"]
    assert names["synthetic"] == ["train/dots/dotstrain 1-s0.png", "train/lines/linestrain 1-s0.png"]
    assert names["test"] == [f"{test}/dots/dots{test} 1.png", f"{test}/lines/lines{test} 1.png"]
    assert found["test"].groups.tolist() == [f"dots-{test}", f"lines-{test}"]
    assert {own.classes for own in found.values()} == {CLASSES}


def test_groups_of_a_split_set_stay_those_of_its_manifest(tmp_path: Path) -> None:
    for part in ("real", "test"):
        fill(tmp_path / part)
    augmented(tmp_path / "synthetic", kinds=("synthetic",))
    assert find_task_data(tmp_path)["synthetic"].groups.tolist() == ["dots-train", "lines-train"]


def test_layouts_that_cannot_be_told_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_task_data(tmp_path / "none")
    fill(tmp_path / "plain" / "train")
    with pytest.raises(InputError, match="no synthetic in it"):
        find_task_data(tmp_path / "plain")
    with pytest.raises(InputError, match="no real images of split train; make it with --originals link"):
        find_task_data(augmented(tmp_path / "bare", kinds=("synthetic",)))
    with pytest.raises(InputError, match="splits a, b; name train and test"):
        find_task_data(augmented(tmp_path / "ab", ("a", "b")))
    with pytest.raises(InputError, match="splits train; name train and test"):
        find_task_data(augmented(tmp_path / "alone", ("train",)))


def test_a_manifest_above_speaks_for_its_own_folders_only(tmp_path: Path) -> None:
    fill(tmp_path / "real")
    (tmp_path / "manifest.csv").write_text("path,kind,label,group\ndots/g0_0.png,real,dots,elsewhere\n")
    assert "elsewhere" not in read_labelled(tmp_path / "real").groups
