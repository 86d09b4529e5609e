"""How work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float, float], None]
"""``progress(stage, done, total)``: from the main thread; may raise `Interrupted`, which is let through."""


def silent(stage: str, done: float, total: float) -> None:
    """The progress callback that does nothing."""
