"""`evaluate` as its users meet it: what it takes, what it says, the page it writes, and bad input."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from ssl_tilegen.cli import main
from ssl_tilegen.config import EmbedSettings, EvaluateSettings, GenerateSettings
from ssl_tilegen.errors import FormatError, InputError, TilegenError
from ssl_tilegen.grids import EmbeddingGrid, write_grid
from ssl_tilegen.system.marks import report_html
from ssl_tilegen.workflows.embed.run import embed
from ssl_tilegen.workflows.evaluate.run import evaluate
from ssl_tilegen.workflows.evaluate.table import table
from ssl_tilegen.workflows.generate.run import generate
from ssl_tilegen.workflows.labelled_images import read_labelled
from tests.bundles import encoder_bundle, painting_bundle

SIDE = 48


def tile(rng: np.random.Generator, colour: float = 0.0, side: int = SIDE, blur: float = 2.0) -> np.ndarray:
    """Coloured blobs; ``colour`` moves red against blue."""
    smooth = gaussian_filter(rng.normal(size=(side, side, 3)), (blur, blur, 0)) * 300 + 120
    return (smooth + np.array([1, 0, -1]) * colour + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


def fill(folder: Path, seed: int, fields: int = 12, copies: int = 2, **how: Any) -> Path:
    """A folder of PNGs gNN_K.png, whose copies of a field differ by noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for field in range(fields):
        rng = np.random.default_rng([seed, field])
        base = tile(rng, **how)
        for copy in range(copies):
            noisy = base + rng.normal(0, 2, base.shape)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"g{field:02d}_{copy}.png")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders a and b alike, blurred, and a task of two classes."""
    root = tmp_path_factory.mktemp("sets")
    fill(root / "a", 1)
    fill(root / "b", 2)
    fill(root / "blurred", 3, blur=5.0)
    for part, seed in (("real", 10), ("synthetic", 10), ("test", 30)):
        for label, colour in (("left", -12.0), ("right", 12.0)):
            fill(root / "task" / part / label, seed + (label == "right"), fields=8, colour=colour)
    return root


def run(**how: Any) -> Any:
    return evaluate(EvaluateSettings(**{"encoder": ("texture",), "rounds": 6} | how))


def code_of(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def by_name(report: Any) -> dict[str, Any]:
    return {score.name: score for score in report.scores}


def test_like_sets_are_near_and_blurred_ones_far(sets: Path) -> None:
    near, far = (by_name(run(real=sets / "a", synthetic=sets / other)) for other in ("b", "blurred"))
    fd = near["fd"]
    assert fd.n_real == fd.n_synthetic == 24 and fd.dim > 60 and fd.low < fd.value < fd.high
    assert fd.matched == pytest.approx(fd.baseline, rel=0.5) and fd.n_equal == 12
    assert far["fd"].matched > 2.5 * far["fd"].baseline and far["kid"].low > near["kid"].high
    assert near["coverage"].value > 0.5 > far["coverage"].value
    assert set(near) >= {"fd", "kid", "precision", "recall", "density", "coverage", "vendi", "psnr", "ssim"}


def test_small_sets_are_warned_about(sets: Path) -> None:
    assert any("24 windows for" in line for line in run(real=sets / "a", synthetic=sets / "b").warnings)


def test_pairs_by_name_and_by_manifest(sets: Path, tmp_path: Path) -> None:
    same = by_name(run(real=sets / "a", synthetic=sets / "a"))
    assert same["ssim"].value == pytest.approx(1) and same["pair_cosine"].value == pytest.approx(1, abs=1e-5)
    made = tmp_path / "made"
    (made / "x").mkdir(parents=True)
    shutil.copytree(sets / "a", tmp_path / "real" / "x")
    with (made / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "source"])
        for i in range(12):
            shutil.copy(sets / "a" / f"g{i:02d}_1.png", made / "x" / f"new{i}.png")
            writer.writerow([f"x/new{i}.png", f"somewhere/x/g{i:02d}_1.png"])
    assert by_name(run(real=tmp_path / "real", synthetic=made))["ssim"].value == pytest.approx(1)


def test_copies_of_training_images_are_found(sets: Path) -> None:
    honest, copied = (by_name(run(real=sets / "b", synthetic=s, train=sets / "a", metrics=("copy",)))
                      for s in (sets / "blurred", sets / "a"))  # fmt: skip
    assert copied["copy_nearer"].value == 1 and copied["copy_suspects"].value == 1
    assert honest["copy_suspects"].value < 0.2


def test_jpeg_against_lossless_is_warned_about(sets: Path, tmp_path: Path) -> None:
    for path in sorted((sets / "b").glob("*.png")):
        Image.open(path).save(tmp_path / f"{path.stem}.jpg", quality=75)
    report = run(real=sets / "a", synthetic=tmp_path)
    assert any("jpeg q75" in line and "lossless" in line for line in report.warnings)
    assert not any("stored differently" in line for line in run(real=sets / "a", synthetic=sets / "b").warnings)


def test_the_page_escapes_names_from_outside(sets: Path, tmp_path: Path) -> None:
    name = '<img onerror=x>&"'
    real, page = tmp_path / name, tmp_path / "r.html"
    shutil.copytree(sets / "a", real)
    for part in ("real", "synthetic", "test"):
        for old, new in (("left", name), ("right", "right")):
            shutil.copytree(sets / "task" / part / old, tmp_path / "task" / part / new)
    run(real=real, synthetic=sets / "b", task=tmp_path / "task", report=page, gallery=1, task_models=("linear",),
        seeds=2)  # fmt: skip
    text = page.read_text()
    assert "onerror=x" in text and "<img onerror" not in text
    assert not re.search(r"&amp;(?:amp|lt|gt|quot|#34|#39);", text)  # nothing is escaped twice


def test_the_page_is_whole_and_asks_nothing_of_the_network(sets: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    run(real=sets / "a", synthetic=sets / "blurred", train=sets / "b", task=sets / "task", report=page, gallery=4,
        task_models=("linear",), seeds=2)  # fmt: skip
    text = page.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)|url\(|https?://|@import|<script", text)
    assert text.count("<svg") >= 5 and text.count("data:image/webp") >= 12 and text.endswith("</html>\n")
    facts = json.loads(page.with_name("r.html.json").read_text())
    assert facts["figures"][0]["name"] == "fd" and len(facts["task"]["confusion"]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.html", "r.html.json"]


def test_json_is_all_there_is_on_stdout(sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ("--encoder", "texture", "--rounds", 3, "--report", tmp_path / "r.html")
    assert code_of("evaluate", "--real", sets / "a", "--synthetic", sets / "b", *how, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["window_px"] == SIDE and out.count("\n") == 1 and "warning" in err
    assert code_of("evaluate", "--real", sets / "a", "--synthetic", sets / "b", *how) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert code_of("evaluate", "--real", sets / "a", "--synthetic", sets / "b", *how, "--overwrite") == 0
    assert "Frechet" in capsys.readouterr().out


def test_same_seed_same_figures(sets: Path) -> None:
    one, two = (run(real=sets / "a", synthetic=sets / "b", encoder=("texture",)) for _ in range(2))
    assert one.scores == two.scores


def test_unreadable_images_are_left_out_and_told(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(sets / "a", tmp_path / "real")
    whole = (tmp_path / "real" / "g00_0.png").read_bytes()
    (tmp_path / "real" / "cut.png").write_bytes(whole[: len(whole) // 2])
    arguments = ("evaluate", "--real", tmp_path / "real", "--synthetic", sets / "b", "--encoder", "texture", "--json")
    assert code_of(*arguments, "--rounds", 3) == 3
    out, err = capsys.readouterr()
    assert len(json.loads(out)["skipped"]) == 1 and "cut.png" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "says"),
    [("--real NONE --synthetic A", "no such file"), ("--real EMPTY --synthetic A", "no images there"),
     ("--real A --synthetic SMALL", "no common size"), ("--real A --synthetic A --window 64", "no common size"),
     ("--real A --synthetic BROKEN", "none of its 1 images"), ("--task A", "no real or train"),
     ("--task ONE", "a single class"), ("--real A --synthetic A --report x.pdf", ".html"),
     ("--real A --synthetic A --encoder no-such-net", "no-such-net"),
     ("--real A --synthetic A --grid NONE", "goes with one synthetic")],
)  # fmt: skip
def test_bad_input_is_one_line(
    options: str, says: str, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "EMPTY").mkdir()
    for name, content in (("SMALL", Image.new("RGB", (20, 20))), ("BROKEN", None)):
        (tmp_path / name).mkdir()
        content.save(tmp_path / name / "a.png") if content else (tmp_path / name / "a.png").write_bytes(b"no")
    shutil.copytree(sets / "task", tmp_path / "ONE")
    for part in ("real", "synthetic", "test"):
        shutil.rmtree(tmp_path / "ONE" / part / "right")
    places = {"A": sets / "a"} | {name: tmp_path / name for name in ("NONE", "EMPTY", "SMALL", "BROKEN", "ONE")}
    words = [str(places.get(word, word)) for word in options.split()]
    base = () if "--encoder" in options else ("--encoder", "texture")
    assert code_of("evaluate", *words, *base, "--rounds", 2) == 1
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert out == "" and len(errors) == 1 and says in errors[0] and err.splitlines()[-1] == errors[0]


@pytest.mark.parametrize("arguments", ["", "--real a", "--real a --synthetic b --metrics fid", "--task a --seeds 1",
                                       "--real a --synthetic b --weights w",
                                       "--real a --synthetic b --encoder inception,resnet18 --weights w"])  # fmt: skip
def test_wrong_usage_is_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("evaluate", *arguments.split()) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_sets_too_small_to_compare_say_what_would_do(sets: Path, tmp_path: Path) -> None:
    few = fill(tmp_path / "few", 5, fields=3)
    report = run(real=few, synthetic=sets / "b", encoder=("texture",), metrics=("fd", "kid"), rounds=2)
    assert not report.scores
    assert any(
        "6 real and 24 synthetic windows are too few" in line and "14 or more" in line for line in report.warnings
    )


# Tasks


@pytest.mark.slow
def test_task_table_confusion_and_groups(sets: Path, bundle: Path) -> None:
    report = run(task=sets / "task", encoder=("texture", "bundle"), model=str(bundle), task_steps=4)
    rows = {(row.model, row.features, row.arm): row for row in report.task.rows}
    assert {model for model, _, _ in rows} == {"linear probe", "nearest neighbours", "fine-tuned network"}
    row = rows["linear probe", "texture", "both"]
    assert row.accuracy.value > 0.9 and row.n_test == 32 and row.test_groups == 16 and row.gain is not None
    assert row.n_train == 2 * rows["linear probe", "texture", "real"].n_train == 2 * 2 * 6 * 2
    assert report.task.confusion.sum() == 32 and np.trace(report.task.confusion) > 28
    assert "linear" in table(report) and "made as" in table(report)


def test_labels_from_a_csv(sets: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    real = sets / "task" / "real"
    lines = [f"{p},{p.parent.name},s{p.name[2]}" for p in sorted(real.glob("*/*.png"))]
    path.write_text("path,label,group\n" + "\n".join(lines) + "\n")
    found = read_labelled(path)
    assert found.classes == ("left", "right") and set(found.groups) == {f"s{i}" for i in range(8)}
    path.write_text("path,label\na.png,left\nb.png,\n")
    with pytest.raises(InputError, match="line 3: no label"):
        read_labelled(path)
    path.write_text("file\na.png\n")
    with pytest.raises(InputError, match="no columns"):
        read_labelled(path)


@pytest.mark.slow
def test_image_level_by_attention(tmp_path: Path) -> None:
    for part, seed, fields in (("real", 0, 3), ("synthetic", 50, 3), ("test", 100, 5)):
        for label, colour in (("left", -20.0), ("right", 20.0)):
            own = seed + (label == "right")
            fill(tmp_path / part / label, own, fields=fields, copies=1, colour=colour, side=128)
    report = run(task=tmp_path, window=32, task_models=("mil",), seeds=2)
    assert report.task.image_level
    rows = {row.arm: row for row in report.task.rows}
    assert rows["real"].model == "attention MIL" and rows["both"].accuracy.value > 0.85 and rows["real"].n_test == 10


# Grids, slides, conditions


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, its grid, one painted from it, a crop and a stretched one; all by a bundle of random weights."""
    root = tmp_path_factory.mktemp("painted")
    painting_bundle(root / "bundle")
    Image.fromarray(tile(np.random.default_rng(0), side=384, blur=8)).save(root / "source.png")
    common: dict[str, Any] = {"model": str(root / "bundle")}
    embed([root / "source.png"], EmbedSettings(out=root / "grid.zarr", gsd=0.15, **common))
    for name, more in (("whole", {}), ("crop", {"size": 256, "fit": "crop"}), ("wide", {"size": "640x448"})):
        how = {"grid": root / "grid.zarr", "out": root / f"{name}.png"} | common | more
        generate(GenerateSettings.model_validate(how))
    return root


