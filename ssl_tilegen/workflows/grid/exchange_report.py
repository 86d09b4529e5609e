"""The report of an import or export of features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssl_tilegen.system.boundary import printable


@dataclass(frozen=True)
class ExchangeReport:
    """Summary of an exchange: ``moved_px`` is the farthest a corner went, level-0; ``dropped`` shared a cell."""

    path: Path
    features: int
    dim: int
    cells: int
    moved_px: float = 0.0
    dropped: int = 0

    def line(self) -> str:
        """The report as one line of text."""
        text = printable(f"{self.path}: {self.features} features of {self.dim} values, {self.cells} cells")
        if self.moved_px > 1:
            text += f"; corners off the lattice moved by up to {self.moved_px:.0f} px"
        return text + (f"; {self.dropped} left out, they shared a cell with a nearer one" if self.dropped else "")
