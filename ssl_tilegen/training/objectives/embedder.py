"""The network that an encoder's loss trains, and how it becomes one that maps a tile to a vector."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Embedder(nn.Module):
    """``net`` (N, 3, S, S) -> (N, D), and the statistics of its output over the training batches."""

    def __init__(self, net: nn.Module, dim: int) -> None:
        super().__init__()
        self.net: Any = net
        self.standardise: Any = nn.BatchNorm1d(dim, affine=False, momentum=0.05)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """The network with the running statistics folded into its head; as it is where it has none (pooled stages)."""
        net = copy.deepcopy(self.net)
        if not hasattr(net, "get_classifier"):
            return net.eval()
        deviation = (self.standardise.running_var + self.standardise.eps).sqrt()
        head = net.get_classifier()
        head.weight.div_(deviation[:, None])
        head.bias.sub_(self.standardise.running_mean).div_(deviation)
        return net.eval()


def embed_views(module: nn.Module, views: Tensor) -> Tensor:
    """(N, V, 3, S, S) -> (N, V, D) in float32."""
    flat = views.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return module(flat).float().unflatten(0, views.shape[:2])
