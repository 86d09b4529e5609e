"""Facts as a table for people: names on the left, values on the right. `--json` has them in full."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from ssl_tilegen.system.boundary import printable

_LONG = 6
_UNITS = ("um", "m")


def facts_table(facts: Mapping[str, Any]) -> str:
    """Lay out nested facts as lines of at most the terminal's width.

    Args:
        facts: Values by name. Mappings become indented rows; long lists of numbers are only counted.

    Returns:
        One row per fact, without an end of line.
    """
    rows = list(_rows(facts))
    column = max((len(name) for name, _ in rows), default=0) + 2
    width = max(60, min(shutil.get_terminal_size((80, 24)).columns, 120))
    lines: list[str] = []
    for name, value in rows:
        left = name.ljust(column)
        wrapped = textwrap.wrap(value, width, initial_indent=left, subsequent_indent=" " * column,
                                break_on_hyphens=False, break_long_words=False)  # fmt: skip
        lines += wrapped or [name]
    return "\n".join(lines)


def _rows(facts: Mapping[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        name = f"{indent}{key.replace('_', ' ') if indent == '' else key}"
        if isinstance(value, Mapping) and value and _resolution(value) is None:
            yield name, ""
            yield from _rows(value, indent + "  ")
        elif isinstance(value, Mapping):
            yield name, _resolution(value) or "-"
        else:
            yield name, _text(key, value)


def _resolution(value: Any) -> str | None:
    """``0.5 um/px`` where ``value`` is a resolution, else None."""
    if isinstance(value, Mapping):
        value = (value["value"], value["unit"]) if set(value) == {"value", "unit"} else ()
    if isinstance(value, (list, tuple)) and len(value) == 2 and value[1] in _UNITS:
        return f"{value[0]:.6g} {value[1]}/px"
    return None


def _text(key: str, value: Any) -> str:
    """A value in few words."""
    if value is None or value in ((), []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return f"{value[:16]}..." if "sha256" in key and len(value) > 16 else printable(value)
    if resolution := _resolution(value):
        return resolution
    if isinstance(value, (list, tuple)):
        if len(value) > _LONG and all(isinstance(item, (int, float)) for item in value):
            return f"{len(value)} numbers (--json shows them)"
        if key == "size_px":
            return f"{value[0]} rows, {value[1]} columns"
        return ", ".join(_text("", item) for item in value)
    return str(value)
