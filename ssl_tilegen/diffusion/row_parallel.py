"""Many processes on one canvas: each owns a band of rows and holds, above and below it, the rows it has to see.

After every step the rows that others hold too are sent to them, so the processes compute the same as one would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch.distributed as dist
from numpy.typing import ArrayLike

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.errors import SettingError
from ssl_tilegen.geometry import Window
from ssl_tilegen.system.launch import lost_process
from ssl_tilegen.system.signals import check_stop

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that paint one canvas: this one is number ``rank`` of ``count``. By default it is alone."""

    rank: int = 0
    count: int = 1

    def wait(self) -> None:
        """Go on when all are here."""
        self.tell(None)

    def tell(self, value: T) -> T:
        """The value that rank 0 has, for all."""
        if self.count == 1:
            return value
        with _lost_processes():
            values: list[T | None] = [None] * self.count
            dist.all_gather_object(values, value)  # not a broadcast: rank 0 waits as well
        return values[0]  # type: ignore[return-value]


ALONE = Ranks()


@dataclass(frozen=True)
class Band:
    """This process's part of the canvas ``whole``: the rows from one of the ``edges`` (absolute, ``count + 1``) to the
    next are its ``own``, and ``reach`` more to each side are ``held``."""

    whole: Window
    edges: tuple[int, ...]
    reach: int = 0
    ranks: Ranks = ALONE

    @classmethod
    def alone(cls, whole: Window) -> Band:
        """The band of a single process: all rows of ``whole``."""
        return cls(whole, (whole.row, whole.row_end))

    @property
    def own(self) -> Window:
        """The rows of latents that this rank computes."""
        return self._own(self.ranks.rank)

    @property
    def held(self) -> Window:
        """The rows of latents that this rank stores: its own and those it reads from its neighbours."""
        return self._held(self.ranks.rank)

    def exchange(self, x: Canvas) -> None:
        """Fill the rows of ``x`` that others own, and give them those of its own that they hold."""
        if self.ranks.count == 1:
            return
        sends, receipts = self._meetings(lambda q: (self.own, self._held(q))), self._meetings(
            lambda q: (self._own(q), self.held))  # fmt: skip
        buffers = [(x[window].contiguous(), window, rank) for rank, window in receipts]
        work = [dist.P2POp(dist.isend, x[window].contiguous(), rank) for rank, window in sends]
        work += [dist.P2POp(dist.irecv, buffer, rank) for buffer, _, rank in buffers]
        with _lost_processes():
            for request in dist.batch_isend_irecv(work) if work else ():
                request.wait()
        for buffer, window, _ in buffers:
            x[window].copy_(buffer)

    def _own(self, rank: int) -> Window:
        first, last = self.edges[rank], self.edges[rank + 1]
        return Window(first, self.whole.col, last - first, self.whole.cols)

    def _held(self, rank: int) -> Window:
        own = self._own(rank)
        first, last = max(self.whole.row, own.row - self.reach), min(self.whole.row_end, own.row_end + self.reach)
        return Window(first, own.col, last - first, own.cols)

    def _meetings(self, pair: Callable[[int], tuple[Window, Window]]) -> Iterator[tuple[int, Window]]:
        """The other ranks, and the rows that both windows of each pair have."""
        for rank in range(self.ranks.count):
            first, second = pair(rank)
            shared = first.intersection(second)
            if rank != self.ranks.rank and shared is not None:
                yield rank, shared


def balanced_edges(whole: Window, core: Window, step: int, load: ArrayLike, count: int) -> tuple[int, ...]:
    """Cut ``whole`` into ``count`` bands of about the same load; inner edges lie inside the rows of ``core`` and at
    multiples of ``step`` from the top of ``whole``, of which each has its ``load``.

    SettingError where there are more bands than places.
    """
    sums = np.cumsum(np.asarray(load, dtype=np.float64))
    places = [k for k in range(1, len(sums)) if core.row < whole.row + k * step < core.row_end]
    if len(places) < count - 1:
        raise SettingError(f"{count} processes for {core.rows} rows of latents: start at most {len(places) + 1}")
    edges, first = [whole.row], 0
    for k in range(1, count):
        wanted = np.searchsorted(sums[[place - 1 for place in places]], sums[-1] * k / count)
        first = min(max(int(wanted), first), len(places) - (count - k))
        edges.append(whole.row + places[first] * step)
        first += 1
    return (*edges, whole.row_end)


@contextmanager
def _lost_processes() -> Iterator[None]:
    """The library's complaints about a process that has ended, as one line; a stop is a stop."""
    try:
        yield
    except RuntimeError as error:
        check_stop()
        raise lost_process(error) from error
