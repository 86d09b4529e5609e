"""Grids that a prior samples are the same for any size and any number of processes; and how they are painted."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.errors import FormatError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.nets import build_component
from ssl_tilegen.nets.grid_prior import GridPrior
from ssl_tilegen.nets.grid_unet import GridUNet
from ssl_tilegen.prior.sampling import sample_prior
from ssl_tilegen.prior.spec import PriorSampling
from ssl_tilegen.workflows.generate.placement import Placement
from ssl_tilegen.workflows.generate.run import generate
from ssl_tilegen.workflows.generate.sampling import LOOSE_ABOVE, sampling
from tests.bundles import prior_bundle
from tests.generate.test_generate_ranks import act, finish
from tests.processes import free_port

torch.set_num_threads(1)
HOW = PriorSampling(steps=4, guidance=2.0)


NETS = {
    "cells": lambda: GridPrior(6, 3, width=16, blocks=2, hidden=8),
    "layout": lambda: GridUNet(6, 4, 4, 3, widths=(8, 16), down_blocks=(1, 1), up_blocks=(1,), hidden=8),
}


@pytest.fixture(scope="module", params=NETS)
def net(request) -> GridPrior | GridUNet:
    torch.manual_seed(0)
    net = NETS[request.param]()
    if request.param == "layout":
        net.set_layout(torch.linalg.qr(torch.randn(48, 4)).Q.T)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    return net.eval()


def test_unknown_numbers_and_no_condition_are_the_same(net):
    torch.manual_seed(1)
    x, t, condition = torch.randn(2, 7, 4, 4), torch.tensor([0.3, 0.8]), torch.randn(2, 3, 4, 4)
    assert torch.allclose(net(x, t, torch.full_like(condition, torch.nan)), net(x, t, None), atol=1e-5)
    assert not torch.allclose(net(x, t, condition), net(x, t, None), atol=1e-3)


def test_a_configuration_of_before_is_read():
    """Bundles of earlier versions have the argument ``breaks``, always false."""
    config = {"_class_name": "GridPrior", "dim": 6, "condition_dim": 3, "width": 16, "blocks": 1, "hidden": 8}
    assert build_component(config | {"breaks": False}).config == build_component(config).config
    with pytest.raises(FormatError, match="breaks"):
        build_component(config | {"breaks": True})
    assert PriorSampling.model_validate({"steps": 4, "overlap": 0.5, "settle": 8}) == PriorSampling(steps=4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 11), (9, 7)])
def test_grids_of_any_size_are_the_same_for_any_batch(net, shape):
    condition = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    one, many, other = (
        sample_prior(net, condition, HOW, 5),
        sample_prior(net, condition, HOW, 5, call_cells=16),
        sample_prior(net, condition, HOW, 6),
    )
    assert one.embedding.shape == (*shape, 6) and one.valid.shape == shape
    assert np.allclose(one.embedding, many.embedding, atol=0.03 * one.embedding.std())
    assert not np.allclose(one.embedding, other.embedding, atol=0.1 * one.embedding.std())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return prior_bundle(tmp_path_factory.mktemp("prior") / "bundle")


def test_a_saved_grid_paints_the_same_image_whatever_size_was_asked_for(bundle, tmp_path):
    def run(name: str, **options) -> Path:
        settings = GenerateSettings(model=str(bundle), out=tmp_path / name, steps=2, device="cpu", **options)
        return generate(settings).out

    first = run("a.png", label="rock", size="200x136", save_grid=tmp_path / "g.zarr")
    grid = EmbeddingGrid.open(tmp_path / "g.zarr")
    assert (grid.spec.source.kind, grid.spec.source.size_px, grid.shape) == ("drawn", Size(136, 200), Size(3, 4))
    again, other = run("b.png", grid=grid.path), run("c.png", grid=grid.path, seed=1)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    condition = [json.loads(path.with_name(f"{path.name}.json").read_text()) for path in (first, again)]
    own = {"file": "", "content_sha256": ""}
    assert condition[0] | own == condition[1] | own


def test_two_processes_sample_and_paint_what_one_does(bundle, tmp_path):
    def start(out: Path, ranks: int) -> list:
        fork, port = multiprocessing.get_context("fork"), str(free_port())
        words = ["generate", "--label", "sand", "--size", "256x384", "--model", str(bundle), "-o", str(out),
                 "--save-grid", str(out.with_suffix(".zarr")), "--device", "cpu", "--steps", "2", "--json"]  # fmt: skip
        started = []
        for rank in range(ranks):
            facts = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
                     "MASTER_PORT": port}  # fmt: skip
            heard = out.with_name(f"{out.name}.{rank}.log")
            started.append(fork.Process(target=act, args=(facts, heard, words)))
            started[-1].start()
        return started

    images, grids = [], []
    for ranks in (1, 2):
        out = tmp_path / f"{ranks}.png"
        assert finish(start(out, ranks), out)["size"] == [256, 384]
        images.append(np.asarray(Image.open(out)).astype(int))
        grids.append(EmbeddingGrid.open(out.with_suffix(".zarr")).read().embedding)
    assert np.array_equal(*grids) and np.abs(images[0] - images[1]).max() <= 1 and images[0].std() > 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_stretched_grids_are_painted_with_a_loose_layout_by_default(bundle):
    model, size = ModelBundle.load(bundle), Size(256, 256)

    def layout(placed: Placement, **options) -> tuple[bool, float]:
        how = sampling(GenerateSettings(label="rock", **options), model, placed)
        return how.layout, how.layout_above

    whole = Placement("whole", size, Window.of(size))
    assert layout(whole) == layout(whole, layout="exact") == (True, 0.0)
    assert layout(whole, layout="loose") == (True, LOOSE_ABOVE)
    stretched = Placement("stretch", size, Window.of(size), (2.0, 2.0))
    assert layout(stretched) == (True, LOOSE_ABOVE) and layout(stretched, layout="exact") == (True, 0.0)
    assert layout(stretched, layout="free")[0] is layout(whole, layout="free")[0] is False
