"""`evaluate` stopped and run again; encoders whose weights are given by path; a real set that is the training set."""

from __future__ import annotations

import os
import shutil
import signal
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
from ssl_tilegen.metrics.usefulness import LabelledSet
from ssl_tilegen.workflows.evaluate import task
from ssl_tilegen.workflows.evaluate.classifier_cache import cached_outcome
from ssl_tilegen.workflows.evaluate.feature_cache import FeatureCache
from ssl_tilegen.workflows.evaluate.features import key_of
from ssl_tilegen.workflows.evaluate.fine_tuning import plan_fine_tuning
from ssl_tilegen.workflows.evaluate.image_sets import read_set
from ssl_tilegen.workflows.evaluate.run import evaluate
from ssl_tilegen.workflows.evaluate.windows import places
from tests.evaluate.test_evaluate import SIDE, by_name, fill
from tests.processes import command, wait_until

FIELDS, KEPT_AT = 36, 64  # fields of a set, of two windows each; windows after which vectors are kept
WINDOWS = 2 * FIELDS


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    fill(root / "a", 1, fields=FIELDS)
    fill(root / "b", 2, fields=FIELDS)
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
        evaluate(settings(sets, tmp_path), stop_at("describe synthetic", KEPT_AT))
    assert not (tmp_path / "q.html").exists() and (tmp_path / "q.html.part").is_dir()
    seen = counted(monkeypatch)
    again = evaluate(settings(sets, tmp_path))
    assert sum(seen) == WINDOWS - KEPT_AT  # all real ones and the first of the others were there
    assert [f.value for f in again.scores] == [f.value for f in whole.scores]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.html", "q.html.json"]


