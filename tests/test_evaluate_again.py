"""`evaluate` stopped and run again; encoders whose weights are given by path; a real set that is the training set."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.encoders.texture import TextureEncoder
from ssl_tilegen.errors import InputError, Interrupted, OutputError, TilegenError
from ssl_tilegen.geometry import Resolution, Size
from ssl_tilegen.io.pyramid import ImageSpec, open_writer
from ssl_tilegen.metrics.copying import duplicates
from ssl_tilegen.workflows.evaluate import evaluate
from ssl_tilegen.workflows.evaluate.features import key_of
from ssl_tilegen.workflows.evaluate.sets import places, read_set
from tests.test_evaluate import SIDE, by_name, fill


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    fill(root / "a", 1, fields=75)
    fill(root / "b", 2, fields=75)
    return root


def settings(sets: Path, out: Path, **how: Any) -> EvaluateSettings:
    given = {"real": sets / "a", "synthetic": sets / "b", "encoder": ("texture",), "metrics": ("fd", "kid"),
             "rounds": 4, "report": out / "q.html"}  # fmt: skip
    return EvaluateSettings(**given | how)


def stop_at(stage: str, count: int) -> Any:
    def progress(name: str, done: float, total: float) -> None:
        if name == stage and done >= count:
            raise Interrupted("asked to stop", signal.SIGTERM)

    return progress


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with how many windows the texture encoder is asked for (it asks itself for one, to learn its dimension)."""
    seen: list[int] = []
    embed = TextureEncoder.embed

    def counting(self: TextureEncoder, tiles: np.ndarray) -> np.ndarray:
        seen.extend([len(tiles)] if len(tiles) > 1 else [])
        return embed(self, tiles)

    monkeypatch.setattr(TextureEncoder, "embed", counting)
    return seen