@pytest.mark.parametrize(("name", "cells"), [("whole", 36), ("crop", 16), ("wide", 70)])
def test_condition_of_whole_cropped_and_stretched_pictures(painted: Path, name: str, cells: int) -> None:
    report = run(real=painted / "source.png", synthetic=painted / f"{name}.png", grid=painted / "grid.zarr",
                 model=str(painted / "bundle"), metrics=("large",))  # fmt: skip
    found = report.condition
    assert found.cells == cells and -1 <= found.cosine <= 1
    for figure in ("cosine", "top1", "top5"):
        low, high = found.spans[figure]
        assert -1 <= low <= getattr(found, figure) <= high <= 1
    assert np.diff(found.spans["cosine"]) > 0 and "top1" not in table(report) and " to " in table(report)


def test_a_repainted_image_is_compared_as_the_whole_that_it_is(painted: Path) -> None:
    """Cells that the repainted region does not touch are those of the source."""
    generate(GenerateSettings(grid=painted / "grid.zarr", out=painted / "kept.png", model=str(painted / "bundle"),
                              keep=str(painted / "source.png"), region="192,128,128,192"))  # fmt: skip
    report = run(real=painted / "source.png", synthetic=painted / "kept.png", grid=painted / "grid.zarr",
                 model=str(painted / "bundle"), metrics=("large",))  # fmt: skip
    cosine, region = report.condition.map, np.zeros((6, 6), bool)
    region[2:5, 3:5] = True
    assert report.condition.cells == 36 and cosine[~region].min() > 0.999 > cosine[region].max()


