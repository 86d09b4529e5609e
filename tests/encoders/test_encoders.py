"""The encoder contract, the registry, and what is said when an encoder cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from ssl_tilegen.encoders.base import IMAGENET, Encoder
from ssl_tilegen.encoders.card import EncoderCard
from ssl_tilegen.encoders.hf_keys import to_timm
from ssl_tilegen.encoders.module_encoder import NetworkEncoder, hash_of_weights
from ssl_tilegen.encoders.registry import CARDS, ENCODERS
from ssl_tilegen.encoders.threaded import EncoderPool
from ssl_tilegen.encoders.timm_encoder import build, load_strictly, load_timm_encoder, rebuild, recipe_of
from ssl_tilegen.errors import FormatError, InputError, SettingError
from ssl_tilegen.nets.hollow import without_values
from ssl_tilegen.system.device import fast_dtype

ARGS: dict[str, Any] = {"img_size": 64, "patch_size": 16, "depth": 2, "embed_dim": 48, "num_heads": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT with random weights, saved as timm saves models for a hub."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **ARGS)
    path = tmp_path_factory.mktemp("vit")
    timm.models.save_for_hf(model, str(path), model_args=ARGS, safe_serialization=True)
    return path


@pytest.fixture(scope="module")
def encoder(folder: Path) -> NetworkEncoder:
    return load_timm_encoder(f"local-dir:{folder}")


def tiles(count: int = 3, px: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, px, px, 3), np.uint8)


def test_an_encoder_keeps_the_contract(encoder: NetworkEncoder) -> None:
    assert isinstance(encoder, Encoder)
    vectors = encoder.embed(tiles())
    assert vectors.shape == (3, encoder.dim) and vectors.dtype == np.float32
    assert encoder.tile_px == 64 and len(encoder.weights_sha256) == 64
    one_by_one = np.concatenate([encoder.embed(tile[None]) for tile in tiles()])
    np.testing.assert_allclose(one_by_one, vectors, atol=2e-2 if fast_dtype(torch.device("cpu")) else 1e-4)


@pytest.mark.parametrize("wrong", [tiles(px=32), tiles().astype(np.float32), tiles()[..., :2]])
def test_tiles_of_another_shape_or_type_are_refused(encoder: NetworkEncoder, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="takes uint8"):
        encoder.embed(wrong)


@pytest.mark.parametrize(("pooling", "dim"), [("cls", 48), ("mean", 48), ("cls+mean", 96), ("pool", 48)])
def test_pooling(folder: Path, pooling: str, dim: int) -> None:
    assert load_timm_encoder(f"local-dir:{folder}", pooling=pooling).dim == dim


def test_cls_and_mean_is_both_in_this_order(folder: Path) -> None:
    cls, mean, both = (
        load_timm_encoder(f"local-dir:{folder}", pooling=p).embed(tiles()) for p in ("cls", "mean", "cls+mean")
    )
    np.testing.assert_allclose(np.concatenate([cls, mean], axis=1), both, atol=1e-6)


def test_weights_from_a_file_equal_those_of_the_folder(encoder: NetworkEncoder, folder: Path) -> None:
    weights = folder / "model.safetensors"
    by_file = load_strictly(
        timm.create_model("vit_tiny_patch16_224", num_classes=0, **ARGS),
        dict(__import__("safetensors.torch", fromlist=["x"]).load_file(weights)),
        "x",
    )
    assert hash_of_weights(by_file) == encoder.weights_sha256


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_registered_architecture_can_be_built(card: EncoderCard) -> None:
    with without_values():
        module: Any = build(card)
        if isinstance(module, VisionTransformer):
            module.blocks = module.blocks[:1]  # which are alike
        features = module.forward_features(torch.empty(1, 3, card.tile_px, card.tile_px))
    assert features.shape[-1] * len(card.pooling.split("+")) == card.dim


def test_registry_names_are_unique() -> None:
    assert len({card.name for card in CARDS}) == len(CARDS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-model", "unknown"),
        ("local-dir:/nowhere", "no config.json in /nowhere"),
    ],
)
def test_a_missing_encoder_says_what_to_do(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_timm_encoder(name)
    assert "\n" not in str(caught.value)


def test_gated_and_offline_models_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ssl_tilegen.encoders.timm_encoder import _remedy

    gated = type("GatedRepoError", (Exception,), {})("401 Client Error")
    assert "hf auth login" in _remedy("hf-hub:MahmoodLab/UNI", gated)
    assert "--weights" in _remedy("hf-hub:MahmoodLab/UNI", ConnectionError("no route"))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file({"cls_token": torch.zeros(1, 1, 384)}, tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match="do not fit imagenet-vit-small"):
        load_timm_encoder("imagenet-vit-small", weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [b"", b"not weights at all"])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match="not a file of weights"):
        load_timm_encoder("imagenet-vit-small", weights=tmp_path / name)


def test_an_unknown_pooling_is_refused(folder: Path) -> None:
    with pytest.raises(SettingError, match="use one of"):
        load_timm_encoder(f"local-dir:{folder}", pooling="max")


@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "Dinov2WithRegisters"])
def test_weights_of_transformers_give_the_same_vectors(kind: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    size = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 64, "patch_size": 16}
    if kind == "ViT":
        size |= {"intermediate_size": 192}
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**size)).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    extra: dict[str, Any] = {} if kind == "ViT" else {"init_values": 1.0}
    extra |= {"reg_tokens": 4, "no_embed_class": True} if kind.endswith("Registers") else {}
    ours = timm.create_model("vit_tiny_patch16_224", num_classes=0, **ARGS, **extra)
    if kind.endswith("Registers"):
        assert to_timm(theirs.state_dict())["reg_token"].shape[1] == 4
    load_strictly(ours, theirs.state_dict(), kind)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        mine = ours.eval().forward_features(x)  # type: ignore[operator]
        theirs_tokens = theirs(x).last_hidden_state
    torch.testing.assert_close(mine[:, 0], theirs_tokens[:, 0], atol=1e-3, rtol=1e-3)


def test_batches_at_once_are_the_same_and_errors_come_with_the_vectors() -> None:
    module = timm.create_model("resnet10t", num_classes=0)
    encoder = NetworkEncoder("small", module, tile_px=32, normalisation=IMAGENET)
    tiles = np.random.default_rng(0).integers(0, 255, (7, 4, 32, 32, 3), dtype=np.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with EncoderPool(encoder) as pool:
            assert pool.workers == 3 and torch.get_num_threads() == 1
            together = [pool.submit(list(batch)) for batch in tiles]
            wrong = pool.submit([np.zeros((8, 8, 3), np.uint8)])
            for future, batch in zip(together, tiles, strict=True):
                assert np.array_equal(future.result(), encoder.embed(batch))
            with pytest.raises(ValueError, match="takes uint8"):
                wrong.result()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


NET = """
from torch import nn

def tiny(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def test_a_network_that_timm_lacks_is_a_file_and_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab_networks.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    card = EncoderCard("lab-tiny", "hf-hub:lab/tiny", "lab_networks:tiny", 12, "MIT", {"width": 12}, tile_px=32,
                       pooling="pool")  # fmt: skip
    monkeypatch.setitem(ENCODERS, card.name, card)
    save_file(build(card).state_dict(), tmp_path / "w.safetensors")
    encoder = load_timm_encoder("lab-tiny", weights=tmp_path / "w.safetensors")
    assert isinstance(encoder, Encoder) and encoder.dim == 12
    assert encoder.embed(np.zeros((5, 32, 32, 3), np.uint8)).shape == (5, 12)
    again, made = rebuild(recipe_of("lab-tiny")).state_dict(), build(card).state_dict()
    assert {name: value.shape for name, value in again.items()} == {name: value.shape for name, value in made.items()}
    with pytest.raises(FormatError, match="unknown network"):
        rebuild({"arch": "os:getcwd", "arch_args": {}})
