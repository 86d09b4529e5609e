"""File handles for readers whose library wants one thread at a time on each."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """Anything that can be closed."""

    def close(self) -> None:
        """Close the file."""
        ...


H = TypeVar("H", bound=Closable)


class HandlePool(Generic[H]):
    """Handles lent to one borrower at a time; as many are open as were ever borrowed at once.

    A handle whose borrower met an error is closed, not lent again: OpenSlide's stay in their error state for ever.
    """

    def __init__(self, open_handle: Callable[[Hashable], H]) -> None:
        self._open = open_handle
        self._free: dict[Hashable, list[H]] = defaultdict(list)
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self, key: Hashable = None) -> Iterator[H]:
        """A handle opened with ``key``, for this ``with`` block alone."""
        with self._lock:
            handle = self._free[key].pop() if self._free[key] else None
        if handle is None:
            handle = self._open(key)
        try:
            yield handle
        except BaseException:
            handle.close()
            raise
        with self._lock:
            self._free[key].append(handle)

    def close(self) -> None:
        """Close every handle that is not on loan."""
        with self._lock:
            handles = [handle for free in self._free.values() for handle in free]
            self._free.clear()
        for handle in handles:
            handle.close()