@pytest.mark.parametrize("name", ["whole", "wide"])
def test_an_image_is_not_compared_with_a_grid_that_it_was_not_painted_from(
    painted: Path, tmp_path: Path, name: str
) -> None:
    """A grid of the same size is known by its hash; a record without one still has the size of the canvas."""
    cells = EmbeddingGrid.open(painted / "grid.zarr").read()
    other = replace(cells, embedding=cells.embedding[::-1].copy())
    write_grid(tmp_path / "other.zarr", EmbeddingGrid.open(painted / "grid.zarr").spec, other)
    how = {"real": painted / "source.png", "model": str(painted / "bundle"), "metrics": ("large",)}
    with pytest.raises(FormatError, match=r"other\.zarr: .*png was painted from another grid, grid\.zarr, .*give that"):
        run(**how, synthetic=painted / f"{name}.png", grid=tmp_path / "other.zarr")
    shutil.copy(painted / f"{name}.png", tmp_path / "old.png")
    facts = json.loads((painted / f"{name}.png.json").read_text())["provenance"]
    del facts["grid_sha256"]
    image = tmp_path / "old.png"
    (tmp_path / "old.png.json").write_text(json.dumps({"provenance": facts}))
    assert run(**how, synthetic=image, grid=painted / "grid.zarr").condition.cells
    Image.fromarray(tile(np.random.default_rng(0), side=320, blur=8)).save(tmp_path / "small.png")
    embed([tmp_path / "small.png"], EmbedSettings(out=tmp_path / "small.zarr", gsd=0.15, model=str(painted / "bundle")))
    if name == "whole":
        with pytest.raises(FormatError, match=r"small\.zarr: .*old\.png was painted from another grid, grid\.zarr"):
            run(**how, synthetic=image, grid=tmp_path / "small.zarr")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file systems that hold no name but UTF-8")
