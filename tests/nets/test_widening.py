"""A wider network that starts from a narrower one: it computes the same, and all of it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssl_tilegen.nets.field_unet import FieldUNet
from ssl_tilegen.training.warm_start import fill_what_fits

NARROW = {"latent_channels": 4, "condition_dim": 6, "widths": (8, 12, 16), "hidden": 10, "down_blocks": (1, 1, 1),
          "up_blocks": (1, 1), "sketch_side": 8}  # fmt: skip


def trained(**changes: object) -> FieldUNet:
    """A network none of whose weights is zero."""
    torch.manual_seed(1)
    network = FieldUNet(**{**NARROW, **changes})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 8, 12, generator=draw), torch.tensor([0.9, 0.3]), torch.randn(2, 70, 2, 3, generator=draw)


@pytest.mark.parametrize(
    "changes",
    [
        {"widths": (16, 12, 16)},
        {"widths": (8, 20, 16)},
        {"widths": (8, 12, 17)},
        {"widths": (16, 24, 32), "down_blocks": (2, 1, 3), "up_blocks": (1, 2)},
    ],
    ids=str,
)
def test_a_wider_or_deeper_network_begins_as_the_one_it_starts_from(changes: dict) -> None:
    narrow, wide = trained(), FieldUNet(**{**NARROW, **changes}).eval()
    left = fill_what_fits(wide, narrow.state_dict())
    assert all(".1." in name or ".2." in name for name in left)  # further blocks, which begin as the identity
    for graded in (False, True):  # the two ways of the blocks
        with torch.set_grad_enabled(graded):
            assert torch.allclose(wide(*inputs()), narrow(*inputs()), rtol=1e-3, atol=1e-4)


def test_every_new_channel_learns() -> None:
    wide = FieldUNet(**{**NARROW, "widths": (16, 24, 32)})
    fill_what_fits(wide, trained().state_dict())
    learning = [(name, p) for name, p in wide.named_parameters() if p.requires_grad]
    before = {name: p.detach().clone() for name, p in learning}
    optimiser = torch.optim.Adam([p for _, p in learning], 1e-2)
    for _ in range(4):
        optimiser.zero_grad()
        wide(*inputs()).square().mean().backward()
        optimiser.step()
    still = {name for name, p in learning if (p == before[name]).flatten(1 if p.ndim > 1 else 0).all(-1).any()}
    assert still <= {"null"}  # the vector of what is not known, and everything is


def test_nothing_is_placed_in_a_narrower_network() -> None:
    wide, narrow = trained(widths=(16, 24, 32)), FieldUNet(**NARROW)
    left = fill_what_fits(narrow, wide.state_dict())
    assert "stem.weight" in left and "down.2.0.conv_in.weight" in left and "condition_in.weight" not in left
