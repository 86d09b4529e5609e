"""Networks without values: their names and shapes at almost no cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FILLING = frozenset({"add_", "clamp_", "copy_", "erfinv_", "fill_", "mul_", "normal_", "uniform_", "zero_"})


@contextmanager
def without_values() -> Iterator[None]:
    """Networks that are built in the body lie on the meta device, and what would draw their weights does nothing.

    Drawing takes most of the time of a build, also on the meta device. Networks that compute something from their
    weights while they are built raise NotImplementedError or RuntimeError there.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Leaves out all that fills tensors of the meta device in place."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if args and getattr(func, "__name__", "") in _FILLING and args[0].device.type == "meta":
            return args[0]
        return func(*args, **(kwargs or {}))
