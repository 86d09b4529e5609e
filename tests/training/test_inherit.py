"""What a bundle in the making takes from another: what it lacks, and never anything it has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ssl_tilegen.bundle import ModelBundle, update_info
from ssl_tilegen.errors import InputError
from ssl_tilegen.training.inherit import inherit
from ssl_tilegen.workflows.train import train
from tests.bundles import encoder_bundle, prior_bundle
from tests.training import runs

COMPONENTS = {"encoder", "autoencoder", "denoiser", "prior", "scheduler"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = prior_bundle(tmp_path / "theirs")
    update_info(folder, licence="CC0 of theirs", scores={"psnr_db": 30}, training={"windows": 7})
    (folder / "CARD.md").write_text("about theirs")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_empty_bundle_takes_all_but_what_is_its_makers(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine" / "bundle"
    assert set(inherit(source, target)) == COMPONENTS
    theirs, ours = ModelBundle(source), ModelBundle(target)
    assert all(ours.component_hash(name) == theirs.component_hash(name) for name in COMPONENTS)
    assert ours.hash == theirs.hash and ours.info.sampling == theirs.info.sampling
    assert (ours.info.name, ours.info.licence, ours.info.scores, ours.info.training) == ("mine", "unknown", {}, {})
    assert not (target / "CARD.md").exists()
    assert {name: (o.bundle, o.licence) for name, o in ours.info.origins.items()} == dict.fromkeys(
        COMPONENTS - {"scheduler"}, ("stub", "CC0 of theirs")
    )


@pytest.mark.parametrize("component", ["prior", "denoiser", "autoencoder", "encoder"])
def test_what_is_there_stays_byte_for_byte(source: Path, tmp_path: Path, component: str) -> None:
    target = tmp_path / "mine" / "bundle"
    inherit(source, target)
    for path in (target / component).glob("*.safetensors"):
        path.write_bytes(b"trained")
    update_info(target, latent_scale=[3.0] * 4, training={"steps": 1})
    before = content(target)
    assert inherit(source, target) == []
    assert content(target) == before


def test_what_was_lost_comes_back_with_its_facts_alone(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine" / "bundle"
    inherit(source, target)
    update_info(target, latent_scale=[3.0] * 4, name="own", licence="mine")
    shutil.rmtree(target / "prior")
    assert inherit(source, target) == ["prior"]
    assert ModelBundle(target).info.latent_scale == [3.0] * 4
    shutil.rmtree(target / "denoiser")
    assert inherit(source, target) == ["denoiser"]
    info = ModelBundle(target).info
    assert (info.latent_scale, info.name, info.licence) == ([1.0] * 4, "own", "mine")


def test_one_that_was_copied_twice_names_the_first(source: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "bundle", tmp_path / "b" / "bundle"
    inherit(source, first)
    update_info(first, licence="of a")
    inherit(first, second)
    assert ModelBundle(second).info.origins == ModelBundle(first).info.origins


def test_another_encoder_of_its_own_is_not_mixed_with_theirs(source: Path, tmp_path: Path) -> None:
    target = encoder_bundle(tmp_path / "mine" / "bundle", seed=5)
    before = content(target)
    with pytest.raises(InputError, match="another encoder"):
        inherit(source, target, ("encoder", "autoencoder"))
    assert content(target) == before


def test_a_second_start_leaves_what_was_trained(base: Path, tmp_path: Path) -> None:
    """`train` with a bundle to start from, stopped and started again: the denoiser of the first part is not lost."""
    text = f'bundle = "{base}/run/bundle"\n{runs.DENOISER}'
    config = runs.write_config(base, "denoiser", text, "denoiser-again")
    train("denoiser", config, tmp_path, overrides=["run.seed=3"], device="cpu")
    trained = ModelBundle(tmp_path / "bundle").component_hash("denoiser")
    assert trained != ModelBundle(base / "run" / "bundle").component_hash("denoiser")
    (tmp_path / "bundle" / "encoder" / "config.json").touch()
    with pytest.raises(ZeroDivisionError):
        train("denoiser", config, tmp_path, device="cpu", restart=True, stop=lambda: 1 / 0 == 0)
    assert ModelBundle(tmp_path / "bundle").component_hash("denoiser") == trained
    index = json.loads((tmp_path / "bundle" / "model_index.json").read_text())
    assert index["encoder"] == ["ssl_tilegen.nets", "TileEncoder"] and index["denoiser"][1] == "FieldUNet"
