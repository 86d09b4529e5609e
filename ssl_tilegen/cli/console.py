"""Progress and messages on stderr, one summary on stdout. The engine below prints nothing."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from enum import Enum
from typing import Any

from ssl_tilegen.errors import OutputError
from ssl_tilegen.system.boundary import printable, write_line
from ssl_tilegen.system.signals import check_stop

_EVERY_S = 10.0  # between plain lines of one stage
_UNITS = {
    "develop": "Mpx", "paint": "steps", "sample": "steps", "training": "steps", "embed": "cells",
    "images": "images", "augment": "images", "caching": "Mpx",
}  # fmt: skip
"""Unit of a stage's progress, by the first word of its name."""


class Console:
    """Progress as bars on a terminal, else as lines (or JSON lines) every ten seconds; a summary at the end.

    An instance is the ``progress`` callback of the workflows: ``console(stage, done, total)``. It raises `Interrupted`
    once a signal asked to stop.
    """

    def __init__(self, *, as_json: bool = False, log_format: str = "text") -> None:
        self.as_json, self._log_json = as_json, log_format == "json"
        self._bars = _Bars() if sys.stderr.isatty() and not self._log_json else None
        self._last: dict[str, float] = {}
        self._begun: dict[str, tuple[float, float]] = {}
        self._hushed = False

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Show how far a stage is. Interrupted once a signal asked to stop."""
        check_stop()
        if self._hushed:
            return
        rate = self._rate(stage, done)
        left = (total - done) / rate if rate and done < total else None
        amount, speed = f"{_count(done)} of {_count(total)}{_unit(stage)}", _speed(rate, stage)
        if self._bars:
            self._bars.update(stage, done, total, ", ".join(filter(None, (amount, speed, _left(left)))))
        elif done > 0 and self._due(stage, done >= total):
            percent = 100 * done / total if total else 100
            text = ", ".join(filter(None, (f"{stage}: {percent:.0f} % ({amount})", speed, _left(left))))
            rates = {"rate_s": rate and float(f"{rate:.4g}"), "left_s": left and round(left, 1)}
            self._line("progress", text, stage=stage, done=done, total=total, **rates)

    def _rate(self, stage: str, done: float) -> float | None:
        """Rate of a stage per second, averaged since its first call; None while it is unknown."""
        now = time.monotonic()
        begun, first = self._begun.setdefault(stage, (now, done))
        return (done - first) / (now - begun) if done > first and now > begun else None

    def _due(self, stage: str, ended: bool) -> bool:
        """Whether a plain line is wanted: every ten seconds, and once at the end of a stage."""
        now, last = time.monotonic(), self._last.get(stage, -math.inf)
        if now - last < _EVERY_S and not (ended and last < math.inf):
            return False
        self._last[stage] = math.inf if ended else now
        return last < math.inf or not ended

    def hush(self, wanted: bool = True) -> None:
        """Say nothing but errors: another process of the same run speaks."""
        self._hushed = wanted

    def loading(self, what: str) -> None:
        """Show on a terminal that ``what`` is being loaded, until the first progress; a log needs no such line."""
        if self._bars and not self._hushed:
            self._bars.loading(f"loading {what}")

    def facts(self, values: Mapping[str, Any]) -> None:
        """Show a record of a long run: a step of training, a ``message``, or progress as ``stage, done, total``."""
        if set(values) == {"message"}:
            return self.note(str(values["message"]))
        if set(values) == {"stage", "done", "total"}:
            return self(**values)
        if self._bars and "steps" in values:
            self("training", values["step"], values["steps"])
        shown = (f"{key} {_short(value)}" for key, value in values.items() if key != "steps")
        self._line("record", "  ".join(shown), **values)

    def note(self, text: str) -> None:
        """A message in passing."""
        self._line("note", text, text=text)

    def error(self, text: str) -> None:
        """One line: the error and its remedy."""
        self.close()
        self._line("error", f"error: {text}", text=text)

    def summary(self, value: Any, text: str) -> None:
        """The result: ``value`` as JSON where --json was given, else ``text``; nothing else goes to stdout."""
        self.close()
        if self._hushed:
            return
        try:
            write_line(json.dumps(plain(value), indent=None) if self.as_json else text, sys.stdout)
        except OSError as error:
            reason = error.strerror or str(error)
            lost = f"stdout: takes no more ({reason}); the work itself is done, its result was not shown"
            raise OutputError(lost) from None

    def close(self) -> None:
        """Take the bars down."""
        if self._bars:
            self._bars.stop()

    def _line(self, event: str, text: str, /, **values: Any) -> None:
        if self._log_json:
            text = json.dumps({"event": event, "time": round(time.time(), 3)} | plain(values))
        with suppress(OSError):  # nobody listens; the work goes on
            write_line(text if self._log_json else printable(text), sys.stderr)


class _Bars:
    """One bar per stage, by rich."""

    def __init__(self) -> None:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[amount]}"))
        self._progress = Progress(*columns, console=Terminal(stderr=True))
        self._tasks: dict[str, Any] = {}
        self._loading: Any = None

    def loading(self, text: str) -> None:
        """A bar without an end, until the first stage has one."""
        self._progress.start()
        self._loading = self._progress.add_task(text, total=None, amount="")

    def update(self, stage: str, done: float, total: float, amount: str) -> None:
        self._end_loading()
        if not self._tasks:
            self._progress.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, amount=amount)
        self._progress.update(self._tasks[stage], completed=done, total=total, amount=amount)

    def stop(self) -> None:
        self._end_loading()
        self._progress.stop()

    def _end_loading(self) -> None:
        if self._loading is not None:
            self._progress.remove_task(self._loading)
            self._loading = None


def plain(value: Any) -> Any:
    """``value`` as JSON values: dataclasses as objects, paths and enums as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def _unit(stage: str) -> str:
    unit = _UNITS.get(stage.split()[0]) if stage.strip() else None
    return f" {unit}" if unit else ""


def _speed(rate: float | None, stage: str) -> str:
    return f"{_count(rate)}{_unit(stage)}/s" if rate else ""


def _left(seconds: float | None) -> str:
    """The time left, in the unit that keeps it short."""
    if not seconds:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 7200 else f"{seconds / 3600:.1f} h left"


def _count(value: float) -> str:
    """A whole number as it is, another with three digits or more."""
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
