"""Write the tables of scores in README.md, models/README.md and the cards from each bundle's ``bundle.json``.

    python -m benchmarks.score_tables            rewrites what lies between the markers
    python -m benchmarks.score_tables --check    ends with 1 where a file differs

Figures are not typed in: they are measured by `benchmarks.quality`, stored in ``scores`` of ``bundle.json``, and copied
from there. A score that a bundle does not have is a dash.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- scores of {}: made by benchmarks/score_tables.py -->", "<!-- end of scores -->"
BUILT_IN = "tiny"

_FOUND, _COSINE = "a generated cell finds its source first", "cosine of a generated cell to its source"
_WHERE = "(tissue or ground)"
ROWS = (
    ("autoencoder on held-out images, PSNR", "psnr_db", "he/val", "oam_area3", "{:.1f} dB"),
    (f"{_FOUND} {_WHERE}", "round_trip_top1", "cmu_tissue", "oam_area3", "{:.1%}"),
    (f"{_COSINE} {_WHERE}", "round_trip_cosine", "cmu_tissue", "oam_area3", "{:.3f}"),
)
"""Row: its title, the score, the set of the H&E column, the set of the aerial column, how the figure is written."""


def scores_table(bundle: Path) -> str:
    """The scores of one bundle as a table: a row per score, a column per domain."""
    scores = _facts(bundle)["scores"]
    lines = ["| measured | H&E | aerial, never seen |", "|---|---|---|"]
    for title, score, he, aerial, form in ROWS:
        figures = (_written(scores.get(score, {}), key, form) for key in (he, aerial))
        lines.append(f"| {title} | {' | '.join(figures)} |")
    return "\n".join(lines)


def models_table(bundles: list[Path]) -> str:
    """All bundles as a table: a row per bundle."""
    lines = ["| bundle | resolutions | cells | parameters | size |", "|---|---|---|---|---|"]
    for bundle in bundles:
        facts = _facts(bundle)
        at = ", ".join(f"{name} {value:.3g} {unit}/px" for name, (value, unit) in facts["resolutions"].items())
        cells = f"{facts['encoder']['tile_px']} px"
        lines.append(f"| [`{bundle.name}`]({bundle.name}/CARD.md) | {at} | {cells} | {_parameters(bundle) / 1e6:.1f} M "
                     f"| {_mib(bundle):.0f} MiB |")  # fmt: skip
    return "\n".join(lines)


def rewritten(text: str, name: str, table: str) -> str:
    """``text`` with ``table`` between the markers of ``name``."""
    begin = BEGIN.format(name)
    head, found, rest = text.partition(begin)
    _, ended, tail = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"no markers of {name}: expected {begin} and {END}")
    return f"{head}{begin}\n\n{table}\n\n{END}{tail}"


def documents() -> Iterator[tuple[Path, str]]:
    """Every file with such tables, and what it is to hold."""
    models = ROOT / "models"
    bundles = sorted(path.parent for path in models.glob("*/bundle.json"))
    tables = {bundle.name: scores_table(bundle) for bundle in bundles}
    places = {ROOT / "README.md": [BUILT_IN], models / "README.md": ["all bundles", *tables]}
    places |= {bundle / "CARD.md": [bundle.name] for bundle in bundles}
    tables["all bundles"] = models_table(bundles)
    for path, names in places.items():
        text = path.read_text(encoding="utf-8")
        for name in names:
            text = rewritten(text, name, tables[name])
        yield path, text


def main() -> int:
    """Rewrite the files, or with ``--check`` say which differ."""
    stale = [(path, text) for path, text in documents() if path.read_text(encoding="utf-8") != text]
    for path, text in stale:
        print(f"{path.relative_to(ROOT)}: {'differs from bundle.json' if '--check' in sys.argv else 'written'}")
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    return int(bool(stale) and "--check" in sys.argv)


def _facts(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))


def _written(figures: Mapping[str, float], key: str, form: str) -> str:
    return form.format(figures[key]).replace("%", " %") if key in figures else "-"


def _parameters(bundle: Path) -> int:
    """Numbers in all weight files, by their headers."""
    return sum(prod(facts["shape"]) for path in bundle.rglob("*.safetensors")
               for name, facts in _header(path).items() if name != "__metadata__")  # fmt: skip


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))


def _mib(bundle: Path) -> float:
    return sum(path.stat().st_size for path in bundle.rglob("*.safetensors")) / 2**20


if __name__ == "__main__":
    sys.exit(main())
