"""Laws of our own networks: the linear start is exact, and pieces with a halo equal the whole."""

from __future__ import annotations

import pytest
import torch

from ssl_tilegen.diffusion.parameterization import to_clean
from ssl_tilegen.diffusion.schedule import Step
from ssl_tilegen.errors import FormatError
from ssl_tilegen.geometry import Window
from ssl_tilegen.nets import build_component
from ssl_tilegen.nets.autoencoder import FACTOR, LinearStartAutoencoder
from ssl_tilegen.nets.field_unet import FieldUNet
from ssl_tilegen.nets.low_pass import low_frequencies
from ssl_tilegen.nets.tile_encoder import TileEncoder
from ssl_tilegen.training.warm_start import fill_what_fits

SMALL = {"latent_channels": 4, "condition_dim": 6, "widths": (16, 16, 32), "hidden": 16, "time_features": 8}


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """``module`` with noise on every parameter, so that branches that start at zero take part."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def test_with_all_components_the_linear_start_is_the_identity():
    torch.manual_seed(0)
    net = LinearStartAutoencoder(latent_channels=3 * FACTOR**2, fine_width=16, encoder_width=16, decoder_width=16)
    net.start_from_blocks(torch.randn(2000, 3, FACTOR, FACTOR))
    image = torch.rand(2, 3, 32, 48) * 2 - 1
    assert torch.allclose(net.decode(net.encode(image)), image, atol=1e-4)


def test_the_linear_start_whitens_and_orders_the_latents():
    torch.manual_seed(0)
    blocks = torch.randn(4000, 3, FACTOR, FACTOR) * 0.1 + torch.randn(4000, 3, 1, 1)
    net = LinearStartAutoencoder(latent_channels=3, fine_width=16, encoder_width=16, decoder_width=16)
    net.start_from_blocks(blocks)
    latents = net.encode(blocks).flatten(1)
    assert torch.allclose(torch.cov(latents.T), torch.eye(3), atol=1e-3)
    assert (net.decode(net.encode(blocks)) - blocks).std() < 0.12


def test_more_latents_keep_the_old_ones_and_add_what_those_leave():
    torch.manual_seed(0)
    blocks = torch.randn(4000, 3, FACTOR, FACTOR) * torch.linspace(0.05, 0.6, FACTOR) + 0.3
    sizes = {"fine_width": 16, "encoder_width": 16, "decoder_width": 16}
    old = LinearStartAutoencoder(latent_channels=4, **sizes)
    old.start_from_blocks(blocks)
    old = shaken(old)
    new = LinearStartAutoencoder(latent_channels=12, **sizes)
    assert not fill_what_fits(new, old.state_dict())
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(new.encode(images)[:, :4], old.encode(images))
        assert torch.allclose(new.decode(new.encode(images)), old.decode(old.encode(images)), atol=1e-5)
        new.start_from_blocks(blocks, kept=4)
        assert torch.equal(new.encode(images)[:, :4], old.encode(images))
        added = new.analysis(blocks)[:, 4:].flatten(1)
        assert torch.allclose(torch.cov(added.T), torch.eye(8), atol=1e-3)
        errors = [(net.synthesis(net.analysis(blocks)) - blocks).std() for net in (new, old)]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("side", [0, 8])
def test_more_latents_begin_as_the_best_linear_estimate_and_leave_the_old_estimate_alone(side):
    old = shaken(FieldUNet(**SMALL, sketch_side=side))
    new = FieldUNet(**{**SMALL, "latent_channels": 6}, sketch_side=side).eval()
    left = fill_what_fits(new, old.state_dict())
    assert all(name.startswith("sketch.") for name in left)
    x, t, field, folded = (
        torch.randn(1, 6, 16, 16),
        torch.tensor([0.4]),
        torch.randn(1, 6, 4, 4),
        torch.randn(1, 96, 4, 4),
    )
    of_old = folded.unflatten(1, (6, 16))[:, :4].flatten(1, 2)
    with torch.no_grad():
        got = new(x, t, torch.cat([field, folded], 1) if side else field)
        condition = old(x[:, :4], t, torch.cat([field, of_old], 1) if side else field)
        blank = FieldUNet(**{**SMALL, "latent_channels": 6}, sketch_side=side)(x, t, None)
    assert torch.allclose(got[:, :4], condition, atol=1e-5)
    assert torch.allclose(got[:, 4:], blank[:, 4:], atol=1e-5)
    assert not torch.allclose(got[:, :4], blank[:, :4], atol=1e-2)


@pytest.mark.parametrize("side", ["encode", "decode"])
def test_autoencoder_pieces_with_their_halo_equal_the_whole(side):
    net = shaken(LinearStartAutoencoder(latent_channels=4, fine_width=16, encoder_width=16, decoder_width=16))
    core = Window(16, 20, 8, 12)
    halo = net.encoder_halo if side == "encode" else net.decoder_halo
    around = core.grown(halo).intersection(Window(0, 0, 48, 56))
    with torch.no_grad():
        if side == "encode":
            image = torch.randn(1, 3, 48 * FACTOR, 56 * FACTOR)
            whole, kept = net.encode(image)[..., *core.slices], core.within(around)
            piece = net.encode(image[..., *around.scaled(FACTOR).slices])
        else:
            latents = torch.randn(1, 4, 48, 56)
            whole = net.decode(latents)[..., *core.scaled(FACTOR).slices]
            piece, kept = net.decode(latents[..., *around.slices]), core.within(around).scaled(FACTOR)
    assert torch.allclose(whole, piece[..., *kept.slices], atol=1e-4)


@pytest.mark.parametrize("side, rounds", [(0, 0), (2, 0), (2, 3)])
def test_denoiser_pieces_with_their_halo_equal_the_whole(side, rounds):
    net = shaken(FieldUNet(**SMALL, sketch_side=side, colour_rounds=rounds))
    channels = 6 + (4 * net.field_stride**2 if side else 0)
    stride, halo = net.field_stride, net.halo
    assert halo % stride == 0
    whole = Window(0, 0, 2 * halo + 24, 2 * halo + 16)
    core = Window(halo + 4, halo, 8, 8)
    around = core.grown(halo).intersection(whole)
    x = torch.randn(1, 4, whole.rows, whole.cols)
    field = torch.randn(1, channels, whole.rows // stride, whole.cols // stride)
    coarse = Window(around.row // stride, around.col // stride, around.rows // stride, around.cols // stride)
    t = torch.tensor([0.4])
    with torch.no_grad():
        expected = net(x, t, field)[..., *core.slices]
        piece = net(x[..., *around.slices], t, field[..., *coarse.slices])[..., *core.within(around).slices]
    assert torch.allclose(expected, piece, atol=1e-4)


PREDICTIONS = {"flow": None, "epsilon": {"num_train_timesteps": 1000}, "v_prediction": {"num_train_timesteps": 1000}}


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_estimate_has_the_colours_of_the_coarse_latents_in_low_frequencies(prediction):
    scheduler, rounds = PREDICTIONS[prediction], 2
    kind = {**SMALL, "sketch_side": 2, "prediction_type": prediction, "scheduler": scheduler}
    net = shaken(FieldUNet(**kind, colour_rounds=rounds))
    net.colour.copy_(torch.randn(3, 4))
    x, t = torch.randn(2, 4, 32, 32), torch.tensor([0.3, 0.9] if scheduler is None else [300, 900])
    sketch = torch.randn(2, 4, 32, 32)
    sketch[1] = torch.nan  # not told
    condition = torch.cat([torch.randn(2, 6, 8, 8), torch.nn.functional.pixel_unshuffle(sketch, 4)], 1)
    alpha, sigma = net.levels(t)
    step = Step(0, float(t[0]), float(alpha[0]), float(sigma[0]), 1.0, 0.0)
    with torch.no_grad():
        told = to_clean(prediction)(net(x, t, condition)[:1], x[:1], step)
        net.colour_rounds = 0
        own = to_clean(prediction)(net(x, t, condition)[:1], x[:1], step)
    colours = lambda latents: torch.einsum("kc,nchw->nkhw", net.colour, latents)  # noqa: E731
    change, wanted = colours(told - own), low_frequencies(colours(sketch[:1] - own), rounds)
    assert torch.allclose(change, wanted, atol=1e-4) and change.abs().mean() > 0.1
    beside = torch.linalg.svd(net.colour).Vh[3:]  # what is no colour stays as the network made it
    assert torch.allclose(torch.einsum("kc,nchw->nkhw", beside, told - own), torch.zeros(1), atol=1e-4)


def test_without_a_layout_the_network_makes_its_own_colours():
    net = shaken(FieldUNet(**SMALL, sketch_side=2, colour_rounds=2))
    x, t, field = torch.randn(1, 4, 16, 16), torch.tensor([0.5]), torch.randn(1, 6, 4, 4)
    unknown = torch.cat([field, torch.full((1, 64, 4, 4), torch.nan)], 1)
    with torch.no_grad():
        before, without = net(x, t, unknown), net(x, t, None)
        net.colour_rounds = 0
        assert torch.equal(before, net(x, t, unknown)) and torch.equal(without, net(x, t, None))


@pytest.mark.parametrize("period, kept", [(4, 0.25), (8, 0.7286), (16, 0.9253)])
def test_low_frequencies_pass(period, kept):
    wave = torch.cos(2 * torch.pi * torch.arange(64.0) / period).expand(1, 1, 64, 64)
    passed = low_frequencies(wave, 2)[..., 8:-8]
    assert torch.allclose(passed, kept**2 * wave[..., 8:-8], atol=1e-3)
    assert torch.allclose(low_frequencies(torch.ones(1, 1, 8, 8), 3), torch.ones(1), atol=1e-6)


@pytest.mark.parametrize("kind", [None, torch.bfloat16], ids=str)
def test_inference_in_place_is_what_was_trained(kind):
    net, coder = shaken(FieldUNet(**SMALL)), LinearStartAutoencoder(4, 16, 16, decoder_width=16)
    coder = shaken(coder)
    x, t, field = torch.randn(2, 4, 16, 16), torch.tensor([0.2, 0.8]), torch.randn(2, 6, 4, 4)
    before = x.clone()
    for call in (lambda: net(x, t, field), lambda: coder.decode(x), lambda: coder.encode(coder.decode(x))):
        with torch.autocast("cpu", kind or torch.bfloat16, enabled=kind is not None):
            trained = call()
            with torch.no_grad():
                inferred = call()
        apart = (inferred - trained).float().square().mean() / trained.float().var()
        assert trained.requires_grad and apart < (1e-3 if kind else 1e-10), float(apart)
    assert torch.equal(x, before)


def test_an_untrained_denoiser_gives_the_best_linear_estimate():
    net = FieldUNet(**SMALL)
    std = 0.7
    net.latent_std.fill_(std)
    clean, noise, t = std * torch.randn(1, 4, 256, 256), torch.randn(1, 4, 256, 256), 0.3
    x = (1 - t) * clean + t * noise
    with torch.no_grad():
        error = (net(x, torch.tensor([t]), None) - (noise - clean)).square().mean()
    best = std**2 / ((1 - t) ** 2 * std**2 + t**2)
    assert error.item() == pytest.approx(best, rel=0.03)


@pytest.mark.parametrize("side, channels", [(0, 6), (2, 6 + 4 * 16)])
def test_a_missing_condition_equals_one_of_nan(side, channels):
    net = shaken(FieldUNet(**SMALL, sketch_side=side))
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([0.2, 0.8])
    with torch.no_grad():
        assert torch.allclose(net(x, t, None), net(x, t, torch.full((2, channels, 4, 4), torch.nan)), atol=1e-6)


def test_the_denoiser_sees_its_sketch():
    net = shaken(FieldUNet(**SMALL, sketch_side=2))
    x, t, condition = torch.randn(1, 4, 16, 16), torch.tensor([0.5]), torch.zeros(1, 6 + 4 * 16, 4, 4)
    changed = condition.clone()
    changed[:, 6:, 1, 2] += 1
    with torch.no_grad():
        assert (net(x, t, condition) - net(x, t, changed)).abs().amax() > 1e-3


def test_content_keeps_what_two_views_of_a_tile_agree_on():
    torch.manual_seed(0)
    same, noise = torch.randn(4000, 2), 0.1 * torch.randn(2, 4000, 3)
    mix = torch.randn(5, 5)
    one, other = (torch.cat([same, 20 * part], 1) @ mix for part in noise)  # the noise is louder than the content
    net = TileEncoder(torch.nn.Identity(), features=5, content_dim=2, layout_px=1, layout_dim=1)
    net.set_content(one, other)
    kept = net.content(one).detach()
    assert kept.square().sum(1).mean() == pytest.approx(1, rel=0.05)
    assert torch.linalg.lstsq(kept, same).residuals.sum() < 0.02 * same.square().sum()


def test_content_is_as_long_as_it_shows_in_the_features():
    torch.manual_seed(0)
    same, noise = torch.randn(4000, 3) * torch.tensor([4.0, 1.0, 0.5]), 0.1 * torch.randn(2, 4000, 3)
    one, other = (same + part for part in noise)
    net = TileEncoder(torch.nn.Identity(), features=3, content_dim=3, layout_px=1, layout_dim=1)
    for scale, expected in ((None, [4.0, 1.0, 0.5]), ([0.25, 1.0, 8.0], [4.0, 1.0, 1.0])):
        net.set_content(one, other, None if scale is None else torch.tensor(scale))
        kept = net.content(one).detach()
        length = torch.tensor(expected) / torch.tensor(expected).norm()
        assert torch.allclose(kept.std(0), length, rtol=0.05)
        assert (torch.corrcoef(kept.T) - torch.eye(3)).abs().max() < 0.05


def test_layout_is_the_best_linear_summary_of_the_coarse_tile():
    torch.manual_seed(0)
    coarse = torch.randn(3000, 3, 1, 1) * torch.tensor([1.0, 0.5, 0.01])[:, None, None]
    tiles = coarse + 0.5 * torch.randn(3000, 3, 1, 1) * 0.01
    tiles = tiles.repeat(1, 1, 8, 8)
    net = TileEncoder(torch.nn.Flatten(), features=192, content_dim=1, layout_px=1, layout_dim=2)
    net.set_layout(tiles)
    layout = net.layout(net.coarse(tiles)).detach()
    assert layout.square().sum(1).mean() == pytest.approx(1, rel=0.05)
    assert torch.cov(layout.T)[0, 1].abs() < 1e-3
    assert torch.linalg.lstsq(layout, tiles[:, :2, 0, 0]).residuals.sum() < 1e-3 * tiles[:, :2, 0, 0].square().sum()


def test_an_unknown_class_is_named():
    with pytest.raises(FormatError, match="NoSuchNet"):
        build_component({"_class_name": "NoSuchNet"})
