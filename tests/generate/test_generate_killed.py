"""Stopped or killed at any moment, the same command completes the image, to the pixels of a run left alone.

The latents lie in mapped files, as those of large images do.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.io.pyramid import unfinished_image
from ssl_tilegen.workflows.embed.run import embed
from tests.bundles import painting_bundle
from tests.generate.test_generate_ranks import act, said

pytestmark = pytest.mark.slow
torch.set_num_threads(1)
SIDE_PX, ROUNDS = 1216, 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    bundle = painting_bundle(folder / "local")
    pixels = np.random.default_rng(0).integers(40, 220, (SIDE_PX // 8, SIDE_PX // 8, 3), np.uint8)
    Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(folder / "slide.png")
    embed([folder / "slide.png"], EmbedSettings(model=str(bundle), mpp=0.5, out=folder / "slide.zarr"))
    return folder


def started(world: Path, out: Path, *more: str):
    """The command in a process of its own, forked: importing torch anew would take most of the time."""
    words = ["generate", "--grid", str(world / "slide.zarr"), "--model", str(world / "local"), "-o", str(out)]
    words += ["--device", "cpu", "--canvas-mib", "1", "--steps", "6", "--update", "dpmpp_2m", "--json", *more]
    job = multiprocessing.get_context("fork").Process(target=act, args=({}, out.with_name(f"{out.name}.0.log"), words))
    job.start()
    return job


def finished(world: Path, out: Path, *more: str) -> float:
    """Seconds that a run to the end painted and developed."""
    job = started(world, out, *more)
    job.join(300)
    assert job.exitcode == 0, said(out, 0)
    report = json.loads(said(out, 0).splitlines()[-1])
    return report["paint_s"] + report["develop_s"]


@pytest.mark.parametrize(("suffix", "more"), [
    pytest.param(".ome.tif", (), id="ome-tiff"),
    pytest.param(".zarr", (), id="zarr"),
    pytest.param(".tif", ("--keep", "slide.png", "--region", "96,64,1056,1088"), id="keep"),
])  # fmt: skip
def test_killed_again_and_again(suffix: str, more: tuple[str, ...], world: Path, tmp_path: Path) -> None:
    more = tuple(str(world / word) if word.endswith(".png") else word for word in more)
    straight, out, rng = tmp_path / f"straight{suffix}", tmp_path / f"a{suffix}", np.random.default_rng(0)
    seconds, exits, mapped = finished(world, straight, *more), [], False
    for number in range(ROUNDS):
        job = started(world, out, *more)
        while job.is_alive() and not unfinished_image(out).exists():
            time.sleep(0.005)
        if number == 0:  # the first is killed as soon as its latents lie in files, the others at any moment
            while job.is_alive() and not mapped:
                mapped = has_mapped_files(job.pid, unfinished_image(out))
                time.sleep(0.005)
        else:
            time.sleep(float(rng.uniform(0, 0.4 * seconds)))
        if job.is_alive():
            os.kill(job.pid, (signal.SIGKILL, signal.SIGTERM)[number % 2])
        job.join(300)
        exits.append(job.exitcode)
        if job.exitcode == 0:
            break
    assert mapped, "latents did not lie in mapped files"
    assert exits[0] != 0, "the first run was over before it could be killed"
    assert set(exits) <= {-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM, 0}, said(out, 0)
    if exits[-1] != 0:
        finished(world, out, *more)
    assert (pixels_of(out) == pixels_of(straight)).all() and not unfinished_image(out).exists()


def has_mapped_files(pid: int, folder: Path) -> bool:
    """Whether a process has an unnamed file in ``folder`` mapped; taken for granted where the system does not say."""
    maps = Path(f"/proc/{pid}/maps")
    try:
        return not maps.parent.parent.exists() or any(
            str(folder) in line and line.endswith("(deleted)") for line in maps.read_text().splitlines()
        )
    except OSError:
        return False  # gone by now


def pixels_of(path: Path) -> np.ndarray:
    if path.suffix == ".zarr":
        import zarr

        return zarr.open_group(path, mode="r")["0"][:]
    return tifffile.imread(path)
