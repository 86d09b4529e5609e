"""The processes that train together: one alone, or many by accelerate, started by torchrun, accelerate or srun.

Every process makes its own places of the global batch, so a run on two processes sees what a run on one sees.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from ssl_tilegen.config.train import RunSettings
from ssl_tilegen.errors import SettingError
from ssl_tilegen.system.device import pick_device
from ssl_tilegen.system.launch import distributed_environment

_PATIENCE = timedelta(hours=12)
"""How long the others wait for the first to cache its latents."""


class Processes:
    """``rank`` of ``size`` processes, and what they do together. With one process everything here does nothing."""

    def __init__(self, device: str = "auto") -> None:
        own = distributed_environment()
        self.rank, self.size = own.rank, own.count
        self.device = pick_device(device, own.local_rank)
        self._accelerator: Any = _accelerator(self.device) if self.size > 1 else None

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
        return self._accelerator.prepare_model(objective) if self._accelerator else objective

    def unsynchronised(self, objective: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        """A backward pass that keeps its gradients to itself, where ``wanted`` (all but the last part of a step)."""
        if isinstance(objective, FSDPModule):
            objective.set_requires_gradient_sync(not wanted)
            return nullcontext()
        return self._accelerator.no_sync(objective) if self._accelerator and wanted else nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        return self._accelerator.reduce(values, reduction="mean") if self._accelerator else values

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """A block that the first process runs before the others: they find what it made."""
        if self._accelerator and not self.is_first:
            self.wait()
        yield
        if self._accelerator and self.is_first:
            self.wait()

    def wait(self) -> None:
        """Until all are here."""
        if self._accelerator:
            self._accelerator.wait_for_everyone()


def _accelerator(device: torch.device) -> Any:
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    if device.type == "cuda":
        torch.cuda.set_device(device)
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # as accelerate passes it
    kwargs = [InitProcessGroupKwargs(timeout=_PATIENCE), DistributedDataParallelKwargs(broadcast_buffers=False)]
    return Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=kwargs)


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


def gathered(values: Tensor) -> Tensor:
    """(N, ...) of every process, in the order of the batch, with their gradients: for losses of the whole batch."""
    return _Gather.apply(values) if torch.distributed.is_initialized() else values


def share_of_this_process(values: Tensor) -> Tensor:
    """This process's rows of what `gathered` gave."""
    if not torch.distributed.is_initialized():
        return values
    return values.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]
