"""The data of a prior: cells are computed anew where their files have changed, and pieces are drawn fairly."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_tilegen.bundle import ModelBundle, update_info
from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.training.data.prior_cells import Piece, pieces_of
from ssl_tilegen.training.data.prior_table import PriorRow, PriorTable, read_table
from ssl_tilegen.training.data.prior_windows import PieceSampler
from ssl_tilegen.workflows.embed.run import embed
from tests.bundles import encoder_bundle
from tests.io import samples


def cells_of(table: Path, bundle: Path, cache: Path) -> list[Piece]:
    return pieces_of(read_table(table), ModelBundle.load(bundle), 1, 0, cache, lambda text: None)[0]


def write_image(path: Path, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(coarse).resize((128, 128), Image.Resampling.BICUBIC).save(path)


@pytest.mark.parametrize("kind", ["image", "grid"])
def test_what_was_replaced_in_place_is_embedded_anew(tmp_path: Path, kind: str) -> None:
    bundle = encoder_bundle(tmp_path / "bundle")
    name = "a.png" if kind == "image" else "a.zarr"
    table = tmp_path / "t.csv"
    table.write_text(f"path,label,gsd\n{name},green,{0.15 if kind == 'image' else ''}\n")
    found, states = [], []
    for seed in (0, 1, 1):
        write_image(tmp_path / "a.png", seed)
        os.utime(tmp_path / "a.png", ns=(0, seed))
        if kind == "grid" and len(found) < 2:
            options = EmbedSettings(out=tmp_path / "a.zarr", model=str(bundle), gsd=0.15, overwrite=True)
            embed([tmp_path / "a.png"], options)
        found.append(cells_of(table, bundle, tmp_path / "cache"))
        states.append(PriorTable.read(table).fingerprint()["sha256"])
    first, second, third = (pieces[0].cells for pieces in found)
    assert not np.array_equal(first, second) and np.array_equal(second, third)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert states[0] != states[1] == states[2]


def test_cells_are_embedded_anew_where_the_encoder_is_fed_otherwise(tmp_path: Path) -> None:
    bundle, table = encoder_bundle(tmp_path / "bundle"), tmp_path / "t.csv"
    table.write_text("path,label,gsd\na.png,green,0.15\n")
    write_image(tmp_path / "a.png", 0)
    first = cells_of(table, bundle, tmp_path / "cache")[0].cells
    facts = ModelBundle.load(bundle).info.encoder
    update_info(bundle, encoder=facts.model_copy(update={"mean": (0.1, 0.1, 0.1)}))
    assert not np.array_equal(first, cells_of(table, bundle, tmp_path / "cache")[0].cells)


def test_cells_on_a_damaged_tile_are_missing_and_the_others_are_not(tmp_path: Path) -> None:
    bundle, table = encoder_bundle(tmp_path / "bundle"), tmp_path / "t.csv"
    table.write_text("path,label\na.tif,green\n")
    samples.write_damaged_slide(tmp_path / "a.tif", samples.texture(256, 256), slice(0, 1))
    (piece,) = cells_of(table, bundle, tmp_path / "cache")
    assert (piece.state[:2, :2] == -1).all() and (piece.state[2:] >= 0).all() and (piece.state[:, 2:] >= 0).all()


def sampler_of(counts: dict[tuple[str, str], int], balance: float = 0.5) -> tuple[PieceSampler, list[PriorRow]]:
    """Draws from so many pieces of each (label, domain)."""
    rows = [PriorRow(Path(f"{n}.png"), label, domain=domain, group=str(n % 3))
            for (label, domain), count in counts.items() for n in range(count)]  # fmt: skip
    pieces = [Piece(n, np.zeros((1, 1, 1), np.float16), np.ones((1, 1), np.int8)) for n in range(len(rows))]
    return PieceSampler(rows, pieces, balance), rows


def test_a_piece_of_a_rare_domain_is_found() -> None:
    draw, rows = sampler_of({("rock", "aerial"): 20_000, ("gland", "he"): 1}, balance=1.0)
    like = draw(np.random.default_rng(0), label="gland")
    assert [rows[draw(np.random.default_rng(seed), like=like).row].domain for seed in range(3)] == ["he"] * 3


def test_draws_for_common_domains_are_those_of_before() -> None:
    draw, _ = sampler_of({("rock", "aerial"): 9, ("gland", "he"): 5})
    like, rng = draw(np.random.default_rng(0), label="gland"), np.random.default_rng(1)
    assert [draw(rng, like=like).row for _ in range(8)] == [9, 13, 9, 9, 11, 10, 10, 12]
    assert rng.random() == 0.5285892632600216
