"""The prior that attends: its laws as a network, as a drawer of grids of any size, and under many processes."""

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
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.nets.grid_prior import GridPrior
from ssl_tilegen.nets.grid_transformer import GridTransformer
from ssl_tilegen.prior.sampling import sample_prior
from ssl_tilegen.prior.spec import PriorSampling
from ssl_tilegen.workflows.generate.placement import Placement
from ssl_tilegen.workflows.generate.run import generate
from ssl_tilegen.workflows.generate.sampling import LOOSE_ABOVE, sampling
from tests.bundles import drawing_bundle
from tests.generate.test_generate_ranks import act, finish, free_port

torch.set_num_threads(1)
WINDOW = 4
HOW = PriorSampling(steps=4, guidance=2.0, settle=2)


def shaken(net):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    return net.eval()


@pytest.fixture(scope="module")
def net() -> GridTransformer:
    torch.manual_seed(0)
    return shaken(GridTransformer(6, 3, window=WINDOW, width=16, depth=2, heads=2, hidden=8))


def inputs(side: int = WINDOW) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 7, side, side), torch.tensor([0.3, 0.8]), torch.randn(2, 3, side, side)


def test_cells_of_one_part_are_as_without_parts_and_those_outside_are_not_seen(net):
    x, t, condition = inputs()
    parts = torch.ones(2, 1, WINDOW, WINDOW)
    whole = net(x, t, condition)
    assert torch.allclose(net(x, t, condition, parts), whole, atol=1e-5)
    parts[:, :, 3:] = 0
    masked, alone = net(x, t, condition, parts)[:, :, :3], net(x[:, :, :3], t, condition[:, :, :3])
    assert torch.allclose(masked, alone, atol=1e-5) and not torch.allclose(masked, whole[:, :, :3], atol=1e-3)


@pytest.mark.parametrize("kind", ["transformer", "convolution"])
def test_it_matters_which_cells_are_of_one_part(net, kind):
    if kind == "convolution":
        net = shaken(GridPrior(6, 3, width=16, blocks=1, hidden=8, breaks=True))
    x, t, condition = inputs()
    one = torch.ones(2, 1, WINDOW, WINDOW)
    two = one.clone()
    two[..., 2:] = 2
    assert torch.allclose(net(x, t, condition, one), net(x, t, condition), atol=1e-5)
    assert not torch.allclose(net(x, t, condition, one), net(x, t, condition, two), atol=1e-3)


def test_every_cell_sees_every_other_and_its_own_condition(net):
    x, t, condition = inputs()
    base, moved, other = net(x, t, condition), x.clone(), condition.clone()
    moved[:, :, 0, 0] += 1
    other[:, :, 0, 0] += 1
    assert ((net(moved, t, condition) - base).abs().amax(1) > 1e-5).all()
    change = (net(x, t, other) - base).abs().amax(1)
    assert (change[:, 0, 0] > 5 * change[:, 3, 3]).all()


def test_unknown_numbers_and_no_condition_are_the_same(net):
    x, t, condition = inputs()
    assert torch.allclose(net(x, t, torch.full_like(condition, torch.nan)), net(x, t, None), atol=1e-5)


def test_a_window_that_is_too_large_is_refused(net):
    x, t, condition = inputs(WINDOW + 1)
    with pytest.raises(ValueError, match="5 x 5 cells"):
        net(x, t, condition)


@pytest.mark.parametrize("shape", [(1, 1), (3, 11), (9, 7)])
def test_grids_of_any_size_are_drawn_the_same_for_any_batch(net, shape):
    condition = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    one, many, other = (
        sample_prior(net, condition, HOW, 5),
        sample_prior(net, condition, HOW, 5, call_cells=WINDOW**2),
        sample_prior(net, condition, HOW, 6),
    )
    assert one.embedding.shape == (*shape, 6) and one.valid.shape == shape
    assert np.allclose(one.embedding, many.embedding, atol=0.03 * one.embedding.std())
    assert not np.allclose(one.embedding, other.embedding, atol=0.1 * one.embedding.std())


def test_a_single_window_is_one_call_of_the_network(net):
    """Without guidance and in one step the drawn grid is the network's own clean estimate, averaged over windows."""
    condition = np.zeros((3, 6, 6), np.float32)
    same = PriorSampling(steps=1, guidance=1.0, settle=0, update="ddim")
    shifted = sample_prior(net, condition, same, 0)
    averaged = sample_prior(net, condition, same.model_copy(update={"settle": 1}), 0)
    assert not np.allclose(shifted.embedding, averaged.embedding, atol=1e-3)
    assert averaged.embedding.std() < 1.5 * shifted.embedding.std()


@pytest.fixture(scope="module", params=[False, True], ids=["convolution", "transformer"])
def bundle(request, tmp_path_factory) -> Path:
    return drawing_bundle(tmp_path_factory.mktemp("drawing") / "bundle", transformer=request.param)


def test_a_saved_grid_paints_the_same_picture_whatever_size_was_asked_for(bundle, tmp_path):
    def run(name: str, **options) -> Path:
        settings = GenerateSettings(model=str(bundle), out=tmp_path / name, steps=2, device="cpu", **options)
        return generate(settings).out

    first = run("a.png", label="rock", size="200x136", save_grid=tmp_path / "g.zarr")
    grid = EmbeddingGrid.open(tmp_path / "g.zarr")
    assert (grid.spec.source.kind, grid.spec.source.size_px, grid.shape) == ("drawn", Size(136, 200), Size(3, 4))
    again, other = run("b.png", grid=grid.path), run("c.png", grid=grid.path, seed=1)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    condition = [json.loads(path.with_name(f"{path.name}.json").read_text()) for path in (first, again)]
    assert condition[0] | {"file": ""} == condition[1] | {"file": ""}


def test_two_processes_draw_and_paint_what_one_does(bundle, tmp_path):
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


def test_drawn_grids_are_painted_with_a_loose_layout_unless_told_otherwise(bundle):
    model, size = ModelBundle.load(bundle), Size(256, 256)

    def layout(placed: Placement, drawn: bool, **options) -> tuple[bool, float]:
        how = sampling(GenerateSettings(label="rock", **options), model, placed, is_sampled=drawn)
        return how.layout, how.layout_above

    whole = Placement("whole", size, Window.of(size))
    assert layout(whole, True) == layout(whole, False, layout="loose") == (True, LOOSE_ABOVE)
    assert layout(whole, False) == layout(whole, True, layout="exact") == (True, 0.0)
    stretched = Placement("stretch", size, Window.of(size), (2.0, 2.0))
    assert layout(stretched, True)[0] is layout(whole, True, layout="free")[0] is False
