"""Results of `embed`: one report per input, and a table of them all."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.errors import OutputError, PartialFailure, failures_line
from ssl_tilegen.grids import EmbeddingGrid, Validity
from ssl_tilegen.io.uri import Source
from ssl_tilegen.system import atomic, marks
from ssl_tilegen.system.boundary import printable
from ssl_tilegen.system.csv_table import defused_row
from ssl_tilegen.system.locks import lock
from ssl_tilegen.system.names import recordable
from ssl_tilegen.system.outputs import Output, check_output

_CODES = tuple(code.name.lower() for code in Validity)
_PATIENCE_S = 30.0  # for another job that writes its rows
COLUMNS = ("input", "grid", "status", "cells", *_CODES, "resolution", "seconds", "tiles_per_s", "error")


@dataclass(frozen=True)
class EmbedReport:
    """The result of one input.

    ``status`` is done, partial (other processes hold the rest), skipped (finished before), busy (another job is at
    it) or failed; ``error`` says why for the last two. ``counts`` are cells by validity.
    """

    input: Source
    grid: Path
    status: str
    seconds: float = 0.0
    cells: int = 0
    tiles_per_s: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    resolution: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, image: Source, grid: EmbeddingGrid, status: str) -> EmbedReport:
        """The report of a grid that was there before."""
        resolution = str(grid.spec.resolution) if grid.spec.resolution else None
        counts = grid.counts()
        return cls(image, grid.path, status, cells=grid.shape.area, counts=counts, resolution=resolution)

    def line(self) -> str:
        """The report as one line of text."""
        if self.status == "skipped":
            return printable(f"{self.grid}: finished before, skipped")
        if self.error:
            return printable(f"{self.grid}: {self.status}: {self.error}")
        shares = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        pace = f" in {self.seconds:.1f} s, {self.tiles_per_s}/s" if self.seconds else ", finished before"
        return printable(f"{self.grid}: {self.status}, {self.cells} cells ({shares}){pace}")

    def row(self) -> dict[str, Any]:
        """The report as a row of the table; texts as a file can hold them."""
        facts = asdict(self)
        facts |= {name: recordable(str(facts[name])) for name in ("input", "grid", "error") if facts[name] is not None}
        return {name: self.counts.get(name, "") if name in _CODES else facts[name] for name in COLUMNS}


class EmbedIncomplete(PartialFailure):
    """Some of many inputs failed; ``reports`` has all of them."""

    def __init__(self, reports: Sequence[EmbedReport]) -> None:
        lost = [report for report in reports if report.status == "failed"]
        failed = [(str(report.input), str(report.error).replace(str(report.grid), "the grid")) for report in lost]
        done = sum(report.status in ("done", "skipped") for report in reports)
        super().__init__(failures_line(failed, len(reports), done, "inputs"))
        self.reports = list(reports)


def summary_path(settings: EmbedSettings, shard: tuple[int, int]) -> Path | None:
    """Where the table goes: --summary, else into --out-dir; each of many processes has its own."""
    path = settings.summary or (settings.out_dir and settings.out_dir / "embed-summary.csv")
    if path is None or shard[1] == 1:
        return path or None
    return path.with_name(f"{path.stem}.{shard[0]}-of-{shard[1]}{path.suffix}")


def write_summary(path: Path, reports: Sequence[EmbedReport]) -> None:
    """The reports as CSV, or JSON where the suffix says so; appears when whole. Rows of other grids that are there, of
    another job that writes the same table, stay. OutputError where something else has the name."""
    is_json = path.suffix.lower() == ".json"
    rows = [report.row() for report in reports]
    rows = json.loads(json.dumps(rows, default=str)) if is_json else list(map(defused_row, rows))
    grids = {str(row["grid"]) for row in rows}
    try:
        with lock(path, option="--summary", wait_s=_PATIENCE_S):
            atomic.sweep(path.parent, path.name)
            check_output(summary_output(path))
            rows = [row for row in _rows_at(path) if row["grid"] not in grids] + rows
            with (
                atomic.writing(path, before=lambda: check_output(summary_output(path))) as part,
                part.open("w", newline="", encoding="utf-8") as file,
            ):
                if is_json:
                    json.dump(rows, file, indent=1)
                else:
                    table = csv.DictWriter(file, COLUMNS)
                    table.writeheader()
                    table.writerows(rows)
    except OSError as error:
        raise OutputError(f"{path}: cannot write here ({error.strerror}); choose another --summary") from error


def summary_output(table: Path) -> Output:
    """The table of results, for the gate."""
    return Output(table, marks.table(COLUMNS), "--summary", "side")


def _rows_at(path: Path) -> list[dict[str, Any]]:
    """The rows of a table of ours, as they stand in it."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(json.load(file)) if path.suffix.lower() == ".json" else list(csv.DictReader(file))
