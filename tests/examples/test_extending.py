"""The pages of docs/extending are true: their code is added to the program and used."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ssl_tilegen.diffusion.schedule import Schedule
from ssl_tilegen.diffusion.steppers import STEPPERS
from ssl_tilegen.encoders.registry import ENCODERS
from ssl_tilegen.encoders.timm_encoder import build, load_timm_encoder
from ssl_tilegen.errors import OutputError
from ssl_tilegen.geometry import Size
from ssl_tilegen.io.pyramid import ImageSpec, open_writer
from ssl_tilegen.io.writers import registry
from ssl_tilegen.workflows.evaluate import scores
from ssl_tilegen.workflows.evaluate.features import Features
from tests.diffusion.toys import FLOW

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "extending"


def blocks(page: str) -> list[str]:
    """The Python code of a page, block by block."""
    return re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)


def run(code: list[str], names: dict[str, Any] | None = None) -> dict[str, Any]:
    """The names that the code defines."""
    names = names or {}
    for block in code:
        exec(compile(block, "page", "exec"), names)
    return names


@pytest.fixture
def as_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a block the module that its first line names."""

    def make(block: str) -> ModuleType:
        path = re.match(r"# (ssl_tilegen/\S+)\.py", block)
        assert path, block
        module = ModuleType(path[1].replace("/", "."))
        exec(compile(block, "page", "exec"), module.__dict__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(importlib.import_module(module.__name__.rpartition(".")[0]),
                            module.__name__.rpartition(".")[2], module, raising=False)  # fmt: skip
        return module

    return make


def test_encoder(as_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card_of_timm, network, card_of_own = blocks("encoder.md")
    assert run([card_of_timm])["CARD"].dim == 768
    as_module(network)
    card = run([card_of_own], run([card_of_timm]))["CARD"]
    monkeypatch.setitem(ENCODERS, card.name, card)
    save_file(build(card).state_dict(), tmp_path / "w.safetensors")
    encoder = load_timm_encoder(card.name, weights=tmp_path / "w.safetensors")
    assert encoder.embed(np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, card.dim)


def test_stepper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(STEPPERS, "half", raising=False)
    try:
        run(blocks("stepper.md"))
        step = Schedule.from_config(FLOW, 10).step(4)
        x, clean = torch.randn(2, 1, 3, 8, 8, dtype=torch.float64)
        after = STEPPERS["half"].rule(step.alpha * clean + step.sigma * x, clean, None, step)
        left = (after - step.next_alpha * clean) / x
        total = left**2 + STEPPERS["half"].fresh_noise(step) ** 2
        torch.testing.assert_close(total, torch.full_like(total, step.next_sigma**2))
    finally:
        STEPPERS.pop("half", None)


def test_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = run(blocks("metric.md"))["KIND"]
    table = scores.kinds
    monkeypatch.setattr(scores, "kinds", lambda neighbours: table(neighbours) | {"shift": kind})
    assert "shift" in scores.metrics_named(["all"])
    rng = np.random.default_rng(0)
    real, made = (Features(rng.normal(shift, 1, (64, 8)), np.arange(64)) for shift in (0, 3))
    (found,) = scores.scores_of("x", real, made, ["shift"], neighbours=3, rounds=4, seed=0)
    assert found.name == "shift" and found.value == pytest.approx(3, rel=0.15)


def test_format(as_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    writer, line = blocks("format.md")
    as_module(writer)
    for suffix, kinds in run([line])["ENTRY"].items():
        monkeypatch.setitem(registry.FORMATS, suffix, kinds)
    pixels = np.random.default_rng(0).integers(0, 255, (100, 60, 3), np.uint8)
    path, spec = tmp_path / "a.npy", ImageSpec(Size(100, 60), provenance={"seed": 0}, tile_px=16)
    with pytest.raises(KeyboardInterrupt), open_writer(path, spec) as out:
        out.write(pixels[:50])
        raise KeyboardInterrupt
    with open_writer(path, spec) as out:
        assert 0 < out.rows_done <= 50
        out.write(pixels[out.rows_done :])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), pixels)
    assert (tmp_path / "a.npy.json").is_file()
    with pytest.raises(OutputError, match="not made by this program"):
        open_writer(path, spec, overwrite=True)


def test_published_family_names_what_exists() -> None:
    text = (PAGES / "published_family.md").read_text()
    paths = re.findall(r"`((?:ssl_tilegen|tests)/[\w/.]+)`", text.replace("FAMILY.py", "pixcell.py"))
    assert len(paths) >= 4 and all((ROOT / path).exists() for path in paths)
