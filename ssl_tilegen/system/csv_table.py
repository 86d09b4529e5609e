"""Tables in CSV files: reading them, and text in their cells.

A spreadsheet runs a cell that starts with "=", so such text is marked as text by an apostrophe before it, as
spreadsheets write it; reading takes it away.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_tilegen.errors import InputError
from ssl_tilegen.system.boundary import reason_of
from ssl_tilegen.system.outputs import require_plain

_STARTS = ("=", "+", "-", "@", "\t", "\r")


def defused(value: Any) -> Any:
    """A value for a cell: text (or a path) that a spreadsheet could take for a formula gets an apostrophe; numbers
    stay."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
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


class Row(NamedTuple):
    """A line of a table: its ``number`` in the file, from 1, and its ``cells`` by column, empty where it has none."""

    number: int
    cells: dict[str, str]

    def text(self, name: str) -> str:
        """A cell without spaces around it; empty where there is no such column."""
        return self.cells.get(name, "").strip()


def read_csv(
    path: Path,
    needs: Sequence[str] = (),
    *,
    known: Sequence[str] = (),
    shown: str = "",
    remedy: str = "give a CSV file",
) -> list[Row]:
    """The rows of a CSV file (UTF-8, with or without a byte order mark) that are not empty, each text `restored`.

    Args:
        path: The file.
        needs: Columns that it must have. Names of columns are compared in lower case and without spaces around them.
        known: All columns that it may have; any other is an error. Empty: any.
        shown: What errors call the file; its path by default.
        remedy: What to do where it cannot be read.

    Raises:
        InputError: The file cannot be read, lacks a column or has an unknown one.
    """
    shown = shown or str(path)
    require_plain(path, "the table")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [name.strip().lower() for name in reader.fieldnames or ()]
            _check_columns(columns, needs, known, shown)
            reader.fieldnames = columns
            rows = [Row(reader.line_num, _cells(row)) for row in reader if any(row.values())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "a quote is not closed" if "end of data" in str(error) else reason_of(error)
        raise InputError(f"{shown}: cannot be read ({reason}); {remedy}") from None
    for row in rows:
        if any("\0" in text for text in row.cells.values()):
            raise InputError(f"{shown}, line {row.number}: holds a NUL character; {remedy}")
    return rows


def _check_columns(columns: Sequence[str], needs: Sequence[str], known: Sequence[str], shown: str) -> None:
    if missing := [name for name in needs if name not in columns]:
        plural = f"columns {' and '.join(map(repr, needs))}" if len(needs) > 1 else f"column {missing[0]!r}"
        raise InputError(f"{shown}: its first line has no {plural}; add {'them' if len(needs) > 1 else 'it'}")
    if strange := [name for name in columns if known and name not in known]:
        raise InputError(f"{shown}: unknown column {strange[0]!r}; known columns are {', '.join(known)}")


def _cells(row: dict[Any, Any]) -> dict[str, str]:
    return {name: restored(value or "") for name, value in row.items() if isinstance(name, str)}