def test_names_that_are_not_utf8_are_escaped_in_the_report(sets: Path, tmp_path: Path) -> None:
    for part in ("a", "b"):
        shutil.copytree(sets / part, tmp_path / part)
        for path in list((tmp_path / part).glob("*_0.png")):
            path.rename(path.with_name(os.fsdecode(path.stem.encode() + b"\xff.png")))
    (tmp_path / "b" / os.fsdecode(b"cut\xff.png")).write_bytes(b"\x89PNG")
    page = tmp_path / "page.html"
    report = run(real=tmp_path / "a", synthetic=tmp_path / "b", report=page)
    assert len(report.skipped) == 1 and r"_0\udcff.png" in page.read_text(encoding="utf-8")
    facts = json.loads(page.with_name("page.html.json").read_text(encoding="utf-8"))
    assert report_html(page) is None and facts["skipped"][0][0].endswith(r"cut\udcff.png")


def test_the_seed_moves_the_intervals_of_a_condition_and_of_a_task(painted: Path, sets: Path) -> None:
    how: dict[str, Any] = {
        "synthetic": painted / "whole.png",
        "grid": painted / "grid.zarr",
        "metrics": ("large",),
        "model": str(painted / "bundle"),
        "task": sets / "task",
        "task_models": ("knn",),
        "seeds": 2,
    }
    plain, first, other = (run(real=painted / "source.png", **how, **more) for more in ({}, {"seed": 0}, {"seed": 1}))
    assert plain.condition.spans == first.condition.spans and plain.task.rows == first.task.rows
    assert first.condition.cosine == other.condition.cosine and first.condition.spans != other.condition.spans
    assert first.task.rows != other.task.rows


