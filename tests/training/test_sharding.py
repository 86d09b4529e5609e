"""Weights cut over two processes: the same losses as on one, whole checkpoints, any number of processes afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ssl_tilegen.config.train import load_stage_settings
from ssl_tilegen.errors import SettingError
from ssl_tilegen.nets.field_unet import FieldUNet
from ssl_tilegen.training.objectives.adversarial import PatchDiscriminator
from ssl_tilegen.training.sharding import blocks_of
from tests.training import runs
from tests.training.test_scale import together


def write(folder: Path, stage: str, name: str = "", text: str | None = None, more: str = "") -> Path:
    path = runs.write_config(folder, stage, text, name)
    path.write_text(path.read_text().replace("[run]\n", f'[run]\nsharding = "fsdp"\n{more}'))
    return path


@pytest.mark.slow
def test_two_processes_that_share_the_weights_reach_the_losses_of_one(alone, tmp_path):
    """With a discriminator, with Muon, a batch in parts; and what two began, one continues, and the other way round."""
    runs.draw_images(tmp_path)
    bundle = alone / "run" / "bundle"
    features = f'feature_bundle = "{bundle}"\nfeature_weight = 0.5\ncritic_weight = 0.1\ncritic_width = 8\n'
    game = write(tmp_path, "autoencoder", "autoencoder-adversarial", features + runs.AUTOENCODER)
    told = f'bundle = "{bundle}"\n{runs.DENOISER}'
    parts = write(tmp_path, "denoiser", "denoiser-parts", told, 'optimiser = "muon"\naccumulate = 2\ncooldown = 0\n')
    short = parts.with_name("denoiser-short.toml")
    short.write_text(parts.read_text().replace("steps = 4", "steps = 2"))
    together(tmp_path / "two", game, parts, short)
    runs.main(tmp_path / "one", [game, parts])
    folders = ("autoencoder-adversarial/autoencoder", "denoiser-parts/denoiser")
    for run in folders:
        one, two = (runs.losses(tmp_path / count / run) for count in ("one", "two"))
        assert len(one) == 4 and one == pytest.approx(two, rel=3e-4), run
        for file in ("weights", "average"):
            same_weights(*(tmp_path / count / run / f"checkpoint/{file}.safetensors" for count in ("one", "two")))
    begun = tmp_path / "two/denoiser-short/denoiser"
    state = torch.load(begun / "checkpoint/optimiser.pt", weights_only=True)
    assert all(type(v) is torch.Tensor for numbers in state["state"].values() for v in numbers.values())
    short.write_text(parts.read_text())
    runs.main(tmp_path / "two", [short])
    assert runs.losses(begun) == pytest.approx(runs.losses(tmp_path / "one" / folders[1]), rel=3e-4)


def same_weights(a: Path, b: Path) -> None:
    ours, theirs = load_file(a), load_file(b)
    assert all(torch.allclose(ours[key], theirs[key], rtol=1e-3, atol=1e-4) for key in ours)


def test_blocks_that_are_called_as_a_whole_are_cut_on_their_own():
    net = FieldUNet(latent_channels=4, condition_dim=8, widths=(16, 16, 32), hidden=16)
    blocks = list(blocks_of(nn.ModuleList([net])))
    assert blocks[0] is net and len(blocks) == 3
    assert all(not isinstance(block, nn.ModuleList) for block in blocks)
    assert list(blocks_of(PatchDiscriminator(64))) == []


def test_dino_cannot_be_cut(tmp_path):
    config = write(tmp_path, "encoder", "encoder-dino", runs.DINO)
    with pytest.raises(SettingError, match="sharding"):
        load_stage_settings("encoder", config)


@pytest.mark.parametrize("said", ["1", "true"])
def test_dino_cannot_be_cut_by_accelerate_either(tmp_path, monkeypatch, said):
    config = runs.write_config(tmp_path, "encoder", runs.DINO, "encoder-dino")
    assert load_stage_settings("encoder", config).run.sharding == "none"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", said)
    with pytest.raises(SettingError, match="ACCELERATE_USE_FSDP"):
        load_stage_settings("encoder", config)
