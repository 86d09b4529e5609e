"""An encoder on threads of its own: whoever makes up the next batch does not wait for the last one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from ssl_tilegen.encoders.base import Encoder

MOST_AT_ONCE = 4  # batches; each holds its own activations


class EncoderPool:
    """Runs batches of tiles through ``encoder``, in no fixed order. Use as a context manager.

    On a GPU one at a time. On a CPU several, each on its share of the cores: threads that compute one batch together
    wait for each other at every layer, and for the slowest of them where readers take a core away. A batch's vectors
    do not depend on which thread has it.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self._before = encoder, torch.get_num_threads()
        on_cpu = getattr(encoder, "device", torch.device("cpu")).type == "cpu"
        self.workers = min(MOST_AT_ONCE, self._before) if on_cpu else 1
        self._threads = self._before // self.workers if on_cpu else self._before
        self._pool = ThreadPoolExecutor(self.workers, "encode")
        self._running: list[Future[np.ndarray]] = []

    def __enter__(self) -> EncoderPool:
        torch.set_num_threads(self._threads)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)

    def submit(self, tiles: Sequence[np.ndarray]) -> Future[np.ndarray]:
        """The vectors to come (N, D) of uint8 tiles (T, T, 3); waits while each thread has a batch in store."""
        self._running = [future for future in self._running if not future.done()]
        if len(self._running) >= 2 * self.workers:
            self._running.pop(0).exception()  # only waits: it is raised where the vectors are asked for
        future = self._pool.submit(lambda: self._encoder.embed(np.stack(tiles)))
        self._running.append(future)
        return future
