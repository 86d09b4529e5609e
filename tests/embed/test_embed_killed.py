"""Killed at any moment, the same command completes the grid, and it equals that of a run that was left alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ssl_tilegen.grids import EmbeddingGrid, is_complete, unfinished_grid
from tests.bundles import encoder_bundle
from tests.embed.test_embed import raster, run, same

pytestmark = pytest.mark.slow
STRIDE = 16


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raster(tmp_path_factory.mktemp("source") / "a.tif", 1200, 2100)


@pytest.fixture(scope="module")
def undisturbed(source: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingGrid:
    out = tmp_path_factory.mktemp("whole") / "g.zarr"
    run(source, bundle, stride=STRIDE, out=out)
    return EmbeddingGrid.open(out)


def started(source: Path, bundle: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ssl_tilegen", "embed", str(source), "-o", str(out), "--model", str(bundle)]
    command += ["--device", "cpu", "--stride", str(STRIDE), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_killed_again_and_again(source: Path, bundle: Path, undisturbed: EmbeddingGrid, tmp_path: Path) -> None:
    out, rng, kills = tmp_path / "g.zarr", np.random.default_rng(), 0
    for _ in range(3):
        job = started(source, bundle, out)
        while job.poll() is None and not unfinished_grid(out).exists():
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.6)))
        job.kill()
        kills += job.wait() == -9
    assert kills and not is_complete(out)
    assert started(source, bundle, out).wait() == 0
    same(EmbeddingGrid.open(out).read(), undisturbed.read())
    assert [path.name for path in tmp_path.iterdir()] == ["g.zarr"], "no lock and no leftover"


def test_killed_while_a_finished_grid_is_replaced(
    source: Path, bundle: Path, undisturbed: EmbeddingGrid, tmp_path: Path
) -> None:
    """The moment between moving the old grid aside and naming the new one, made by hand."""
    out = tmp_path / "g.zarr"
    run(source, bundle, stride=STRIDE, out=out)
    aside = "import sys; from pathlib import Path; from ssl_tilegen.system.atomic import temporary_beside as beside; "
    aside += "path = Path(sys.argv[1]); path.rename(beside(path, 'old'))"
    subprocess.run([sys.executable, "-c", aside, str(out)], check=True)
    assert not out.exists()
    run(source, bundle, stride=STRIDE, out=out, shard=(0, 2), overwrite=True)
    assert unfinished_grid(out).exists()
    run(source, bundle, stride=STRIDE, out=out, overwrite=True)
    same(EmbeddingGrid.open(out).read(), undisturbed.read())
    assert [path.name for path in tmp_path.iterdir()] == ["g.zarr"]


def test_shares_of_two_processes_make_one_grid(
    source: Path, bundle: Path, undisturbed: EmbeddingGrid, tmp_path: Path
) -> None:
    out = tmp_path / "g.zarr"
    jobs = [started(source, bundle, out, "--shard", f"{index}/2") for index in range(2)]
    assert [job.wait() for job in jobs] == [0, 0]
    same(EmbeddingGrid.open(out).read(), undisturbed.read())
    assert [path.name for path in tmp_path.iterdir()] == ["g.zarr"]
