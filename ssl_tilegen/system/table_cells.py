"""Text in the cells of CSV files: a spreadsheet runs a cell that starts with "=", so such text is marked as text.

The mark is an apostrophe before it, as spreadsheets write it; `restored` takes it away where we read our own tables.
"""

from __future__ import annotations

from typing import Any

_STARTS = ("=", "+", "-", "@", "\t", "\r")


def defused(value: Any) -> Any:
    """A value for a cell: text that a spreadsheet could take for a formula gets an apostrophe; numbers stay."""
    if not isinstance(value, str) or not value.startswith((*_STARTS, "'")):
        return value
    if value.startswith("'"):
        return f"'{value}" if value[1:].startswith((*_STARTS, "'")) else value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def restored(text: str) -> str:
    """The text that `defused` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith((*_STARTS, "'")) else text


def defused_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row with every cell `defused`."""
    return {name: defused(value) for name, value in row.items()}


def restored_row(row: dict[Any, Any]) -> dict[Any, Any]:
    """A row, as csv.DictReader gives it, with every text `restored`."""
    return {name: restored(value) if isinstance(value, str) else value for name, value in row.items()}
