"""What `train` may replace in the bundle beside a run: nothing that was trained, unless it goes on or is to restart."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
from timm.models import save_for_hf

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.bundle.components import weights_sha256
from ssl_tilegen.errors import OutputError
from ssl_tilegen.system.locks import Busy, lock
from ssl_tilegen.training import stage as stages
from ssl_tilegen.workflows.train import train
from tests.training import runs
from tests.training.test_painter import PAINTER

FEW = ["run.steps=2"]


@pytest.fixture
def place(alone: Path, tmp_path: Path) -> Path:
    """Images, configurations and a run of three stages, for this test alone."""
    return Path(shutil.copytree(alone, tmp_path / "place"))


def trained(place: Path, stage: str, text: str | None = None, *, out: str = "run", **how: Any) -> list[str]:
    """Train a stage; its messages."""
    said: list[str] = []
    config = runs.write_config(place, stage, text)
    how = {"overrides": FEW, "report": lambda facts: said.append(str(facts.get("message", "")))} | how
    train(stage, config, place / out, device="cpu", **how)
    return [line for line in said if line]


def weights(place: Path, component: str, out: str = "run") -> str | None:
    return weights_sha256(place / out / "bundle" / component)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("stage", ["encoder", "autoencoder", "denoiser"])
def test_a_new_run_leaves_a_trained_component(place: Path, stage: str) -> None:
    shutil.rmtree(place / "run" / stage)
    before = content(place / "run")
    with pytest.raises(OutputError, match=f"bundle/{stage}: it was trained.* --restart"):
        trained(place, stage)
    assert content(place / "run") == before and not (place / "run" / stage).exists()


def test_a_component_that_a_user_put_there_stays(place: Path) -> None:
    shutil.copytree(place / "run" / "bundle", place / "new" / "bundle")
    shutil.rmtree(place / "new" / "bundle" / "training")
    before = content(place / "new")
    with pytest.raises(OutputError, match="--restart"):
        trained(place, "autoencoder", out="new")
    assert content(place / "new") == before


def test_restarting_replaces_it_and_going_on_writes_it_again(place: Path) -> None:
    first = weights(place, "autoencoder")
    trained(place, "autoencoder", restart=True, overrides=[*FEW, "run.seed=5"])
    second = weights(place, "autoencoder")
    assert second != first
    shutil.rmtree(place / "run" / "bundle" / "autoencoder")
    trained(place, "autoencoder", overrides=[*FEW, "run.seed=5"])
    assert weights(place, "autoencoder") == second


def test_a_restart_that_fails_before_its_first_checkpoint_goes_on_without_the_option(place: Path) -> None:
    first = weights(place, "autoencoder")
    with pytest.raises(ZeroDivisionError):
        trained(place, "autoencoder", restart=True, stop=lambda: 1 / 0 == 0)
    assert weights(place, "autoencoder") == first
    trained(place, "autoencoder")
    assert weights(place, "autoencoder") != first


def test_what_was_copied_from_another_bundle_is_replaced(place: Path) -> None:
    text = f'bundle = "{place}/run/bundle"\n{runs.DENOISER}'
    with pytest.raises(ZeroDivisionError):
        trained(place, "denoiser", text, out="new", stop=lambda: 1 / 0 == 0)
    assert weights(place, "denoiser", "new") == weights(place, "denoiser")
    shutil.rmtree(place / "new" / "denoiser", ignore_errors=True)
    trained(place, "denoiser", text, out="new", overrides=[*FEW, "run.seed=5"])
    assert weights(place, "denoiser", "new") != weights(place, "denoiser")


def test_a_painter_replaces_the_denoiser_that_it_starts_from_and_then_stays(place: Path) -> None:
    denoiser = weights(place, "denoiser")
    trained(place, "painter", PAINTER)
    painter = weights(place, "denoiser")
    assert painter != denoiser
    assert "stays as it is" in " ".join(trained(place, "denoiser", overrides=[]))
    assert weights(place, "denoiser") == painter
    assert ModelBundle.load(place / "run" / "bundle").info.sampling.update == "renoise"
    trained(place, "painter", PAINTER)
    assert weights(place, "denoiser") == painter


def test_a_painter_leaves_a_denoiser_that_it_does_not_start_from(place: Path) -> None:
    shutil.copytree(place / "run" / "bundle", place / "other")
    trained(place, "denoiser", restart=True, overrides=[*FEW, "run.seed=5"])
    before = weights(place, "denoiser")
    with pytest.raises(OutputError, match="denoiser: it was trained"):
        trained(place, "painter", f'start_from = "{place}/other"\n{PAINTER}')
    assert weights(place, "denoiser") == before


def test_a_painter_without_its_run_and_a_denoiser_trained_since_are_left(place: Path) -> None:
    trained(place, "painter", PAINTER)
    painter = weights(place, "denoiser")
    (place / "run" / "painter").rename(place / "away")
    with pytest.raises(OutputError, match="it was trained"):
        trained(place, "painter", PAINTER)
    assert weights(place, "denoiser") == painter
    (place / "away").rename(place / "run" / "painter")
    trained(place, "denoiser", restart=True, overrides=[*FEW, "run.seed=5"])
    denoiser = weights(place, "denoiser")
    assert ModelBundle.load(place / "run" / "bundle").info.sampling.times == ()
    with pytest.raises(OutputError, match="after this painter was begun"):
        trained(place, "painter", PAINTER)
    assert weights(place, "denoiser") == denoiser


def test_a_pretrained_encoder_may_be_taken_again_but_not_instead_of_a_trained_one(place: Path) -> None:
    sizes = {"img_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2}
    save_for_hf(timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes), str(place / "vit"), model_args=sizes)
    taken = [f"pretrained='local-dir:{place}/vit'"]
    for _ in range(2):
        trained(place, "encoder", out="new", overrides=taken)
    assert ModelBundle.load(place / "new" / "bundle").info.encoder.id == "vit"
    before = weights(place, "encoder")
    shutil.rmtree(place / "run" / "encoder")
    with pytest.raises(OutputError, match="encoder: it was trained"):
        trained(place, "encoder", overrides=taken)
    assert weights(place, "encoder") == before


def test_a_run_waits_for_the_stage_that_writes_the_bundle(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_TURN_S", 0.0)
    bundle = place / "new" / "bundle"
    with lock(bundle), pytest.raises(Busy):
        trained(place, "autoencoder", out="new")
    assert not bundle.exists()
    trained(place, "autoencoder", out="new")
    assert weights(place, "autoencoder", "new")
