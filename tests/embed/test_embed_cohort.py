"""Many inputs: lists, locks, summaries, what is skipped and what is made again."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.errors import InputError, OutputError, TilegenError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.grids import EmbeddingGrid, Validity, is_complete, unfinished_grid
from ssl_tilegen.system.locks import Busy
from ssl_tilegen.workflows.embed.inputs import find_jobs, read_list
from ssl_tilegen.workflows.embed.report import EmbedIncomplete, EmbedReport
from tests.bundles import encoder_bundle
from tests.embed.test_embed import raster, run, same
from tests.io import samples


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_bundle(tmp_path_factory.mktemp("bundle"))


def test_a_list_names_images_and_says_what_their_pixels_measure(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    raster(tmp_path / "data" / "a.tif", 100, 130, crs=None, transform=None)
    raster(tmp_path / "data" / "b.tif", 100, 130)
    table = tmp_path / "list.csv"
    table.write_text("Path, ID ,mpp,gsd\ndata/a.tif,first,0.25,\n\ndata/b.tif,,,\n")
    reports = run([], bundle, list=table, out_dir=tmp_path / "out")
    assert [report.grid.name for report in reports] == ["first.zarr", "b.zarr"]
    spec = EmbeddingGrid.open(tmp_path / "out" / "first.zarr").spec
    assert spec.resolution == Resolution(0.5, "um") and spec.factor == 2
    rows = list(csv.DictReader((tmp_path / "out" / "embed-summary.csv").open()))
    assert [(row["status"], row["cells"], row["ok"]) for row in rows] == [("done", "2", "2"), ("done", "6", "6")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'path'"),
        ("slide,mpp\na.svs,0.5\n", "no column 'path'"),
        ("path,mpp\n", "names no image"),
        ("path,mpp\na.svs,half\n", "line 2: mpp half is not a positive number"),
        ("path,mpp\na.svs,0.5\nb.svs,-1\n", "line 3: mpp -1"),
        ("path,mpp\n,0.5\n", "line 2: no path"),
        ("path,mpp,gsd\na.svs,0.5,2\n", "mpp and gsd"),
        ("path,id\na.svs,x/y\n", "no file name"),
    ],
)
def test_a_bad_list_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_list(tmp_path / "l.csv")
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        find_jobs([], EmbedSettings(list=tmp_path / "none.csv"))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file systems that hold no name but UTF-8")
@pytest.mark.parametrize("table", ["t.csv", "t.json"])
def test_a_name_that_is_not_utf8_is_written_down_escaped(bundle: Path, tmp_path: Path, table: str) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (130, 100, 3), np.uint8)
    odd = tmp_path / os.fsdecode(b"odd_\xff.png")
    for path in (odd, tmp_path / "plain.png"):
        with path.open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    how = {"out_dir": tmp_path / "o", "summary": tmp_path / table, "gsd": 0.15, "preview": True}
    reports = run([odd, tmp_path / "plain.png"], bundle, **how)
    assert [report.status for report in reports] == ["done", "done"]
    assert reports[0].grid.name == os.fsdecode(b"odd_\xff.zarr") and not list((tmp_path / "o").glob("*.part"))
    assert EmbeddingGrid.open(reports[0].grid).spec.source.name == r"odd_\udcff.png"
    again = run([odd, tmp_path / "plain.png"], bundle, **how, skip_existing=True)
    assert [report.status for report in again] == ["skipped", "skipped"]
    text = (tmp_path / table).read_text(encoding="utf-8")
    rows = json.loads(text) if table == "t.json" else list(csv.DictReader(text.splitlines()))
    assert [Path(row["input"]).name for row in rows] == [r"odd_\udcff.png", "plain.png"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file systems that hold no name but UTF-8")
def test_a_raster_whose_name_is_not_utf8_fails_alone(bundle: Path, tmp_path: Path) -> None:
    odd = raster(tmp_path / "a.tif", 100, 130).rename(tmp_path / os.fsdecode(b"odd_\xff.tif"))
    inputs = [odd, raster(tmp_path / "plain.tif", 100, 130)]
    with pytest.raises(EmbedIncomplete, match=r"1 of 2 inputs failed, 1 done: .*odd_.*\.tif: .*in UTF-8.*; rename it"):
        run(inputs, bundle, out_dir=tmp_path / "o")
    rows = list(csv.DictReader((tmp_path / "o" / "embed-summary.csv").open(encoding="utf-8")))
    assert [row["status"] for row in rows] == ["failed", "done"]


def test_ids_resolve_names_that_clash(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.svs").write_text("")
    with pytest.raises(OutputError, match="--list"):
        find_jobs([tmp_path / "*" / "*.svs"], EmbedSettings(out_dir=tmp_path))
    (tmp_path / "l.csv").write_text("path,id\na/s.svs,one\nb/s.svs,two\n")
    jobs = find_jobs([], EmbedSettings(list=tmp_path / "l.csv", out_dir=tmp_path / "o"))
    assert [job.grid.name for job in jobs] == ["one.zarr", "two.zarr"]


def test_a_summary_tells_of_all_inputs_also_when_some_fail(bundle: Path, tmp_path: Path) -> None:
    raster(tmp_path / "good.tif", 100, 100)
    (tmp_path / "bad.svs").write_text("not a slide")
    for name in ("s.csv", "s.json"):
        with pytest.raises(EmbedIncomplete):
            run(tmp_path, bundle, summary=tmp_path / name, skip_existing=True)
    rows = json.loads((tmp_path / "s.json").read_text())
    assert [(Path(row["input"]).name, row["status"]) for row in rows] == [
        ("bad.svs", "failed"),
        ("good.tif", "skipped"),
    ]
    assert "bad.svs" in rows[0]["error"] and rows[1]["ok"] == 2 * 2
    assert [row["status"] for row in csv.DictReader((tmp_path / "s.csv").open())] == ["failed", "done"]


@pytest.mark.parametrize("name", ["s.csv", "s.json"])
def test_two_jobs_may_share_a_summary(bundle: Path, tmp_path: Path, name: str) -> None:
    table = tmp_path / name
    for image in ("a", "b", "a"):
        source = raster(tmp_path / f"{image}.tif", 100, 100)
        run(source, bundle, summary=table, out=tmp_path / f"{image}.zarr", overwrite=True)
    rows = json.loads(table.read_text()) if name.endswith("json") else list(csv.DictReader(table.open()))
    assert [(Path(row["grid"]).name, row["status"]) for row in rows] == [("b.zarr", "done"), ("a.zarr", "done")]
    assert not list(tmp_path.glob("*.lock"))


def test_a_grid_that_lost_a_part_is_made_again_and_a_whole_one_is_not(bundle: Path, tmp_path: Path) -> None:
    source = raster(tmp_path / "a.tif", 40 * 32, 40 * 32)
    run(source, bundle, stride=32, out=tmp_path / "a.zarr")
    before = EmbeddingGrid.open(tmp_path / "a.zarr").read()
    assert run(source, bundle, stride=32, out=tmp_path / "a.zarr", skip_existing=True)[0].status == "skipped"
    for lost in ("embedding/c/0/1/0", "valid/c/1/0"):
        (tmp_path / "a.zarr" / lost).unlink()
        assert not is_complete(tmp_path / "a.zarr")
        assert run(source, bundle, stride=32, out=tmp_path / "a.zarr", skip_existing=True)[0].status == "done"
        same(EmbeddingGrid.open(tmp_path / "a.zarr").read(), before)
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.lock"))


def test_what_is_missing_beside_a_finished_grid_is_made_by_the_same_command(bundle: Path, tmp_path: Path) -> None:
    """As after a kill between naming the grid and drawing it."""
    source = samples.write_slide(tmp_path / "a.ome.tif", samples.texture(300, 400))
    wanted = {"preview": True, "geojson": True, "out": tmp_path / "a.zarr"}
    beside = [tmp_path / name for name in ("a.embed-preview.png", "a.geojson")]
    run(source, bundle, **wanted)
    drawn = [path.read_bytes() for path in beside]
    for lost, options in ((0, {}), (1, {"skip_existing": True})):
        beside[lost].unlink()
        assert run(source, bundle, **wanted, **options)[0].status == "done"
        assert [path.read_bytes() for path in beside] == drawn
    assert run(source, bundle, **wanted, skip_existing=True)[0].status == "skipped"
    with pytest.raises(OutputError, match="exists"):
        run(source, bundle, **wanted)


def test_one_bad_tile_does_not_hide_the_tissue_around_it(bundle: Path, tmp_path: Path) -> None:
    """A slide of one level: its overview is read from the damaged one."""
    image = np.full((1024, 1024, 3), 240, np.uint8)
    image[100:900, 100:900] = (190, 110, 160)
    run(samples.write_damaged_slide(tmp_path / "a.tif", image, slice(0)), bundle, out=tmp_path / "whole.zarr")
    samples.write_damaged_slide(tmp_path / "a.tif", image, slice(27, 28))
    run(tmp_path / "a.tif", bundle, out=tmp_path / "damaged.zarr")
    whole, damaged = (EmbeddingGrid.open(tmp_path / f"{name}.zarr").read() for name in ("whole", "damaged"))
    read = damaged.valid != Validity.READ_ERROR
    assert 0 < (~read).sum() <= 9 and (whole.valid == Validity.OK).sum() > 100
    assert (damaged.valid == whole.valid)[read].mean() > 0.97, "at most the nearest neighbours"


def test_of_many_failures_each_cause_is_told_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.tif" for index in range(30)]
    failed = [EmbedReport(path, tmp_path / "b", "failed", error=f"{path}: is empty") for path in paths]
    others = [EmbedReport(path, tmp_path / "b", "failed", error=f"{path}: e{k}.") for k, path in enumerate(paths)]
    done = EmbedReport(paths[0], tmp_path / "b", "done")
    text = str(EmbedIncomplete(failed))
    assert text.startswith("30 of 30 inputs failed, none done: ") and text.count("is empty") == 1 and len(text) < 999
    assert "and 27 more" in text
    text = str(EmbedIncomplete([*others, done]))
    assert text.startswith("30 of 31 inputs failed, 1 done: ") and "e9." in text and "e10." not in text
    assert "20 other causes" in text


def test_what_is_not_ours_is_never_replaced_by_skip_existing(bundle: Path, tmp_path: Path) -> None:
    source = raster(tmp_path / "a.tif", 100, 100)
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "precious").write_text("x")
    with pytest.raises(OutputError, match="not made by this program"):
        run(source, bundle, skip_existing=True)
    assert (tmp_path / "a.zarr" / "precious").exists()


def test_a_grid_that_another_process_writes_is_left_to_it(bundle: Path, tmp_path: Path) -> None:
    for name in "ab":
        raster(tmp_path / f"{name}.tif", 100, 100)
    with _held_by_another_process(tmp_path / "a.zarr") as pid:
        with pytest.raises(Busy, match=rf"a\.zarr: being written by process {pid} on {socket.gethostname()} since"):
            run(tmp_path / "a.tif", bundle)
        reports = run(tmp_path, bundle)
        assert [report.status for report in reports] == ["busy", "done"]
        assert not (tmp_path / "a.zarr").exists() and not unfinished_grid(tmp_path / "a.zarr").exists()
    assert run(tmp_path / "a.tif", bundle)[0].status == "done", "its process is gone: the lock is stale"
    assert not list(tmp_path.glob("*.lock"))


def test_bad_paths_of_outputs_are_one_line(bundle: Path, tmp_path: Path) -> None:
    source = raster(tmp_path / "a.tif", 100, 100)
    with pytest.raises(TilegenError, match="cannot write here") as caught:
        run(source, bundle, summary=Path("/proc/none/s.csv"))
    assert "\n" not in str(caught.value)


def test_two_settings_objects_see_the_same_jobs(tmp_path: Path) -> None:
    """The split over processes depends on nothing but the inputs."""
    for name in "cab":
        raster(tmp_path / f"{name}.tif", 70, 70)
    first, second = (find_jobs([tmp_path], EmbedSettings()) for _ in range(2))
    assert first == second and [job.image.name for job in first] == ["a.tif", "b.tif", "c.tif"]


class _held_by_another_process:  # noqa: N801
    """A process that holds the lock of a path until the end of the block."""

    def __init__(self, path: Path) -> None:
        program = (
            "import sys, time\nfrom pathlib import Path\nfrom ssl_tilegen.system.locks import lock\n"
            "with lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
        )
        self._job = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> int:
        assert self._job.stdout and self._job.stdout.readline() == "held\n"
        return self._job.pid

    def __exit__(self, *_: object) -> None:
        self._job.kill()
        self._job.wait()
