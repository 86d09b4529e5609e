"""The laws of grids: what is written is read, shards may come in any order from any process, nothing half-made."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssl_tilegen.errors import FormatError, InputError, OutputError
from ssl_tilegen.geometry import Lattice, Resolution, Size, Window, cover
from ssl_tilegen.grids import (
    EmbeddingGrid,
    EncoderFacts,
    GridData,
    GridSpec,
    SourceFacts,
    Validity,
    is_complete,
    shards,
    unfinished_grid,
    write_grid,
)

SPEC = GridSpec(
    source=SourceFacts("field", "georaster", Size(2600, 4500), "abcdef", (1, 2, 3), ((0.0, 255.0),)),
    lattice=Lattice(Size(2600, 4500), tile=64, stride=64),
    dim=8,
    encoder=EncoderFacts("vit", "0" * 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "pool", {"timm": "1.0"}),
    resolution=Resolution(0.15, "m"),
    factor=2.0,
    crs="EPSG:3857",
    transform=(0.15, 0.0, 100.0, 0.0, -0.15, 200.0),
    background=(1, 2, 3),
    bundle={"id": "tiny", "sha256": "1" * 64},
)


def cells(spec: GridSpec = SPEC) -> GridData:
    rng = np.random.default_rng(0)
    shape = (spec.shape.rows, spec.shape.cols)
    return GridData(
        rng.normal(size=(*shape, spec.dim)).astype(np.float16),
        rng.integers(0, 5, shape).astype(np.uint8),
        rng.random(shape).astype(np.float16),
    )


def part(data: GridData, window: Window) -> GridData:
    rows, cols = window.slices
    return GridData(data.embedding[rows, cols], data.valid[rows, cols], data.tissue[rows, cols])


def same(first: GridData, second: GridData) -> None:
    for name in ("embedding", "valid", "tissue"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "a.zarr", SPEC, cells())
    assert grid.spec == SPEC and EmbeddingGrid.open(tmp_path / "a.zarr").spec == SPEC
    same(grid.read(), cells())
    window = Window(20, 30, 15, 25)
    same(grid.read(window), part(cells(), window))
    assert not unfinished_grid(tmp_path / "a.zarr").exists()


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    write_grid(tmp_path / "a.zarr", SPEC, cells())
    attributes = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["attributes"]
    assert attributes["format"] == 1 and attributes["tile_px"] == 64 and attributes["stride_px"] == 64
    assert attributes["size_px"] == [2600, 4500] and attributes["level0_px_per_cell"] == 128
    assert attributes["proj:code"] == "EPSG:3857"
    assert attributes["spatial:transform"] == [0.15, 0.0, 100.0, 0.0, -0.15, 200.0]
    assert attributes["encoder"]["weights_sha256"] == "0" * 64
    array = json.loads((tmp_path / "a.zarr" / "embedding" / "zarr.json").read_text())
    assert array["shape"] == [40, 70, 8] and array["data_type"] == "float16"
    assert array["attributes"]["spatial:transform"] == pytest.approx([9.6, 0, 100, 0, -9.6, 200])


def test_the_transform_of_cells_keeps_tile_centres() -> None:
    spec = replace(SPEC, lattice=Lattice(Size(640, 640), tile=64, stride=32))
    a, _, c, _, e, f = spec.cell_transform or ()
    row, col = spec.lattice.centre(3, 5)
    assert (a * 5.5 + c, e * 3.5 + f) == pytest.approx((0.15 * col + 100, -0.15 * row + 200))


def test_partial_cells_are_marked_and_a_grid_without_the_mark_has_whole_ones(tmp_path: Path) -> None:
    size = Size(500, 500)
    for name, lattice, cells_a_side in (("old", Lattice(size, 64, 64), 7), ("new", Lattice.covering(size, 64, 64), 8)):
        spec = replace(SPEC, lattice=lattice)
        grid = write_grid(tmp_path / name, spec, cells(spec))
        assert grid.spec == spec and grid.shape == Size(cells_a_side, cells_a_side) and grid.spec.lattice.size == size
        assert ("partial_cells" in grid.attributes) == (name == "new")
        assert EmbeddingGrid.open(tmp_path / name).read().valid.shape == (cells_a_side, cells_a_side)


def test_shards_in_any_order_with_a_stop_between_equal_one_go(tmp_path: Path) -> None:
    path, data = tmp_path / "a.zarr", cells()
    writer = EmbeddingGrid.create(path, SPEC)
    assert writer.pending() == list(range(len(shards(SPEC.shape)))) == list(range(6))
    for index in (4, 1):
        writer.write_shard(index, part(data, writer.shards[index]))
    assert writer.finish() is None and not path.exists() and not is_complete(path)
    with pytest.raises(FormatError, match="unfinished"):
        EmbeddingGrid.open(path)
    again = EmbeddingGrid.create(path, SPEC)
    assert again.pending() == [0, 2, 3, 5]
    for index in again.pending():
        again.write_shard(index, part(data, again.shards[index]))
    grid = again.finish()
    assert grid is not None and is_complete(path)
    same(grid.read(), data)


def test_writers_that_share_a_grid_lose_nothing(tmp_path: Path) -> None:
    path, data = tmp_path / "a.zarr", cells()

    def work(share: int) -> None:
        writer = EmbeddingGrid.create(path, SPEC)
        for index in range(share, len(writer.shards), 3):
            writer.write_shard(index, part(data, writer.shards[index]))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    grid = EmbeddingGrid.create(path, SPEC).finish()
    assert grid is not None
    same(grid.read(), data)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.zarr"]


def test_a_finished_grid_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_grid(path, SPEC, cells())
    with pytest.raises(OutputError, match="--overwrite"):
        write_grid(path, SPEC, cells())
    unfinished_grid(path).exists()
    other = replace(cells(), tissue=np.zeros((40, 70), np.float16))
    assert not write_grid(path, SPEC, other, overwrite=True).read().tissue.any()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.zarr"]


def test_an_unfinished_run_with_other_settings_is_not_mixed_in(tmp_path: Path) -> None:
    EmbeddingGrid.create(tmp_path / "a.zarr", SPEC)
    with pytest.raises(OutputError, match=r"factor: 2\.0 there, 4\.0 now.*--restart"):
        EmbeddingGrid.create(tmp_path / "a.zarr", replace(SPEC, factor=4.0))
    EmbeddingGrid.create(tmp_path / "a.zarr", replace(SPEC, factor=4.0), restart=True)


def test_an_unfinished_grid_of_another_image_is_not_thrown_away(tmp_path: Path) -> None:
    path, data = tmp_path / "a.zarr", cells()
    writer = EmbeddingGrid.create(path, SPEC)
    writer.write_shard(0, part(data, writer.shards[0]))
    other = replace(SPEC, source=replace(SPEC.source, name="other"))
    with pytest.raises(OutputError, match="unfinished grid of field"):
        write_grid(path, other, data)
    assert 0 not in EmbeddingGrid.create(path, SPEC).pending()
    same(write_grid(path, SPEC, data).read(), data)


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_grid_that_is_replaced_while_it_is_read_is_an_error(change: str, tmp_path: Path) -> None:
    path, data = tmp_path / "a.zarr", cells()
    grid = write_grid(path, SPEC, data)
    grid.read(Window(0, 0, 2, 2))
    if change == "replaced":
        write_grid(path, SPEC, data, overwrite=True)
    else:
        path.rename(tmp_path / "b.zarr")
    with pytest.raises(InputError, match=r"a\.zarr: was replaced or removed while it was read"):
        grid.read()


def test_usable_cells_are_those_with_an_embedding(tmp_path: Path) -> None:
    data = GridData.empty(Size(1, 3), 2)
    assert not data.usable.any()
    data.valid[0] = [Validity.OK, Validity.BACKGROUND, Validity.BACKGROUND]
    data.embedding[0, 1] = 1
    assert data.usable.tolist() == [[True, True, False]]


def test_broken_foreign_and_newer_grids_are_one_line_each(tmp_path: Path) -> None:
    import zarr

    zarr.create_group(tmp_path / "foreign.zarr", zarr_format=3)
    (tmp_path / "text.zarr").write_text("hello")
    (tmp_path / "empty.zarr").mkdir()
    write_grid(tmp_path / "newer.zarr", SPEC, cells())
    zarr.open_group(tmp_path / "newer.zarr").attrs["format"] = 2
    write_grid(tmp_path / "broken.zarr", SPEC, cells())
    zarr.open_group(tmp_path / "broken.zarr").attrs["tile_px"] = 32
    expected = {
        "missing": "no such grid",
        "foreign": "not an embedding grid",
        "text": "not an embedding grid",
        "empty": "not an embedding grid",
        "newer": "format 2.*upgrade",
        "broken": "damaged",
    }
    for name, message in expected.items():
        with pytest.raises(FormatError, match=message) as caught:
            EmbeddingGrid.open(tmp_path / f"{name}.zarr")
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_shard_that_was_cut_short_is_reported(tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "a.zarr", SPEC, cells())
    chunk = next(p for p in (tmp_path / "a.zarr" / "embedding").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(FormatError, match="damaged"):
        grid.read()


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write here"):
        EmbeddingGrid.create(tmp_path / "file" / "a.zarr", SPEC)


@pytest.mark.parametrize("cells", [Size(1, 1), Size(32, 33), Size(100, 65)])
def test_shards_are_windows_by_arithmetic(cells) -> None:
    found = shards(cells)
    assert list(found) == list(cover(cells, Size(32, 32))) == [found[i] for i in range(len(found))]
    assert found[-1] == list(found)[-1] and list(found[1:3]) == list(found)[1:3]
    with pytest.raises(IndexError):
        found[len(found)]
    assert len(shards(Size(1 << 20, 1 << 20))) == 1 << 30
