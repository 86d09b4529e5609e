"""What a run of the stage `painter` trains and keeps, as one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_tilegen.training.objectives.frechet import FrechetObjective


class PainterPair(nn.Module):
    """A painter and its discriminator, trained as one, and what else is kept of a run; ``batches`` seen so far."""

    batches: Tensor

    def __init__(self, network: nn.Module, discriminator: nn.Module, frechet: FrechetObjective | None) -> None:
        super().__init__()
        self.network, self.discriminator, self.frechet = network, discriminator, frechet
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
