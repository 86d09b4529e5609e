"""The fine-tuned network of `evaluate --task`: the encoder that a bundle carries or names, fed as the bundle says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_tilegen.bundle import SCHEDULER, BundleInfo, EncoderInfo, ModelBundle, write_info
from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.encoders.base import Normalisation
from ssl_tilegen.encoders.module_encoder import NetworkEncoder
from ssl_tilegen.encoders.timm_encoder import load_timm_encoder
from ssl_tilegen.errors import InputError
from ssl_tilegen.training.classifier import EncoderBackbone
from ssl_tilegen.training.pretrained import keep_named
from ssl_tilegen.workflows.evaluate import task
from ssl_tilegen.workflows.evaluate.fine_tuning import plan_fine_tuning, resized
from ssl_tilegen.workflows.evaluate.run import evaluate
from tests.bundle.importers.families import DIM, named_encoder
from tests.evaluate.test_evaluate import fill


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return named_encoder(tmp_path_factory.mktemp("vit") / "vit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of two classes."""
    root = tmp_path_factory.mktemp("task")
    for part, seed in (("real", 10), ("synthetic", 10), ("test", 30)):
        for label, colour in (("left", -12.0), ("right", 12.0)):
            fill(root / part / label, seed + (label == "right"), fields=2, copies=1, colour=colour)
    return root


def imported(folder: Path, encoder: str) -> Path:
    """A bundle that only names its encoder, as imported ones do."""
    facts = EncoderInfo(id=encoder, tile_px=256, dim=DIM)
    write_info(folder, BundleInfo(name="imported", encoder=facts, resolutions={"he": (0.5, "um")}), SCHEDULER)
    return folder


def settings(folder: Path, model: Path, **how: Any) -> EvaluateSettings:
    given = {"task": folder, "model": str(model), "encoder": ("texture",), "task_steps": 1, "seeds": 2}
    return EvaluateSettings(**given | how)


def test_a_backbone_sees_what_its_encoder_sees(vit: str) -> None:
    module = load_timm_encoder(vit).module
    statistics = Normalisation((0.7, 0.5, 0.6), (0.2, 0.3, 0.25))
    encoder = NetworkEncoder("vit", module, tile_px=224, normalisation=statistics, pooling="cls+mean")
    tiles = np.random.default_rng(0).integers(0, 255, (2, 224, 224, 3), np.uint8)
    backbone = EncoderBackbone(encoder)
    with torch.no_grad():
        found = backbone(torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert found.shape == (2, 2 * DIM)
    np.testing.assert_allclose(found.numpy(), encoder.embed(tiles), atol=0.05)


def test_statistics_of_one_half_leave_the_pixels_as_they_were(vit: str) -> None:
    encoder = NetworkEncoder("vit", load_timm_encoder(vit).module, tile_px=224,
                             normalisation=Normalisation((0.5,) * 3, (0.5,) * 3))  # fmt: skip
    assert (EncoderBackbone(encoder).gain == 1).all() and (EncoderBackbone(encoder).shift == 0).all()


@pytest.mark.parametrize("kept", [False, True])
def test_an_encoder_that_is_named_or_was_kept_is_fine_tuned(
    folder: Path, vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """At the side that it takes, 224 px, and with the statistics of its makers."""
    model = imported(tmp_path / "bundle", vit)
    if kept:
        keep_named(model, None)
    assert ModelBundle.load(model).has("encoder") == kept
    seen: list[tuple[tuple[int, ...], list[float]]] = []
    forward = EncoderBackbone.forward

    def watched(self: EncoderBackbone, x: torch.Tensor) -> torch.Tensor:
        seen.append((tuple(x.shape[1:]), self.shift.flatten().tolist()))
        return forward(self, x)

    monkeypatch.setattr(EncoderBackbone, "forward", watched)
    plan = plan_fine_tuning(settings(folder, model))
    assert plan.encoder and not plan.note
    parts = task.read_task(folder, settings(folder, model), encoder=plan.encoder).pixels
    learner = task.fine_tuner(plan.encoder, settings(folder, model), None)
    assert learner(parts["real"], parts["test"].x, 2, 0).shape == (4, 2)
    mean, std = (np.array(own) for own in plan.encoder.normalisation)
    for shape, shift in seen:
        assert shape == (3, 224, 224)
        np.testing.assert_allclose(shift, (0.5 - mean) / std, atol=1e-6)


@pytest.mark.parametrize("name", ["local-dir:/no/such", "none"])
def test_without_an_encoder_there_is_a_note_or_a_refusal_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = imported(tmp_path / "bundle", name)
    report = evaluate(settings(folder, model))
    assert {row.model for row in report.task.rows} == {"linear probe", "nearest neighbours"}
    [note] = report.warnings
    assert note.startswith(f"no fine-tuned network: no encoder of --model {model} can be had (") and "\n" not in note
    assert evaluate(settings(folder, model, task_models=("knn",))).warnings == ()
    monkeypatch.setattr(task, "find_task_data", lambda *_: pytest.fail("work was done"))
    with pytest.raises(InputError, match=r"^--task-models finetuned: .*; leave finetuned out, or import") as caught:
        evaluate(settings(folder, model, task_models=("linear", "finetuned")))
    assert "\n" not in str(caught.value)


def test_windows_get_the_side_of_the_network() -> None:
    window = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert resized(window, 224).shape == (224, 224, 3) and (resized(window, 64) == window).all()
    assert (resized(np.kron(window, np.ones((2, 2, 1), np.uint8)), 64) == window).all()