def test_restart_and_changed_files_are_seen_anew(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = shutil.copytree(sets, tmp_path / "sets")
    seen = counted(monkeypatch)

    def windows_seen(**how: Any) -> int:
        with pytest.raises(Interrupted):
            evaluate(settings(mine, tmp_path, **how), stop_at("compare", 0))
        total = sum(seen)
        seen.clear()
        return total

    assert windows_seen() == 2 * WINDOWS and windows_seen() == 0
    assert windows_seen(restart=True) == 2 * WINDOWS
    shutil.copy(mine / "a" / "g01_0.png", mine / "a" / "g00_0.png")
    assert windows_seen() == WINDOWS


def test_a_run_that_stopped_before_anything_was_kept_does_not_say_so(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(encoder: TextureEncoder, tiles: np.ndarray) -> np.ndarray:
        raise Interrupted("asked to stop", signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="before any vectors were kept"):
        patch.setattr("ssl_tilegen.workflows.evaluate.features.describe_windows", stop)
        evaluate(settings(sets, tmp_path))
    with pytest.raises(Interrupted, match="vectors so far are kept in"):
        evaluate(settings(sets, tmp_path), stop_at("describe real", KEPT_AT))


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
    keys = [key_of({}, at, None)]
    assert at and key_of({}, at, None) == keys[0]
    before = path.stat().st_mtime_ns
    os.utime(chunk, (time.time() + 1,) * 2)
    assert path.stat().st_mtime_ns == before  # which the folder itself does not show
    keys.append(key_of({}, at, None))
    monkeypatch.setattr("ssl_tilegen.workflows.evaluate.features.__version__", "0.0.0")
    keys.append(key_of({}, at, None))
    assert len(set(keys)) == 3


def test_damaged_vectors_are_made_again(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted):
        evaluate(settings(sets, tmp_path), stop_at("compare", 0))
    for file in (tmp_path / "q.html.part").glob("*/1.npz"):
        file.write_bytes(file.read_bytes()[:100])
    seen = counted(monkeypatch)
    evaluate(settings(sets, tmp_path))
    assert sum(seen) == 2 * (WINDOWS - KEPT_AT)


@pytest.mark.slow
def test_a_killed_process_goes_on(sets: Path, tmp_path: Path) -> None:
    out, heard = tmp_path / "out", tmp_path / "heard.log"
    out.mkdir()
    words = ["evaluate", "--real", sets / "a", "--synthetic", sets / "b", "--encoder", "texture", "--metrics", "fd",
             "--rounds", "4", "--report", out / "q.html"]  # fmt: skip
    first = command(heard, words)
    wait_until(lambda: any(out.glob("q.html.part/*/0.npz")), first, heard)
    first.kill()
    first.join()
    assert list(out.glob("q.html.part/*/0.npz")) and not (out / "q.html").exists()
    again = command(heard, words)
    again.join(300)
    assert again.exitcode == 0, heard.read_text()
    assert sorted(p.name for p in out.iterdir()) == ["q.html", "q.html.json"]


def test_a_learner_is_asked_once_for_the_same_sets_and_seed(tmp_path: Path) -> None:
    rng, asked = np.random.default_rng(0), []

    def slow(train: LabelledSet, test: np.ndarray, classes: int, seed: int) -> np.ndarray:
        asked.append(seed)
        return np.full((len(test), classes), seed / 7 + train.x[0].sum())

    bags = np.empty(3, object)
    bags[:] = [rng.random((n, 4)) for n in (1, 3, 2)]
    pixels = rng.integers(0, 255, (3, 8, 8, 3), np.uint8)
    names = np.array(["a", "b", "c"])
    for x in (bags, pixels):
        train = LabelledSet(x, np.array([0, 1, 1]), names)
        for how, seed, fresh in (("a", 1, True), ("a", 1, False), ("b", 1, True), ("a", 2, True)):
            before = len(asked)
            learner = cached_outcome(slow, how, FeatureCache(tmp_path))  # as another process would
            assert (learner(train, x[:2], 2, seed) == slow(train, x[:2], 2, seed)).all()
            assert len(asked) - before == 1 + fresh
        changed = train._replace(x=np.flip(x, 0))
        before = len(asked)
        cached_outcome(slow, "a", FeatureCache(tmp_path))(changed, x[:2], 2, 1)
        assert len(asked) - before == 1
    assert cached_outcome(slow, "a", None) is slow


def test_slow_learners_of_a_task_are_remembered(sets: Path, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    parts = {part: LabelledSet(np.zeros((2, 4)), np.array([0, 1]), np.array(["a", "b"])) for part in ("real", "test")}
    how = settings(sets, tmp_path, task_models=("linear", "finetuned", "mil"))
    given = task.TaskData({}, {"texture": parts}, {"texture": parts}, parts, (), False)
    encoder = plan_fine_tuning(how.model_copy(update={"task": tmp_path})).encoder
    kept = {name for (name, _), (learner, _) in task._learners(how, given, cache, encoder).items() if _keeps(learner)}
    assert kept == {"fine-tuned network", "attention MIL"}


def _keeps(learner: Any) -> bool:
    return learner.__module__ == cached_outcome.__module__


def test_the_training_set_is_no_held_out_set(sets: Path, tmp_path: Path) -> None:
    report = evaluate(settings(sets, tmp_path, report=None, train=sets / "a", metrics=("copy",)))
    assert not by_name(report)
    assert any(f"{WINDOWS} of {WINDOWS} real windows are training windows too" in line for line in report.warnings)
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
    how = {"report": None, "encoder": ("inception",), "metrics": ("kid",), "rounds": 2}
    report = evaluate(settings(sets, tmp_path, weights=weights, **how, **few))
    assert by_name(report)["kid"].dim == 2048 and np.isfinite(by_name(report)["kid"].value)
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
    name = "vit_xsmall_patch16_clip_224"
    torch.save(timm.create_model(name, num_classes=0).state_dict(), tmp_path / "clip.pth")
    few = {"real": fill(tmp_path / "r", 1, fields=8), "synthetic": fill(tmp_path / "s", 2, fields=8)}
    how = {"report": None, "encoder": (f"{name}.tinyclip_yfcc15m",), "rounds": 2}
    report = evaluate(settings(sets, tmp_path, weights=tmp_path / "clip.pth", **how, **few))
    assert by_name(report)["fd"].dim == 256
    with pytest.raises(InputError, match="no such file"):
        evaluate(settings(sets, tmp_path, weights=tmp_path / "none.pth", **how, **few))
