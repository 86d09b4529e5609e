"""Imported models on a canvas: command line, resume, many processes, recipes; a narrow network with random weights."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.bundle.importers import recognise
from ssl_tilegen.cli import main
from ssl_tilegen.geometry import Lattice, Resolution, Size
from ssl_tilegen.grids import EncoderFacts, GridData, GridSpec, SourceFacts, write_grid
from ssl_tilegen.io.pyramid import unfinished_image
from tests.bundle.importers.sources import lid_folder, pixcell_folder
from tests.bundle.importers.states import PixCell, UNet, Vq, large_image_diffusion
from tests.generate.test_generate_ranks import finish, start

torch.set_num_threads(1)
SIDE_PX = 256


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported PixCell-1024 and an imported paper model, both narrow, and a grid of cells for each."""
    folder = tmp_path_factory.mktemp("imported")
    pixcell, _ = pixcell_folder(folder / "PixCell", PixCell(16))
    run("models", "import", str(pixcell), "-o", str(folder / "pixcell"))
    net = UNet(mult=(1, 2), blocks=1)
    state = large_image_diffusion(16, region=True, net=net, vq=Vq(mult=(1, 1, 2), blocks=1))
    source = lid_folder(folder / "LID", state, net, target="brca")
    config = source / "configs" / "2023-02-project.yaml"
    config.write_text(config.read_text().replace("image_size: 64\n", "image_size: 16\n"))
    run("models", "import", str(source), "-o", str(folder / "paper"))
    for name, encoder, dim, tile in (("pixcell", "uni2-h", 20, 32), ("paper", "hipt-vit256", 16, 64)):
        random_grid(folder / f"{name}.zarr", encoder, dim, tile)
    return folder


def random_grid(path: Path, encoder: str, dim: int, tile: int) -> None:
    rng, cells = np.random.default_rng(0), SIDE_PX // tile
    data = GridData(rng.standard_normal((cells, cells, dim)).astype(np.float16), np.zeros((cells, cells), np.uint8),
                    np.ones((cells, cells), np.float16))  # fmt: skip
    facts = EncoderFacts(encoder, "0" * 64, (0.5,) * 3, (0.5,) * 3, "cls")
    size = Size(SIDE_PX, SIDE_PX)
    source = SourceFacts("slide.svs", "slide", size, "f" * 16)
    write_grid(path, GridSpec(source, Lattice(size, tile, tile), dim, facts, Resolution(0.5, "um")), data)


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert not end.value.code, words


def words(world: Path, name: str, out: Path, *more: str) -> list[str]:
    where = ["--grid", str(world / f"{name}.zarr"), "--model", str(world / name), "-o", str(out)]
    return ["generate", *where, "--device", "cpu", "--json", "--batch", "4", *more]


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_the_bundle_says_whose_it_is(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, licence, recipe in (("pixcell", "CC-BY-NC", "pixcell"), ("paper", "none stated", "paper")):
        run("models", "info", str(world / name), "--json")
        facts = json.loads(capsys.readouterr().out)
        assert licence in facts["licence"] and recipe in facts["recipes"] and facts["origin"]
        card = (world / name / "CARD.md").read_text()
        assert licence in card and facts["name"] in card
    left = ModelBundle.load(world / "paper").info.training["left_out"]
    assert "cond_stage_model.region_fc.weight" in left and "betas" in left


def test_weights_reach_the_bundle_as_they_are(world: Path) -> None:
    imported, bundle = recognise(world / "PixCell"), ModelBundle.load(world / "pixcell")
    for component in ("denoiser", "autoencoder", "conditioner"):
        loaded = getattr(bundle, component).state_dict()
        given = imported.components[component].weights
        assert loaded.keys() == given.keys() and all(torch.equal(loaded[name], given[name]) for name in given)


@pytest.mark.parametrize("merge", ["shift", "average"])
def test_two_processes_paint_what_one_does(merge: str, world: Path, tmp_path: Path) -> None:
    for ranks in (1, 2):
        out = tmp_path / f"{ranks}.png"
        where = ("--merge", merge, "--steps", "3", "--batch", "1")
        copy = start_named(world, out, ranks, *where)
        finish(copy, out)
    assert (tmp_path / "1.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert np.array_equal(pixels_of(tmp_path / "1.png"), pixels_of(tmp_path / "2.png"))


def start_named(world: Path, out: Path, ranks: int, *more: str) -> list:
    """As ``start`` of the ranks' test, whose grid is ``slide.zarr``."""
    slide = world / "slide.zarr"
    if not slide.exists():
        slide.symlink_to(world / "pixcell.zarr", target_is_directory=True)
    return start(world, out, ranks, *more, kind="pixcell")


@pytest.mark.parametrize(("name", "recipe"), [("pixcell", None), ("paper", None), ("pixcell", "pixcell")])
def test_killed_and_resumed_to_the_same_bytes(name: str, recipe: str | None, world: Path, tmp_path: Path) -> None:
    how = ("--recipe", recipe) if recipe else ("--steps", "5")
    run(*words(world, name, tmp_path / "straight.png", *how))
    out = tmp_path / "killed.png"
    pid = os.fork()
    if not pid:
        try:
            main(words(world, name, out, *how))
        finally:
            os._exit(0)
    deadline = time.monotonic() + 120
    while not list(unfinished_image(out).glob("latents.state.*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    saved, killed_early = list(unfinished_image(out).glob("latents.state.*")), not out.exists()
    run(*words(world, name, out, *how))
    assert saved and killed_early and np.array_equal(pixels_of(out), pixels_of(tmp_path / "straight.png"))
    assert pixels_of(out).std() > 5


def test_a_recipe_and_our_own_sampling_counted(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same bundle, the same image: windows of 16 latents on 64 x 64, hop 16 as the paper has for its 64."""
    counts = {}
    for how in ((), ("--recipe", "paper")):
        run(*words(world, "paper", tmp_path / "x.png", "--dry-run", *how))
        facts = json.loads(capsys.readouterr().out)
        counts[how] = facts["steps"], facts["network_latents"]
    assert counts["--recipe", "paper"] == (50, 50 * 2 * 16 * 16**2)
    assert counts[()][0] == 24 and counts[()][1] < counts["--recipe", "paper"][1] * 1.6


def test_a_recipe_that_is_not_there(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, said in ((["--recipe", "other"], "it has: paper"), (["--recipe", "paper", "--steps", "9"], "--steps")):
        with pytest.raises(SystemExit) as end:
            main(words(world, "paper", tmp_path / "x.png", *more))
        assert end.value.code and said in capsys.readouterr().err


def test_an_import_replaces_bundles_alone(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    refused = [
        (tmp_path / "mine", "has no bundle.json of a model bundle"),
        (world / "pixcell", "--overwrite"),
        (world / "PixCell", "source"),
    ]
    for out, said in [*refused, (world / "PixCell" / "b", "source"), (world, "source")]:
        more = ["--overwrite"] if said != "--overwrite" else []
        with pytest.raises(SystemExit) as end:
            main(["models", "import", str(world / "PixCell"), "-o", str(out), *more])
        assert end.value.code and said in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
