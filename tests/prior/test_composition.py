"""Grids of scenes: whose each place is, what borders are made of, and that nothing depends on the cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.nets.grid_prior import GridPrior
from ssl_tilegen.nets.grid_unet import GridUNet
from ssl_tilegen.prior.composition import boxes, condition_map, displacement, distinct, sample_scene
from ssl_tilegen.prior.sampling import sample_prior
from ssl_tilegen.prior.scene import Region, Scene, read_scene
from ssl_tilegen.prior.spec import PriorSampling

torch.set_num_threads(1)
HOW = PriorSampling(steps=3, guidance=2.0)
CONDITIONS = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)


def cells_net() -> GridPrior:
    return GridPrior(6, 3, width=16, blocks=2, hidden=8)


def layout_net() -> GridUNet:
    net = GridUNet(6, 4, 4, 3, widths=(8, 16), down_blocks=(1, 1), up_blocks=(1,), hidden=8)
    net.scale[2:6] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    net.set_layout(torch.linalg.qr(torch.randn(48, 4)).Q.T * torch.tensor([[4.0], [2.0], [1.0], [0.5]]))
    return net


@pytest.fixture(params=[cells_net, layout_net])
def net(request) -> GridPrior | GridUNet:
    torch.manual_seed(0)
    net = request.param()
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    return net.eval()


def halves(cells: Size, net: GridPrior | GridUNet, border: float = 0.5) -> np.ndarray:
    """A map of two regions side by side."""
    index = (np.arange(64) >= 64 * border).astype(int)[None].repeat(8, 0)
    scene = Scene(Size(cells.rows * 64, cells.cols * 64), [Region("a"), Region("b")], index)
    return condition_map(scene, np.array([0, 1, 1]), cells, 64, net.places, 5)


def test_a_scene_of_one_condition_is_the_grid_of_that_condition(net):
    cells = Size(5, 7)
    whole = sample_prior(net, np.tile(CONDITIONS[0][:, None, None], (1, 5, 7)), HOW, 5)
    made = sample_scene(net, CONDITIONS, halves(cells, net, border=2.0), HOW, 5)
    assert np.allclose(made.embedding, whole.embedding, atol=1e-3 * whole.embedding.std())
    assert np.array_equal(made.valid, whole.valid)


def test_each_side_of_a_border_is_as_if_there_were_no_other(net):
    numbers, told = halves(Size(4, 24), net), []
    made = sample_scene(net, CONDITIONS, numbers, HOW, 5, lambda done, total: told.append(done / total))
    assert (numbers[:, : 10 * net.places] == 0).all() and (numbers[:, 14 * net.places :] == 1).all()
    assert told == sorted(told) and told[-1] == 1.0
    for number in (0, 1):
        alone = sample_prior(net, np.tile(CONDITIONS[number][:, None, None], (1, 4, 24)), HOW, 5)
        far = np.s_[:, :3] if number == 0 else np.s_[:, -3:]  # where the edge of the sampled part is out of reach
        assert np.allclose(made.embedding[far], alone.embedding[far], atol=0.02 * alone.embedding.std())


def test_the_parts_of_a_mixture_add_up(net):
    cells, rng = torch.randn(7, 3, 4), np.random.default_rng(0)
    mask = torch.from_numpy(rng.integers(0, 2, (3 * net.places, 4 * net.places)).astype(np.float32))
    mask[: net.places, : net.places] = 1
    parts = net.masked(cells, mask), net.masked(cells, 1 - mask)
    assert torch.allclose(parts[0] + parts[1], cells, atol=1e-5)
    assert torch.equal(parts[0][:, 0, 0], cells[:, 0, 0]) and not parts[1][:, 0, 0].any()
    share = nn.functional.avg_pool2d(mask[None], net.places)[0]
    assert torch.allclose(parts[0][0], cells[0] * share)


def test_in_a_network_that_sees_inside_of_cells_images_are_cut_and_joined():
    torch.manual_seed(0)
    net = GridUNet(49, 48, 4, 3, widths=(8, 16), down_blocks=(1, 1), up_blocks=(1,), hidden=8)
    net.set_layout(torch.linalg.qr(torch.randn(48, 48)).Q * torch.linspace(1, 3, 48)[:, None])
    one, other, mask = torch.randn(50, 2, 2), torch.randn(50, 2, 2), torch.zeros(8, 8)
    mask[:, :5] = 1
    mixed = net.masked(one, mask) + net.masked(other, 1 - mask)
    images = [net._coarse(part[None, 1:49] * net.layout_gain[:, None, None])[0] for part in (one, other, mixed)]
    assert torch.allclose(images[2][..., :5], images[0][..., :5], atol=1e-4)
    assert torch.allclose(images[2][..., 5:], images[1][..., 5:], atol=1e-4)


def test_a_map_says_the_same_for_any_cut_and_its_borders_wander_a_little(net):
    whole = halves(Size(40, 20), net)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl_tilegen.prior.composition._BAND_PLACES", 1)  # row by row
        assert np.array_equal(halves(Size(40, 20), net), whole)
    border = whole.argmax(1) / net.places
    assert 0.05 < border.std() < 0.6 and abs(border.mean() - 10) < 0.3
    cut = displacement(Window(-3, 2, 4, 4), 8, 1)
    assert np.allclose(displacement(Window(-9, -9, 20, 20), 8, 1)[:, 48:80, 88:120], cut)
    assert not np.allclose(displacement(Window(-3, 2, 4, 4), 8, 2), cut)


def test_a_map_is_asked_in_pixels_of_its_image(tmp_path):
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, 7:] = 255
    image[:2] = (0, 0, 255)
    Image.fromarray(image).save(tmp_path / "m.png")
    (tmp_path / "m.csv").write_text("colour,label\n#000000,a\n#ffffff,b\n")
    scene = read_scene(tmp_path / "m.png", Size(100, 200))
    rows, cols = np.array([-5.0, 19, 21, 50, 50, 50, 130]), np.array([10.0, 10, 10, 139, 141, 250, 130])
    assert scene.at(rows, cols).tolist() == [-1, -1, 0, 0, 1, 1, 0]


def test_corners_of_a_coarse_map_are_cut():
    scene = Scene(Size(20, 20), [Region("a"), Region("b")], np.array([[0, 0], [0, 1]]))
    rows, cols = np.meshgrid(np.arange(20) + 0.5, np.arange(20) + 0.5, indexing="ij")
    found = scene.at(rows, cols)
    assert found[10, 10] == 0 and found[12, 13] == 1 and found[10, 19] == 1 and found[9, 19] == 0
    assert 0.15 < found.mean() < 0.25


@given(st.data())
def test_boxes_cover_what_is_needed_once(data):
    rows, cols = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    needed = rng.random((rows, cols)) < data.draw(st.sampled_from([0.002, 0.02, 0.5]))
    times = np.zeros((rows, cols), int)
    for box in boxes(needed):
        times[box.slices] += 1
    assert times.max(initial=0) <= 1 and (times[needed] == 1).all()


def test_parts_that_lie_apart_are_sampled_apart():
    needed = np.zeros((40, 60), bool)
    needed[2:5, 3:6] = needed[30, 50] = True
    assert boxes(needed) == [Window(2, 3, 3, 3), Window(30, 50, 1, 1)]


def test_regions_that_ask_for_the_same_share_a_condition():
    nan = np.array([np.nan, 1.0], np.float32)
    found, which = distinct(np.stack([nan, nan + 1, nan, nan + 2, nan + 1]))
    assert which.tolist() == [0, 1, 0, 2, 1] and np.array_equal(found[:, 1], [1, 2, 3])