def test_a_stopped_run_goes_on(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(settings(sets, tmp_path, report=None))
    with pytest.raises(Interrupted, match=r"q\.html\.part.*goes on"):
        evaluate(settings(sets, tmp_path), stop_at("describe synthetic", 64))
    assert not (tmp_path / "q.html").exists() and (tmp_path / "q.html.part").is_dir()
    seen = counted(monkeypatch)
    again = evaluate(settings(sets, tmp_path))
    assert sum(seen) == 150 - 64  # 150 windows a set; all real ones and 64 others were there
    assert [f.value for f in again.figures] == [f.value for f in whole.figures]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.html", "q.json"]


def test_restart_and_changed_files_are_seen_anew(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = shutil.copytree(sets, tmp_path / "sets")
    seen = counted(monkeypatch)

    def windows_seen(**how: Any) -> int:
        with pytest.raises(Interrupted):
            evaluate(settings(mine, tmp_path, **how), stop_at("compare", 0))
        total = sum(seen)
        seen.clear()
        return total

    assert windows_seen() == 300 and windows_seen() == 0
    assert windows_seen(restart=True) == 300
    shutil.copy(mine / "a" / "g01_0.png", mine / "a" / "g00_0.png")
    assert windows_seen() == 150


def test_a_run_that_stopped_before_anything_was_kept_does_not_say_so(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(encoder: TextureEncoder, tiles: np.ndarray) -> np.ndarray:
        raise Interrupted("asked to stop", signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="before any vectors were kept"):
        patch.setattr("ssl_tilegen.workflows.evaluate.features.describe_windows", stop)
        evaluate(settings(sets, tmp_path))
    with pytest.raises(Interrupted, match="vectors so far are kept in"):
        evaluate(settings(sets, tmp_path), stop_at("describe real", 64))


def test_a_report_that_cannot_be_written_names_its_option(sets: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another --report"):
        evaluate(settings(sets, tmp_path, report=tmp_path / f"{'q' * 249}.html"))  # no room for the name of its lock


def test_the_key_of_a_folder_follows_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zarr"
    spec = ImageSpec(Size(300, 300), Resolution(0.5, "um"))
    with open_writer(path, spec) as writer:
        writer.write(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8))
    at = places(read_set(path), 64, None)[0]
    chunk = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    keys = [key_of({}, at, {})]
    assert at and key_of({}, at, {}) == keys[0]
    before = path.stat().st_mtime_ns
    os.utime(chunk, (time.time() + 1,) * 2)
    assert path.stat().st_mtime_ns == before  # which the folder itself does not show
    keys.append(key_of({}, at, {}))
    monkeypatch.setattr("ssl_tilegen.workflows.evaluate.features.__version__", "0.0.0")
    keys.append(key_of({}, at, {}))
    assert len(set(keys)) == 3


def test_damaged_vectors_are_made_again(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted):
        evaluate(settings(sets, tmp_path), stop_at("compare", 0))
    for file in (tmp_path / "q.html.part").glob("*/1.npz"):
        file.write_bytes(file.read_bytes()[:100])
    seen = counted(monkeypatch)
    evaluate(settings(sets, tmp_path))
    assert sum(seen) == 2 * (150 - 64)


@pytest.mark.slow
def test_a_killed_process_goes_on(sets: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ssl_tilegen", "evaluate", "--real", str(sets / "a"),
               "--synthetic", str(sets / "b"), "--encoder", "texture", "--metrics", "fd", "--rounds", "4",
               "--report", str(tmp_path / "q.html")]  # fmt: skip
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while time.monotonic() < end and not list(tmp_path.glob("q.html.part/*/0.npz")) and first.poll() is None:
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert list(tmp_path.glob("q.html.part/*/0.npz")) and not (tmp_path / "q.html").exists()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.html", "q.json"]


def test_the_training_set_is_no_held_out_set(sets: Path, tmp_path: Path) -> None:
    report = evaluate(settings(sets, tmp_path, report=None, train=sets / "a", metrics=("copy",)))
    assert not by_name(report)
    assert any("150 of 150 real windows are training windows too" in line for line in report.warnings)
    fill(tmp_path / "mixed", 7, fields=30)
    for path in sorted((sets / "a").iterdir())[:10]:
        shutil.copy(path, tmp_path / "mixed" / f"x{path.name}")
    how = {"report": None, "real": tmp_path / "mixed", "train": sets / "a", "metrics": ("copy",)}
    report = evaluate(settings(sets, tmp_path, **how))
    assert by_name(report)["copy_nearer"].n_real == 60
    assert any("10 of 70 real windows are training windows too, texture: left out" in line for line in report.warnings)


def test_duplicates_up_to_rounding() -> None:
    rng = np.random.default_rng(0)
    train = rng.standard_normal((300, 8)).astype(np.float32) + 50
    held = np.concatenate([train[:5] * (1 + 1e-6), rng.standard_normal((20, 8)).astype(np.float32) + 50])
    assert duplicates(held, train).tolist() == [True] * 5 + [False] * 20


@pytest.mark.slow
def test_canonical_inception_by_path(sets: Path, tmp_path: Path) -> None:
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    weights = tmp_path / "inception.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:  # the same network with random weights: no network at test time
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        patch.setattr(theirs, "load_state_dict_from_url", lambda *a, **k: {})
        network = theirs.FeatureExtractorInceptionV3("x", ["2048"])
    torch.save(network.state_dict(), weights)
    few = {"real": fill(tmp_path / "r", 1, fields=8), "synthetic": fill(tmp_path / "s", 2, fields=8, blur=4.0)}
    report = evaluate(settings(sets, tmp_path, report=None, encoder=("inception",), weights=weights, rounds=2, **few))
    assert by_name(report)["fd"].dim == 2048 and by_name(report)["fd"].value > 0
    from ssl_tilegen.encoders.inception import InceptionEncoder

    tiles = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    expected = network(torch.from_numpy(tiles).permute(0, 3, 1, 2))[0].numpy()
    assert np.allclose(InceptionEncoder(SIDE, weights).embed(tiles), expected, atol=1e-5)


@pytest.mark.parametrize(
    "weights, message", [(None, "give --weights weights-inception"), ("other.pth", "not the weights of inception")]
)
def test_inception_without_its_weights_is_one_line(
    sets: Path, tmp_path: Path, weights: str | None, message: str
) -> None:
    pytest.importorskip("torch_fidelity")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    path = tmp_path / weights if weights else None
    with pytest.raises(TilegenError, match=message) as caught:
        evaluate(settings(sets, tmp_path, report=None, encoder=("inception",), weights=path))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_clip_image_tower_by_path(sets: Path, tmp_path: Path) -> None:
    name = "vit_base_patch32_clip_224"
    torch.save(timm.create_model(name, num_classes=0).state_dict(), tmp_path / "clip.pth")
    few = {"real": fill(tmp_path / "r", 1, fields=8), "synthetic": fill(tmp_path / "s", 2, fields=8)}
    how = {"report": None, "encoder": (f"{name}.openai",), "rounds": 2}
    report = evaluate(settings(sets, tmp_path, weights=tmp_path / "clip.pth", **how, **few))
    assert by_name(report)["fd"].dim == 768
    with pytest.raises(InputError, match="no such file"):
        evaluate(settings(sets, tmp_path, weights=tmp_path / "none.pth", **how, **few))
