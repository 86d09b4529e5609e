"""Which parameters an optimiser decays."""

from __future__ import annotations

import torch
from torch import nn

from ssl_tilegen.config.train import RunSettings
from ssl_tilegen.training.optim import make_optimiser


class Net(nn.Module):
    edge_layers = ("first", "last")

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 2)


def test_every_matrix_and_kernel_decays_and_nothing_else() -> None:
    """With no gradient to follow, a step shrinks a parameter by lr times weight decay, or leaves it."""
    for name in ("muon", "adamw"):
        net = Net()
        run = RunSettings(steps=1, optimiser=name, lr=0.1, weight_decay=0.5)
        for parameter in net.parameters():
            nn.init.ones_(parameter)
            parameter.grad = torch.zeros_like(parameter)
        make_optimiser(net, run).step()
        for key, parameter in net.named_parameters():
            wanted = 0.95 if parameter.ndim > 1 else 1.0
            torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, wanted), msg=f"{name} {key}")