def test_the_source_itself_follows_its_grid(painted: Path) -> None:
    report = run(real=painted / "source.png", synthetic=painted / "source.png", grid=painted / "grid.zarr",
                 model=str(painted / "bundle"))  # fmt: skip
    assert report.condition.cosine > 0.999 and report.condition.top1 > 0.9
    names = by_name(report)
    assert names["psnr"].value == pytest.approx(60) and {"patch_fd", "crop_fd", "seams_64"} <= set(names)


def test_grids_against_grids_and_pictures(painted: Path, bundle: Path) -> None:
    model = str(painted / "bundle")
    same = run(real=painted / "grid.zarr", synthetic=painted / "grid.zarr", encoder=("bundle",), model=model)
    assert by_name(same)["fd"].value == pytest.approx(0, abs=1e-6) and by_name(same)["fd"].n_real == 36
    beside = {"real": painted / "grid.zarr", "synthetic": painted / "source.png", "gsd": 0.15}
    mixed = run(**beside, encoder=("bundle",), model=model)
    assert by_name(mixed)["fd"].value < 0.01 * max(1.0, by_name(mixed)["fd"].baseline)
    other = encoder_bundle(painted / "other", seed=5)
    with pytest.raises(FormatError, match="encoder"):
        run(**beside, encoder=("bundle",), model=str(other))
    with pytest.raises(TilegenError, match="bundle"):
        run(**beside, model=model)


@pytest.mark.slow
def test_real_tissues_are_farther_apart_than_halves_of_one(data_dir: Path) -> None:
    tiles = data_dir / "tiles/he/val"
    if not tiles.is_dir():
        pytest.skip(f"no {tiles}")
    report = run(real=tiles / "benign", synthetic=tiles / "squamous", limit=48, metrics=("fd", "kid"), rounds=4)
    fd = by_name(report)["fd"]
    assert fd.matched > 5 * fd.baseline
