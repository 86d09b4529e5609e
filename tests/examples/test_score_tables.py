"""README, models/README.md and the cards say what ``bundle.json`` says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.score_tables import documents, models_table, rewritten, scores_table

DOCUMENTS = dict(documents())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_tables_agree_with_the_scores_of_the_bundle(path: Path) -> None:
    assert path.read_text() == DOCUMENTS[path], "run python -m benchmarks.score_tables"


def test_a_score_is_written_and_a_missing_one_is_a_dash(tmp_path: Path) -> None:
    facts = {"scores": {"psnr_db": {"he/val": 30.04}}, "resolutions": {"he": [0.5, "um"]}, "encoder": {"tile_px": 64}}
    (tmp_path / "bundle.json").write_text(json.dumps(facts))
    assert "| 30.0 dB | - |" in scores_table(tmp_path)
    assert "he 0.5 um/px | 64 px | 0.0 M | 0 MiB |" in models_table([tmp_path])


def test_text_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers of tiny"):
        rewritten("# tiny", "tiny", "| |")
