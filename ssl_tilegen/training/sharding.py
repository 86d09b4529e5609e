"""Weights cut over the processes, so that none holds a whole network (FSDP: Zhao et al. 2023, arXiv 2304.11277).

By torch's ``fully_shard``, so that the same code runs, and is tested, on CPUs. What is written to disk is whole: a run
may go on with any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

_LEAST = 10_000
"""Parts of a network with fewer parameters are gathered with the parts around them."""


def shard(objective: nn.Module, device: torch.device) -> None:
    """Cut all parameters within ``objective`` along their first axis; its blocks are gathered one after the other."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for parameter in objective.parameters():
        parameter.data = parameter.data.contiguous()  # other layouts cannot be cut
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for block in [*blocks_of(objective)][::-1]:
        fully_shard(block, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def blocks_of(module: nn.Module) -> Iterator[nn.Module]:
    """The members of lists and sequences that are called as a whole and are worth a message of their own, outer ones
    first; nothing inside a module that says ``keep_together``."""
    if getattr(module, "keep_together", False):
        return
    for part in module.children():
        of_row = isinstance(module, (nn.ModuleList, nn.Sequential)) and not isinstance(part, nn.ModuleList)
        if of_row and sum(p.numel() for p in part.parameters()) >= _LEAST:
            yield part
        yield from blocks_of(part)


def whole(value: Any) -> Any:
    """A tree of numbers and tensors with every cut tensor made whole. All processes must call it alike."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [whole(item) for item in value]
    return value.full_tensor() if isinstance(value, DTensor) else value


def cut_like(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, cut as ``like`` is; the tensor itself where that is whole."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def own_part(value: Tensor) -> Tensor:
    """The memory that this process holds of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value
