"""One contract for every writer."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from ssl_tilegen.errors import OutputError
from ssl_tilegen.geometry import Resolution, Size
from ssl_tilegen.io.pyramid import ImageSpec, PyramidWriter, open_writer, unfinished_image
from ssl_tilegen.io.writers.registry import output_suffixes
from ssl_tilegen.system import atomic
from ssl_tilegen.system.atomic import temporary_beside
from tests.io.samples import PLACE, UTM, texture
from tests.system.test_atomic import litter

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

MICRONS, METRES = Resolution(0.2527, "um"), Resolution(0.5, "m")
PROVENANCE = {"software": "test", "seed": 7, "settings": {"steps": 25, "text": 'naïve <&> "q"'}}
PLAIN = {"provenance": PROVENANCE, "tile_px": 128}
KINDS: dict[str, tuple[str, dict]] = {
    "ome jpeg": ("x.ome.tif", {"resolution": MICRONS}),
    "ome deflate": ("x.ome.tiff", {"resolution": MICRONS, "compression": "deflate"}),
    "ome zstd": ("x.ome.tif", {"resolution": MICRONS, "compression": "zstd"}),
    "tiff": ("x.tif", {"resolution": MICRONS, "compression": "deflate"}),
    "cog": ("x.tif", {"resolution": METRES, "crs": UTM, "transform": PLACE}),
    "cog jpeg": ("x.tif", {"resolution": METRES, "crs": UTM, "transform": PLACE, "compression": "jpeg"}),
    "svs": ("x.svs", {"resolution": MICRONS}),
    "zarr": ("x.zarr", {"resolution": MICRONS}),
    "png": ("x.png", {}),
    "jpg": ("x.jpg", {}),
}
LOSSY = ("ome jpeg", "svs", "cog jpeg", "jpg")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def _spec(kind: str, size: Size) -> ImageSpec:
    return ImageSpec(size, **{**PLAIN, **KINDS[kind][1]})


def _write(path: Path, spec: ImageSpec, image: np.ndarray, band: int = 100, **options: bool) -> None:
    with open_writer(path, spec, **options) as writer:
        _go_on(writer, image, band)


def _go_on(writer: PyramidWriter, image: np.ndarray, band: int) -> None:
    for row in range(writer.rows_done, len(image), band):
        writer.write(image[row : row + band])


def _levels(path: Path) -> list[np.ndarray]:
    """All levels of an output as uint8 (H, W, 3), finest first, read by other hands than ours."""
    if path.suffix == ".zarr":
        group: Any = zarr.open_group(path, mode="r")
        return [np.asarray(group[str(i)]).transpose(1, 2, 0) for i in range(len(list(group.array_keys())))]
    if path.suffix in (".tif", ".tiff", ".svs"):
        with tifffile.TiffFile(path) as tiff:
            return [level.asarray() for level in tiff.series[0].levels]
    return [np.asarray(Image.open(path))]


@pytest.mark.parametrize("size", [Size(1, 1), Size(300, 257), Size(701, 1100)], ids=str)
def test_what_goes_in_comes_out(tmp_path: Path, kind: str, size: Size) -> None:
    image = texture(size.rows, size.cols) if kind not in LOSSY else _smooth(size)
    path = tmp_path / KINDS[kind][0]
    _write(path, _spec(kind, size), image)
    levels = _levels(path)
    assert levels[0].shape == image.shape and levels[0].dtype == np.uint8
    if kind in LOSSY:
        assert np.abs(levels[0].astype(int) - image).max() <= 6
    else:
        assert (levels[0] == image).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, path.name + ".json"]


def test_levels_are_means_and_end_at_256(tmp_path: Path, kind: str) -> None:
    image = _smooth(Size(701, 1100)) if kind in LOSSY else texture(701, 1100)
    path = tmp_path / KINDS[kind][0]
    _write(path, _spec(kind, Size(701, 1100)), image)
    levels = _levels(path)
    if kind in ("png", "jpg"):
        return
    assert [level.shape[:2] for level in levels] == [(701, 1100), (351, 550), (176, 275), (88, 138)]
    for k, level in enumerate(levels):
        n = 2**k
        rows, cols = 701 // n, 1100 // n
        mean = image[: rows * n, : cols * n].reshape(rows, n, cols, n, 3).mean((1, 3))
        assert np.abs(level[:rows, :cols] - mean).max() <= (8 if kind in LOSSY else 0.5 * k + 0.01)
        assert np.abs((level[:rows, :cols] - mean).mean()) <= (1 if kind in LOSSY else 0.13), "no drift in brightness"


def test_band_heights_do_not_matter(tmp_path: Path, kind: str) -> None:
    image, contents = texture(333, 290), []
    for band in (1, 100, 128, 333):
        path = tmp_path / f"{band}" / KINDS[kind][0]
        _write(path, _spec(kind, Size(333, 290)), image, band)
        contents.append(_content(path))
    assert all(content == contents[0] for content in contents)


@pytest.mark.parametrize("fatal", [False, True], ids=["exception", "killed"])
def test_resumed_run_gives_the_same_file(tmp_path: Path, kind: str, fatal: bool) -> None:
    image, spec = texture(401, 290), _spec(kind, Size(401, 290))
    straight = tmp_path / "straight" / KINDS[kind][0]
    _write(straight, spec, image, 50)
    for after in range(0, 401, 50):
        path = tmp_path / f"{after}" / KINDS[kind][0]
        _interrupt(path, spec, image, after, fatal)
        assert not path.exists() and not Path(f"{path}.json").exists() and Path(f"{path}.part").is_dir()
        with open_writer(path, spec) as writer:
            assert writer.rows_done == after or (fatal and writer.rows_done <= after)
            _go_on(writer, image, 70)
        assert _content(path) == _content(straight)
        assert not Path(f"{path}.part").exists()


def test_the_facts_of_an_image_that_did_not_come_do_not_stay(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OutputError("the folder is full")

    path = tmp_path / KINDS[kind][0]
    sidecar = Path(f"{path}.json")
    with monkeypatch.context() as patched:
        for name in ("publish_file", "publish_folder"):
            patched.setattr(atomic, name, refuse)
        with pytest.raises(OutputError, match="full"):
            _write(path, _spec(kind, Size(64, 64)), texture(64, 64))
        assert not sidecar.exists() and not path.exists()
    _write(path, _spec(kind, Size(64, 64)), texture(64, 64))
    before, image = sidecar.read_bytes(), _content(path)
    with monkeypatch.context() as patched:
        for name in ("publish_file", "publish_folder"):
            patched.setattr(atomic, name, refuse)
        with pytest.raises(OutputError, match="full"):
            _write(path, _spec(kind, Size(96, 64)), texture(96, 64), overwrite=True)
    assert sidecar.read_bytes() == before and _content(path) == image
    _write(path, _spec(kind, Size(96, 64)), texture(96, 64), overwrite=True)
    assert sidecar.read_bytes() != before


def test_every_output_says_that_it_is_synthetic(tmp_path: Path, kind: str) -> None:
    path = tmp_path / KINDS[kind][0]
    _write(path, _spec(kind, Size(64, 64)), texture(64, 64))
    sidecar = json.loads(Path(f"{path}.json").read_text())
    assert sidecar["synthetic"] is True and sidecar["provenance"] == {**PROVENANCE, "synthetic": True}
    assert sidecar["size"] == {"rows": 64, "cols": 64}
    inside = (path / "zarr.json").read_text() if path.suffix == ".zarr" else path.read_bytes().decode("latin-1")
    assert "synthetic" in inside and "seed" in inside and "settings" in inside


def test_restart_drops_the_unfinished_run(tmp_path: Path, kind: str) -> None:
    image, spec = texture(200, 150), _spec(kind, Size(200, 150))
    path = tmp_path / KINDS[kind][0]
    _interrupt(path, spec, 255 - image, 150, fatal=False)
    with open_writer(path, spec, restart=True) as writer:
        assert writer.rows_done == 0
        _go_on(writer, image, 64)
    straight = tmp_path / "straight" / path.name
    _write(straight, spec, image)
    assert _content(path) == _content(straight)


def test_what_killed_runs_left_in_the_folder_of_an_unfinished_image_is_removed(tmp_path: Path) -> None:
    path, spec = tmp_path / "a.png", _spec("png", Size(300, 257))
    _interrupt(path, spec, texture(300, 257), 200, False)
    part = unfinished_image(path)
    own = temporary_beside(part / "latents.state.3.0")
    own.touch()
    before = {entry.name for entry in part.iterdir()}
    litter(part, "state.npz", "latents.state.3.0")
    put_aside = {entry.name for entry in part.iterdir() if entry.name.startswith(".latents") and ".old" in entry.name}
    with contextlib.suppress(KeyError), open_writer(path, spec) as writer:
        assert {entry.name for entry in part.iterdir()} - put_aside == before
        assert writer.rows_done == 200
        raise KeyError


def test_another_unfinished_run_is_not_mixed_in(tmp_path: Path, kind: str) -> None:
    path = tmp_path / KINDS[kind][0]
    _interrupt(path, _spec(kind, Size(200, 150)), texture(200, 150), 150, fatal=False)
    with pytest.raises(OutputError, match="--restart"):
        open_writer(path, _spec(kind, Size(200, 151)))
    with open_writer(path, _spec(kind, Size(200, 150))) as writer:
        assert writer.rows_done == 150, "the refusal left it whole"
        writer.write(texture(200, 150)[150:])


def test_finished_output_is_kept_unless_told(tmp_path: Path, kind: str) -> None:
    path, spec = tmp_path / KINDS[kind][0], _spec(kind, Size(40, 40))
    _write(path, spec, texture(40, 40))
    before = _content(path)
    with pytest.raises(OutputError, match="--overwrite"):
        open_writer(path, spec)
    assert _content(path) == before and not Path(f"{path}.part").exists()
    _write(path, spec, texture(40, 40, seed=1), overwrite=True)
    assert _content(path) != before and not Path(f"{path}.part").exists()


def test_missing_rows_are_no_file(tmp_path: Path, kind: str) -> None:
    path, spec = tmp_path / KINDS[kind][0], _spec(kind, Size(100, 40))
    with pytest.raises(OutputError, match="60 of 100 rows"), open_writer(path, spec) as writer:
        writer.write(texture(60, 40))
    assert not path.exists()
    with open_writer(path, spec) as writer:
        assert writer.rows_done == 60
        writer.write(texture(40, 40))


@pytest.mark.parametrize("band", [
    np.zeros((5, 39, 3), np.uint8), np.zeros((5, 40, 3), np.float32), np.zeros((5, 40), np.uint8),
    np.zeros((101, 40, 3), np.uint8),
])  # fmt: skip
def test_bands_that_do_not_fit_are_refused(tmp_path: Path, band: np.ndarray) -> None:
    with pytest.raises(ValueError, match="rows"), open_writer(tmp_path / "x.png", ImageSpec(Size(100, 40))) as writer:
        writer.write(band)


def test_unwritable_folder_is_told_at_once(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written") as caught:
        open_writer(tmp_path / "file" / KINDS[kind][0], _spec(kind, Size(40, 40)))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_told_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        open_writer(tmp_path / "x.png", ImageSpec(Size(40, 40)))


@pytest.mark.parametrize("name, spec, match", [
    ("x.bmp", {}, r"unknown kind of output.*\.ome\.tif.*\.png"),
    ("x", {}, "unknown kind of output"),
    ("x.png", {"compression": "jpeg"}, "'jpeg'; choose from deflate"),
    ("x.zarr", {"compression": "jpeg"}, "choose from zstd"),
    ("x.tif", {"crs": "EPSG:1", "transform": PLACE}, "CRS 'EPSG:1' cannot be written"),
])  # fmt: skip
def test_what_a_format_cannot_hold(tmp_path: Path, name: str, spec: dict, match: str) -> None:
    with pytest.raises(OutputError, match=match):
        open_writer(tmp_path / name, ImageSpec(Size(40, 40), **spec))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, size", [("x.png", Size(20_000, 20_000)), ("x.jpg", Size(1, 70_000))])
def test_large_pictures_are_pointed_elsewhere(tmp_path: Path, name: str, size: Size) -> None:
    with pytest.raises(OutputError, match=r"too large.*\.ome\.tif"):
        open_writer(tmp_path / name, ImageSpec(size))


def test_two_processes_cannot_write_one_file(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    spec = ImageSpec(Size(40, 40))
    with open_writer(tmp_path / "x.png", spec) as writer:
        with pytest.raises(OutputError, match="being written by process"):
            open_writer(tmp_path / "x.png", spec)
        writer.write(texture(40, 40))


def test_broken_state_names_the_remedy(tmp_path: Path) -> None:
    path, spec = tmp_path / "x.tif", ImageSpec(Size(40, 40))
    _interrupt(path, spec, texture(40, 40), 20, fatal=False)
    (tmp_path / "x.tif.part" / "state.npz").write_bytes(b"PK no more")
    with pytest.raises(OutputError, match="--restart"):
        open_writer(path, spec)


def test_a_full_disk_is_one_line_and_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, spec, image = tmp_path / "x.tif", ImageSpec(Size(400, 40), tile_px=128), texture(400, 40)
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="No space left"):  # noqa: SIM117
        with open_writer(path, spec) as writer:
            writer.write(image[:200])
            patch.setattr(writer._cascade, "_put", _no_space)
            writer.write(image[200:])
    assert not path.exists()
    with open_writer(path, spec) as writer:
        assert writer.rows_done == 200
        _go_on(writer, image, 50)


@pytest.mark.parametrize("name", ["x.tif", "x.zarr"])
def test_what_a_full_disk_refused_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A tile or shard is refused in the background, noticed when the state is saved, and then there is room again."""
    path, spec, image = tmp_path / name, ImageSpec(Size(400, 300), tile_px=128, compression="zstd"), texture(400, 300)
    method = "_write" if name.endswith("zarr") else "_encode"
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="No space left"):  # noqa: SIM117
        with open_writer(path, spec) as writer:
            writer.write(image[:128])
            store, refused = getattr(writer._format, method), []

            def once(*what: Any) -> Any:
                if not refused:
                    refused.append(what)
                    _no_space()
                return store(*what)

            patch.setattr(writer._format, method, once)
            writer.write(image[128:300])
    with open_writer(path, spec) as writer:
        assert writer.rows_done == 128
        _go_on(writer, image, 50)
    assert (_levels(path)[0] == image).all()


def test_suffixes_are_listed() -> None:
    assert {".ome.tif", ".tif", ".zarr", ".png", ".jpg"} <= set(output_suffixes())


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def _interrupt(path: Path, spec: ImageSpec, image: np.ndarray, after: int, fatal: bool) -> None:
    """Write ``after`` rows and stop: by an exception, or as if killed (nothing is saved on the way out)."""
    stop: Callable[[PyramidWriter], None] = _release if fatal else _nothing
    with pytest.raises(KeyboardInterrupt), open_writer(path, spec) as writer:
        for row in range(0, after, 50):
            writer.write(image[row : min(after, row + 50)])
        stop(writer)
        raise KeyboardInterrupt


def _release(writer: PyramidWriter) -> None:
    writer._consistent = False


def _nothing(_: PyramidWriter) -> None: ...


def _smooth(size: Size) -> np.ndarray:
    y, x = np.mgrid[0 : size.rows, 0 : size.cols]
    return np.stack([y % 256 // 2 + 60, x * 200 // size.cols, np.full_like(x, 128)], -1).clip(0, 255).astype(np.uint8)


def _content(path: Path) -> dict[str, bytes]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files}
