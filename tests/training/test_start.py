"""What a denoiser's run takes from the bundle that it starts from, and what it says of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.workflows.train import train
from tests.training import runs


def started(base: Path, out: Path, text: str = "", *overrides: str) -> list[str]:
    """Train for one step that changes nothing, and return the messages."""
    head = f'bundle = "{base}/run/bundle"\nstart_from = "{base}/run/bundle"\n{text}'
    config = runs.write_config(base, "denoiser", head, "denoiser-start")
    said: list[dict[str, Any]] = []
    train("denoiser", config, out, overrides=["run.steps=1", "run.lr=1e-12", *overrides], device="cpu",
          report=said.append)  # fmt: skip
    return [facts["message"] for facts in said if "message" in facts]


def weights(bundle: Path) -> dict[str, Any]:
    return load_file(next((bundle / "denoiser").glob("*.safetensors")))


def test_without_a_net_all_weights_are_taken_with_window_and_statistics(base: Path, tmp_path: Path) -> None:
    facts = json.loads((base / "run" / "bundle" / "bundle.json").read_text())
    (base / "run" / "bundle" / "bundle.json").write_text(json.dumps(facts | {"latent_scale": [1.25] * 4}))
    messages = started(base, tmp_path)
    (base / "run" / "bundle" / "bundle.json").write_text(json.dumps(facts))
    (line,) = [text for text in messages if "start_from" in text]
    assert "(100.0 %)" in line and "warning" not in line
    before, after = weights(base / "run" / "bundle"), weights(tmp_path / "bundle")
    assert before.keys() == after.keys() and all(before[name].equal(after[name]) for name in before)
    info = ModelBundle(tmp_path / "bundle").info
    assert info.latent_scale == [1.25] * 4 and info.window_px == facts["window_px"] == 64


def test_what_does_not_fit_is_said_in_numbers(base: Path, tmp_path: Path) -> None:
    messages = started(base, tmp_path, "[net]\nhidden = 24\n", "start_statistics=false", "window_lat=12")
    (line,) = [text for text in messages if "start_from" in text]
    assert line.startswith("warning: start_from") and " weights (" in line and "begin anew" in line
    share = float(line.split("weights (")[1].split(" %")[0])
    assert 0 < share < 100
    info = ModelBundle(tmp_path / "bundle").info
    assert info.window_px == 96 and info.latent_scale == ModelBundle(base / "run" / "bundle").info.latent_scale


@pytest.mark.slow
def test_tiny_goes_on_from_itself(tmp_path: Path) -> None:
    runs.draw_images(tmp_path)
    text = 'bundle = "tiny"\nstart_from = "tiny"\n'
    config = runs.write_config(tmp_path, "denoiser", text, "denoiser-tiny")
    said: list[dict[str, Any]] = []
    train("denoiser", config, tmp_path / "out", overrides=["run.steps=1", "run.batch=1", "window_lat=12"], device="cpu",
          report=said.append)  # fmt: skip
    assert any("(100.0 %)" in facts.get("message", "") for facts in said)
    assert ModelBundle(tmp_path / "out" / "bundle").info.window_px == 96
