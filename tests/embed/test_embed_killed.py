"""Killed at any moment, the same command completes the grid, and it equals that of a run that was left alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_tilegen.grids import EmbeddingGrid, is_complete, unfinished_grid
from ssl_tilegen.system.atomic import temporary_beside
from tests.bundles import encoder_bundle
from tests.embed.test_embed import raster, run, same
from tests.processes import command, forked

pytestmark = pytest.mark.slow
STRIDE = 16


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raster(tmp_path_factory.mktemp("source") / "a.tif", 600, 1000)


@pytest.fixture(scope="module")
def undisturbed(source: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingGrid:
    out = tmp_path_factory.mktemp("whole") / "g.zarr"
    run(source, bundle, stride=STRIDE, out=out)
    return EmbeddingGrid.open(out)


def started(source: Path, bundle: Path, out: Path, *options: object, heard: str = "heard.log") -> Any:
    """The command in a process of its own; what it says is kept beside the folder of ``out``."""
    words = ["embed", source, "-o", out, "--model", bundle, "--device", "cpu", "--stride", STRIDE, *options]
    return command(out.parent.with_name(heard), words)


def moved_aside(out: Path) -> None:
    """What a process leaves that is killed while it replaces a grid."""
    out.rename(temporary_beside(out, "old"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "g.zarr"


def test_killed_again_and_again(source: Path, bundle: Path, undisturbed: EmbeddingGrid, out: Path) -> None:
    rng, kills = np.random.default_rng(), 0
    for _ in range(3):
        job = started(source, bundle, out)
        while job.is_alive() and not unfinished_grid(out).exists():
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.25)))
        job.kill()
        job.join()
        kills += job.exitcode == -9
    assert kills and not is_complete(out)
    last = started(source, bundle, out)
    last.join()
    assert last.exitcode == 0
    same(EmbeddingGrid.open(out).read(), undisturbed.read())
    assert [path.name for path in out.parent.iterdir()] == ["g.zarr"], "no lock and no leftover"


def test_killed_while_a_finished_grid_is_replaced(
    source: Path, bundle: Path, undisturbed: EmbeddingGrid, out: Path
) -> None:
    """The moment between moving the old grid aside and naming the new one, made by hand."""
    run(source, bundle, stride=STRIDE, out=out)
    job = forked(out.parent.with_name("heard.log"), moved_aside, out)
    job.join()
    assert job.exitcode == 0 and not out.exists()
    run(source, bundle, stride=STRIDE, out=out, shard=(0, 2), overwrite=True)
    assert unfinished_grid(out).exists()
    run(source, bundle, stride=STRIDE, out=out, overwrite=True)
    same(EmbeddingGrid.open(out).read(), undisturbed.read())
    assert [path.name for path in out.parent.iterdir()] == ["g.zarr"]


def test_shares_of_two_processes_make_one_grid(
    source: Path, bundle: Path, undisturbed: EmbeddingGrid, out: Path
) -> None:
    jobs = [started(source, bundle, out, "--shard", f"{index}/2", heard=f"{index}.log") for index in range(2)]
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    same(EmbeddingGrid.open(out).read(), undisturbed.read())
    assert [path.name for path in out.parent.iterdir()] == ["g.zarr"]


def test_a_writer_is_told_that_another_one_finished_the_grid(
    source: Path, bundle: Path, undisturbed: EmbeddingGrid, out: Path
) -> None:
    """Two that store their last shards at once: the first one gives the grid its name, the second finds it there."""
    first, second = (EmbeddingGrid.create(out, undisturbed.spec) for _ in range(2))
    for index, window in enumerate(first.shards):
        (first if index % 2 else second).write_shard(index, undisturbed.read(window))
    assert not second.is_published() and first.finish() is not None
    assert second.is_published() and second.pending() == [] and second.counts() == first.counts()
    found = second.finish()
    assert found is not None
    same(found.read(), undisturbed.read())
