"""The main job as a user runs it: real files, the command line in a process of its own, the built-in model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from PIL import Image

from ssl_tilegen.cli import main
from tests.processes import forked

pytestmark = pytest.mark.slow


def run(*words: object, cwd: Path) -> dict:
    """The JSON summary of a command that must succeed."""
    heard = cwd / "heard.log"
    process = forked(heard, run_in, cwd, [*map(str, words), "--json"])
    process.join()
    assert process.exitcode == 0, heard.read_text()
    return json.loads(heard.read_text().splitlines()[-1])


def run_in(folder: Path, words: list[str]) -> None:
    os.chdir(folder)
    main(words)


def test_a_real_slide_becomes_a_pyramid_that_openslide_and_tifffile_open_with_its_mpp(data_dir, tmp_path):
    slide = data_dir / "slides" / "cmu-1-small-region.svs"
    run("embed", slide, "-o", "cmu.zarr", cwd=tmp_path)
    report = run("generate", "--grid", "cmu.zarr", "--size", 768, "--steps", 3, "-o", "x.ome.tif", cwd=tmp_path)
    assert report["fit"] == "crop" and report["size"] == [768, 768]
    with openslide.OpenSlide(tmp_path / "x.ome.tif") as made, openslide.OpenSlide(slide) as real:
        assert made.dimensions == (768, 768) and made.level_count >= 3
        assert float(made.properties["openslide.mpp-x"]) == pytest.approx(0.499, abs=1e-3)
        x, y, width, height = report["region"]
        ours = np.asarray(made.read_region((0, 0), 0, (width, height)).convert("RGB"), float)
        theirs = np.asarray(real.read_region((x, y), 0, (width, height)).convert("RGB"), float)
    assert layout_correlation(ours, theirs) > 0.6
    with tifffile.TiffFile(tmp_path / "x.ome.tif") as file:
        assert file.is_ome and len(file.series[0].levels) >= 3
    facts = json.loads((tmp_path / "x.ome.tif.json").read_text())
    assert facts["synthetic"] is True and facts["provenance"]["seed"] == 0


def test_a_real_geotiff_becomes_a_cog_on_its_ground(data_dir, tmp_path):
    source = data_dir / "rasters" / "oam_area3.tif"
    run("embed", source, "-o", "area.zarr", cwd=tmp_path)
    region = "512,256,768,640"
    run("generate", "--grid", "area.zarr", "--region", region, "--steps", 3, "-o", "x.tif", cwd=tmp_path)
    with rasterio.open(tmp_path / "x.tif") as made, rasterio.open(source) as real:
        assert made.crs == real.crs and made.shape == (640, 768)
        assert made.transform.almost_equals(real.transform * real.transform.translation(512, 256), 1e-6)
        assert made.overviews(1) and made.is_tiled
        window = rasterio.windows.Window(512, 256, 768, 640)
        ours, theirs = made.read((1, 2, 3)), real.read((1, 2, 3), window=window)
    assert layout_correlation(np.moveaxis(ours, 0, -1), np.moveaxis(theirs, 0, -1)) > 0.6


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(tmp_path):
    sample = Path(__file__).parents[1] / "examples" / "sample" / "tissue.ome.tif"
    run("embed", sample, "-o", "s.zarr", cwd=tmp_path)
    for name, seed, batch in (("a", 1, 1), ("b", 1, 7), ("c", 2, 1)):
        words = ("--size", 320, "--steps", 3, "--seed", seed, "--batch", batch, "-o", f"{name}.png")
        run("generate", "--grid", "s.zarr", *words, cwd=tmp_path)
    a, b, c = (np.asarray(Image.open(tmp_path / f"{name}.png"), int) for name in "abc")
    assert np.abs(a - b).max() <= 1
    assert np.abs(a - c).mean() > 2


def layout_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the mean colours of 64 px squares of two images."""
    means = []
    for image in (a, b):
        rows, cols = image.shape[0] // 64, image.shape[1] // 64
        squares = image[: rows * 64, : cols * 64].reshape(rows, 64, cols, 64, 3).astype(float).mean((1, 3))
        means.append(squares.ravel())
    return float(np.corrcoef(*means)[0, 1])
