"""Bundles of the hub: from the cache without a network, pinned by a revision, and one line where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_tilegen.bundle import ModelBundle, find_bundle, update_info
from ssl_tilegen.bundle.card import MARK, card_of, write_card
from ssl_tilegen.bundle.hub import HubName, is_whole
from ssl_tilegen.cli import main
from ssl_tilegen.errors import InputError, SettingError
from ssl_tilegen.training.inherit import inherit
from ssl_tilegen.workflows.models import pull_bundle, push_bundle
from tests.bundles import painting_bundle

FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painting_bundle(tmp_path_factory.mktemp("b") / "bundle")


@pytest.fixture
def cache(painting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of huggingface_hub with two commits of lab/painter: a tag names the first, main the second."""
    root = tmp_path / "hub"
    repo = root / "models--lab--painter"
    for commit, name in ((FIRST, "first"), (SECOND, "second")):
        snapshot = Path(shutil.copytree(painting, repo / "snapshots" / commit))
        update_info(snapshot, name=name, licence="Apache-2.0")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(SECOND)
    (repo / "refs" / "v1").write_text(FIRST)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return repo


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("hf-hub:lab/painter", "second"), ("hf-hub:lab/painter@main", "second"), ("hf-hub:lab/painter@v1", "first"),
     (f"hf-hub:lab/painter@{FIRST}", "first"), (f"hf-hub:lab/painter@{SECOND}", "second")],
)  # fmt: skip
def test_a_cached_bundle_is_used_without_a_network(cache: Path, name: str, wanted: str) -> None:
    bundle = ModelBundle.load(name)
    assert bundle.info.name == wanted and bundle.denoiser is not None


@pytest.mark.parametrize("name", ["hf-hub:lab/other", "hf-hub:lab/painter@v2", f"hf-hub:lab/painter@{'c' * 40}"])
def test_what_is_not_cached_is_one_line_without_a_network(cache: Path, name: str) -> None:
    for call in (find_bundle, pull_bundle):
        with pytest.raises(InputError, match=r"not in the cache|no network|no such model|no revision") as caught:
            call(name)
        assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:lab", "hf-hub:lab/../../x", "hf-hub:lab/x@", "hf-hub:a/b/c"])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected hf-hub:ORG/NAME"):
        HubName.parse(name)


@pytest.mark.parametrize("gone", ["bundle.json", "denoiser/config.json", "scheduler/scheduler_config.json",
                                  "denoiser/diffusion_pytorch_model.safetensors"])  # fmt: skip
def test_what_a_stopped_pull_left_does_not_count_as_cached(cache: Path, gone: str) -> None:
    assert is_whole(cache / "snapshots" / SECOND)
    (cache / "snapshots" / SECOND / gone).unlink()
    assert not is_whole(cache / "snapshots" / SECOND)
    with pytest.raises(InputError, match=r"not in the cache|no bundle|not whole"):
        find_bundle("hf-hub:lab/painter")


def test_the_command_line_takes_names_of_the_hub(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["models", "info", "hf-hub:lab/painter@v1", "--json"])
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["name"] == "first"
    with pytest.raises(SystemExit) as ended:
        main(["embed", "x.svs", "--model", "hf-hub:lab/nothing"])
    assert ended.value.code == 1


def head(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---")[1])


def test_a_card_has_the_hubs_head_and_says_what_the_bundle_says(painting: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(painting, tmp_path / "b"))
    scores = {"psnr_db": {"he/val": 37.7, "town": 32.3}, "fd": 1.5, "note": "x"}
    update_info(folder, name="mine", licence="Apache-2.0; with thanks", scores=scores, datasets=["lab/slides"])
    card = card_of(ModelBundle(folder))
    facts = head(card)
    assert facts["license"] == "apache-2.0" and facts["library_name"] == "ssl-tilegen"
    assert facts["datasets"] == ["lab/slides"] and {"histopathology", "remote-sensing"} <= set(facts["tags"])
    results = facts["model-index"][0]["results"]
    assert sorted((m["type"], r["dataset"]["name"], m["value"]) for r in results for m in r["metrics"]) == [
        ("fd", "validation", 1.5), ("psnr_db", "he/val", 37.7), ("psnr_db", "town", 32.3)
    ]  # fmt: skip
    assert "# mine" in card and "| denoiser | FieldUNet |" in card and "0.5 um/px" in card


def test_an_unknown_licence_is_said_to_be_one(painting: Path) -> None:
    facts = head(card_of(ModelBundle(painting)))
    assert (facts["license"], facts["license_name"]) == ("other", "unknown")
    with pytest.raises(SettingError, match="--licence"):
        push_bundle(str(painting), "hf-hub:lab/x", dry_run=True)
    pushed = push_bundle(str(painting), "hf-hub:lab/x", licence="CC-BY-4.0", dry_run=True)
    assert head(pushed["card"])["license"] == "cc-by-4.0" and pushed["page"] is None


@pytest.mark.parametrize(("licence", "known", "name"), [
    ("MIT (code and weights); the encoder is another's", "mit", None),
    ("none stated by the authors: use the weights yourself", "other", "none-stated-by-the-authors"),
    ("weights Apache-2.0 or CC-BY-NC-ND-4.0 (cards differ)", "other", "weights-apache-2.0-or-cc-by-nc-nd-4.0"),
])  # fmt: skip
def test_a_licence_is_an_identifier_or_a_short_name(licence, known, name, painting: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(painting, tmp_path / "b"))
    update_info(folder, licence=licence, origin="https://example.org/theirs")
    facts = head(card_of(ModelBundle(folder)))
    assert (facts["license"], facts.get("license_name")) == (known, name)
    pushed = push_bundle(str(folder), "hf-hub:lab/x", licence="MIT", dry_run=True)["card"]
    assert "Origin: https://example.org/theirs." in pushed and "--model hf-hub:lab/x -o painted" in pushed


def test_weights_without_a_licence_are_not_passed_on_unasked(painting: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(painting, tmp_path / "b"))
    update_info(folder, licence="none stated by the authors: use the weights yourself")
    with pytest.raises(SettingError, match=r"none stated by the authors.*--licence"):
        push_bundle(str(folder), "hf-hub:lab/x", dry_run=True)
    assert push_bundle(str(folder), "hf-hub:lab/x", licence="MIT", dry_run=True)["card"]


def test_pushing_without_a_network_is_one_line(painting: Path, cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        push_bundle(str(painting), "hf-hub:lab/x", licence="MIT")
    assert "\n" not in str(caught.value) and "hf-hub:lab/x" in str(caught.value)


def test_the_card_names_what_was_taken_and_no_more_once_it_is_retrained(painting: Path, tmp_path: Path) -> None:
    update_info(painting, licence="CC0 of theirs")
    target = tmp_path / "mine" / "bundle"
    inherit(painting, target)
    update_info(painting, licence="unknown")
    assert write_card(target)
    text = (target / "README.md").read_text()
    assert "- denoiser: of stub, licence: CC0 of theirs" in text and MARK in text
    config = target / "denoiser" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert write_card(target)
    text = (target / "README.md").read_text()
    assert "- denoiser:" not in text and "- encoder: of stub" in text


def test_a_card_of_ones_own_is_kept(painting: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(painting, tmp_path / "b"))
    (folder / "README.md").write_text("mine")
    assert not write_card(folder) and (folder / "README.md").read_text() == "mine"
