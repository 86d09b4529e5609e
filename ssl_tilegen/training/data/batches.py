"""Batches made on threads ahead of the step.

An item is made from a generator seeded with (seed, step, place), so the order of data does not depend on threads,
processes or restarts: two processes together see the same as one, 20 steps equal 10, a restart, and 10 more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.config.train import RunSettings
from ssl_tilegen.system.budget import check_memory

Batch = dict[str, Tensor]
Item = dict[str, np.ndarray]
_AHEAD = 3
_ITEM_BYTES = 1000  # what waits for an item


class BatchSource(Protocol):
    """Where items come from."""

    def item(self, rng: np.random.Generator) -> Item:
        """One training item; every random choice comes from ``rng``."""
        ...


class Batches:
    """The parts of this process's share of each step's batch, ``run.accumulate`` of them, from step ``start`` on.

    ``places`` are the places in the batch that are this process's. A context manager that ends the threads;
    ``waited_s`` is how long the steps have waited for data so far.
    """

    def __init__(self, source: BatchSource, run: RunSettings, start: int, places: range, device: torch.device) -> None:
        self.source, self.run, self.start, self.places, self.device = source, run, start, places, device
        self.waited_s = 0.0
        self._pool = ThreadPoolExecutor(run.readers, thread_name_prefix="items")

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[int, list[Batch]]]:
        """(step, parts). BudgetError where the batches made ahead take more memory than allowed."""
        self._check_memory()
        ahead = [self._submit(step) for step in range(self.start, min(self.start + _AHEAD, self.run.steps))]
        for step in range(self.start, self.run.steps):
            asked = time.monotonic()
            items = [future.result() for future in ahead.pop(0)]
            self.waited_s += time.monotonic() - asked
            if step + _AHEAD < self.run.steps:
                ahead.append(self._submit(step + _AHEAD))
            size = len(items) // self.run.accumulate
            yield step, [collate(items[i : i + size], self.device) for i in range(0, len(items), size)]

    def _check_memory(self) -> None:
        """By the size of one item, before many are made."""
        steps = min(_AHEAD, self.run.steps - self.start)
        if steps > 0:
            item = self.source.item(np.random.default_rng([self.run.seed, self.start, self.places.start]))
            each = _ITEM_BYTES + sum(array.nbytes for array in item.values())
            share = f"{len(self.places):,} windows per step in this process (run.batch)"
            check_memory((steps + 1) * len(self.places) * each, share)

    def _submit(self, step: int) -> list[Future[Item]]:
        def item(place: int) -> Item:
            return self.source.item(np.random.default_rng([self.run.seed, step, place]))

        return [self._pool.submit(item, place) for place in self.places]


def collate(items: list[Item], device: torch.device) -> Batch:
    """Stack items along a new first axis, on the device; image-like tensors in channels_last."""
    batch = {}
    for key in items[0]:
        tensor = torch.from_numpy(np.stack([item[key] for item in items]))
        layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
        batch[key] = tensor.to(device, non_blocking=True, memory_format=layout)
    return batch
