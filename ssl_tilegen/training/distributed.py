"""The processes that train together: one alone, or many by torch.distributed, started by torchrun, accelerate or srun.

Every process makes its own places of the global batch, so a run on two processes sees the same as a run on one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from ssl_tilegen.config.train import RunSettings
from ssl_tilegen.errors import SettingError
from ssl_tilegen.system.device import pick_device
from ssl_tilegen.system.launch import distributed_environment, lost_process, process_group
from ssl_tilegen.system.signals import check_stop

_LOST = re.compile("gloo|nccl|connection (closed|reset)|broken pipe|TCPStore", re.IGNORECASE)
"""Words of torch.distributed's complaints about a process that has ended."""


class Processes:
    """``rank`` of ``size`` processes, and their work in common. With one process everything here does nothing; many
    have to be inside `together` first."""

    def __init__(self, device: str = "auto") -> None:
        self._own = distributed_environment()
        self.rank, self.size = self._own.rank, self._own.count
        self.device = pick_device(device, self._own.local_rank)

    @contextmanager
    def together(self) -> Iterator[None]:
        """The group of all processes, while they train. TilegenError where another does not come, or ends early."""
        if self.size == 1:
            yield
            return
        with process_group(self._own, self.device):
            try:
                yield
            except RuntimeError as error:
                if not _LOST.search(str(error)):
                    raise
                check_stop()
                raise lost_process(error) from error

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and does the talking."""
        return self.rank == 0

    def batch_slots(self, run: RunSettings) -> range:
        """The places of the global batch that this process fills. SettingError where they cannot be shared evenly."""
        parts = self.size * run.accumulate
        if run.batch % parts:
            raise SettingError(
                f"run.batch = {run.batch} cannot be shared by {self.size} processes x run.accumulate = "
                f"{run.accumulate}; use a multiple of {parts}"
            )
        share = run.batch // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def is_sharded(self, run: RunSettings) -> bool:
        """Whether the weights are cut over the processes (FSDP), and not copied to each (DDP)."""
        return self.size > 1 and run.cut

    def wrapped(self, objective: nn.Module) -> nn.Module:
        """``objective`` with gradients averaged over the processes after every backward pass."""
        if self.size == 1:
            return objective
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # torch 2.7 has no other
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(objective, device_ids=devices, broadcast_buffers=False)

    def unsynchronised(self, objective: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        """A backward pass that keeps its gradients to itself, where ``wanted`` (all but the last part of a step)."""
        if isinstance(objective, FSDPModule):
            objective.set_requires_gradient_sync(not wanted)
            return nullcontext()
        return objective.no_sync() if isinstance(objective, DistributedDataParallel) and wanted else nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.size == 1:
            return values
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total / self.size

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """A block that the first process runs before the others: they find its files."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            torch.distributed.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def are_many() -> bool:
    """Whether other processes train, too."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def gathered(values: Tensor) -> Tensor:
    """(N, ...) of every process, in the order of the batch, with their gradients: for losses of the whole batch."""
    return _Gather.apply(values) if are_many() else values


def share_of_this_process(values: Tensor) -> Tensor:
    """This process's rows of a `gathered` tensor."""
    if not are_many():
        return values
    return values.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]
