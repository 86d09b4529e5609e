"""Facts laid out for people."""

from __future__ import annotations

import pytest

from ssl_tilegen.cli.tables import facts_table


@pytest.mark.parametrize(
    ("fact", "shown"),
    [
        ({"mpp": 0.4990000001}, "mpp  0.499"),
        ({"crs": None}, "crs  -"),
        ({"resolution": {"value": 0.5, "unit": "um"}}, "resolution  0.5 um/px"),
        ({"resolutions": {"he": (0.5, "um")}}, "resolutions\n  he         0.5 um/px"),
        ({"size_px": [20, 30]}, "size px  20 rows, 30 columns"),
        ({"latent_mean": [0.1] * 24}, "latent mean  24 numbers (--json shows them)"),
        ({"parts": ["encoder", "prior"]}, "parts  encoder, prior"),
        ({"sha256": "0123456789abcdef0123"}, "sha256  0123456789abcdef..."),
        ({"name": "a\nb\x1b[0m"}, "name  a\\nb\\x1b[0m"),
    ],
)  # fmt: skip
def test_a_fact_is_a_row(fact: dict[str, object], shown: str) -> None:
    assert facts_table(fact) == shown


def test_no_row_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = facts_table({"hardware": "two cores, " * 30, "name": "tiny"}).splitlines()
    assert len(rows) > 2 and max(map(len, rows)) <= 80
