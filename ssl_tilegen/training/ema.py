"""The moving average (EMA) of the weights, which is exported in the end."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ssl_tilegen.training.sharding import cut_like, own_part, whole


class EMA:
    """Exponential moving average of the weights, with a short width at first, as the early steps need.

    ``module`` is a whole network. Where the weights it follows are cut over the processes, so is the average, and
    ``module`` holds it only after ``gather``.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._parts: list[Tensor] = list(self.module.parameters())

    def follow(self, module: nn.Module) -> None:
        """From now on ``module``'s weights, cut as they are."""
        pairs = zip(self.module.parameters(), module.parameters(), strict=True)
        self._parts = [cut_like(mine, theirs) for mine, theirs in pairs]
        cut = any(mine is not part for mine, part in zip(self.module.parameters(), self._parts, strict=True))
        if cut and torch.distributed.get_rank() > 0:
            self.module.to("cpu")  # only the first process makes images with the whole network

    def _kept(self) -> float:
        """The share of the average that stays in this update."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average by one step towards the weights of ``module``."""
        self.updates += 1
        mine: list[Tensor] = [own_part(part) for part in self._parts]
        theirs: list[Tensor] = [own_part(parameter) for parameter in module.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - self._kept())
        for buffer, other in zip(self.module.buffers(), module.buffers(), strict=True):
            buffer.copy_(other)

    @torch.no_grad()
    def gather(self) -> nn.Module:
        """``module``, whole and up to date. All processes must call it alike."""
        for parameter, part in zip(self.module.parameters(), self._parts, strict=True):
            if parameter is not part:
                parameter.copy_(whole(part))
        return self.module
