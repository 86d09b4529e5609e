"""Encoders that published models need: their own layouts and positions, licences, tokens, and cells shown at another
size."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from ssl_tilegen.bundle import EncoderInfo, ModelBundle, update_info
from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.encoders.base import HALF, IMAGENET
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.encoders.conv_stem import build_ctranspath
from ssl_tilegen.encoders.module_encoder import NetworkEncoder, pool
from ssl_tilegen.encoders.positions import stretched
from ssl_tilegen.encoders.registry import ENCODERS
from ssl_tilegen.encoders.timm_encoder import load_timm_encoder, recipe_of
from ssl_tilegen.errors import FormatError, InputError, SettingError
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.workflows.embed.run import embed, encoder_of
from tests.bundles import DIM, encoder_bundle

ARGS = {"img_size": 64, "patch_size": 16, "depth": 1, "embed_dim": 48, "num_heads": 3}
NON_COMMERCIAL = {"uni", "uni2-h", "virchow2", "h-optimus-1", "phikon", "phikon-v2", "h0-mini", "kaiko-vits16",
                  "kaiko-vitb16", "hipt-vit256"}  # fmt: skip
FREE = {"midnight": "MIT", "openmidnight": "Apache-2.0", "hibou-b": "Apache-2.0", "hibou-l": "Apache-2.0",
        "h-optimus-0": "Apache-2.0", "dinov2-l-reg": "Apache-2.0", "ctranspath": "GPL-3.0"}  # fmt: skip


def tiles(px: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, px, px, 3), np.uint8)


def test_licences_are_told_right() -> None:
    for name, card in ENCODERS.items():
        said = card.licence.lower()
        assert ("nc" in said.split("-") or "non-commercial" in said) == (name in NON_COMMERCIAL), f"{name}: {said}"
    assert {name: ENCODERS[name].licence for name in FREE} == FREE
    assert all("see model card" not in card.licence for card in ENCODERS.values())


def cubic(values: list[float], at: float) -> float:
    """Cubic convolution (Keys 1981, a = -0.75) of a row whose ends go on."""

    def weight(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    near = range(int(np.floor(at)) - 1, int(np.floor(at)) + 3)
    return sum(values[min(max(i, 0), len(values) - 1)] * weight(at - i) for i in near)


@pytest.mark.parametrize("prefix", [0, 1])
def test_positions_are_stretched_as_dino_does(prefix: int) -> None:
    """A factor of 16.1 / 14: the sample of output i lies at (i + 0.5) 14 / 16.1 - 0.5."""
    ramp = torch.arange(14.0).repeat(14, 1).reshape(1, 196, 1)
    table = torch.cat([torch.full((1, prefix, 1), 7.0), ramp], 1)
    got = stretched(table, 16, "dino")
    assert got.shape == (1, prefix + 256, 1) and (got[:, :prefix] == 7).all()
    for how, side in (("dino", 16.1), ("bicubic", 16.0)):
        row = stretched(table, 16, how)[0, prefix : prefix + 16, 0]
        wanted = [cubic(ramp[0, :14, 0].tolist(), (i + 0.5) * 14 / side - 0.5) for i in range(16)]
        torch.testing.assert_close(row, torch.tensor(wanted), atol=1e-4, rtol=0)
    assert torch.equal(stretched(table, 14, "dino"), table)


def test_hipt_is_read_from_the_file_its_authors_wrote(tmp_path: Path) -> None:
    """A checkpoint of DINO: a teacher with heads beside its backbone, and the options of the run."""
    torch.manual_seed(0)
    theirs = timm.create_model("vit_small_patch16_224", num_classes=0)
    torch.nn.init.normal_(theirs.pos_embed)
    teacher = {f"module.backbone.{name}": value for name, value in theirs.state_dict().items()}
    teacher |= {"module.head.mlp.0.weight": torch.zeros(4, 4), "module.head.last_layer.weight_g": torch.zeros(4, 1)}
    path = tmp_path / "vit256_small_dino.pth"
    torch.save({"student": {}, "teacher": teacher, "args": argparse.Namespace(arch="vit_small"), "epoch": 1}, path)
    encoder = load_timm_encoder("hipt-vit256", weights=path)
    assert (encoder.tile_px, encoder.dim, encoder.normalisation) == (256, 384, HALF)
    table = stretched(theirs.pos_embed.detach(), 16, "dino")
    assert torch.equal(encoder.module.pos_embed, table)
    with pytest.raises(InputError, match=r"github\.com/mahmoodlab/HIPT.*--weights"):
        load_timm_encoder("hipt-vit256")


def test_ctranspath_is_read_from_the_file_its_authors_wrote(tmp_path: Path) -> None:
    """By the names of the timm of its time: stages halve at their end, and masks are kept."""
    torch.manual_seed(0)
    network = build_ctranspath().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    state = {}
    for name, value in network.state_dict().items():
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}.", f"layers.{stage - 1}.")
        state[name] = value
    state |= {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49), "head.weight": torch.zeros(2, 768)}
    state |= {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.long)}
    torch.save({"model": state}, tmp_path / "ctranspath.pth")
    encoder = load_timm_encoder("ctranspath", weights=tmp_path / "ctranspath.pth")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in IMAGENET)
    x = (torch.from_numpy(tiles(224)).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        wanted = network(x).numpy()
    np.testing.assert_allclose(encoder.embed(tiles(224)), wanted, atol=0.05, rtol=0.05)
    assert wanted.shape == (2, 768)
    torch.save({"model": {**state, "patch_embed.proj.0.weight": torch.zeros(1)}}, tmp_path / "wrong.pth")
    with pytest.raises(FormatError, match="do not fit ctranspath"):
        load_timm_encoder("ctranspath", weights=tmp_path / "wrong.pth")


def test_a_gated_layer_is_known_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights by transformers' names with a gated feed-forward layer make a network that has one."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from dataclasses import replace

    from safetensors.torch import save_file

    size = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 64, "patch_size": 16}
    torch.manual_seed(0)
    theirs = transformers.Dinov2Model(transformers.Dinov2Config(**size, use_swiglu_ffn=True)).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_file({name: value.contiguous() for name, value in theirs.state_dict().items()}, tmp_path / "m.safetensors")
    card = replace(ENCODERS["midnight"], name="small", architecture="vit_tiny_patch16_224", dim=96, tile_px=64,
                   args={**ARGS, "init_values": 1.0})  # fmt: skip
    monkeypatch.setitem(ENCODERS, "small", card)
    encoder = load_timm_encoder("small", weights=tmp_path / "m.safetensors")
    x = torch.from_numpy(tiles(64)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        tokens = theirs(x).last_hidden_state
    wanted = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1).numpy()
    np.testing.assert_allclose(encoder.embed(tiles(64)), wanted, atol=0.05, rtol=0.05)
    assert recipe_of("small", encoder.module)["arch_args"]["mlp_layer"] == "SwiGLUPacked"


@pytest.mark.parametrize(("pooling", "parts"), [("patches2x2", 4), ("patches4x4", 16), ("cls+patches2x2", 5)])
def test_tokens_of_a_cell_lie_row_by_row(pooling: str, parts: int) -> None:
    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0, **ARGS).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        got = pool(module, x, pooling).reshape(2, parts, 48)
        tokens = module.forward_features(x)
    grid = tokens[:, 1:].reshape(2, 4, 4, 48)
    k = 4 if pooling.endswith("4x4") else 2
    wanted = grid.reshape(2, k, 4 // k, k, 4 // k, 48).mean((2, 4)).reshape(2, k * k, 48)
    torch.testing.assert_close(got[:, -k * k :], wanted)
    if parts == 5:
        assert torch.equal(got[:, 0], tokens[:, 0])


def test_more_tokens_than_a_network_has_are_refused() -> None:
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0, **ARGS | {"img_size": 32})
    with pytest.raises(SettingError, match="4 x 4"):
        NetworkEncoder("x", module, tile_px=32, normalisation=HALF, pooling="patches4x4")


def test_a_cell_is_shown_at_the_side_the_network_takes() -> None:
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0, **ARGS)
    shown = NetworkEncoder("x", module, tile_px=96, input_px=64, normalisation=HALF, pooling="cls")
    own = NetworkEncoder("x", module, tile_px=64, normalisation=HALF, pooling="cls")
    flat = np.full((1, 96, 96, 3), 77, np.uint8)
    np.testing.assert_allclose(shown.embed(flat), own.embed(flat[:, :64, :64]), atol=1e-5)
    from PIL import Image

    smooth = Image.fromarray(tiles(12)[0]).resize((96, 96), Image.Resampling.BILINEAR)
    image = Image.fromarray(np.array(smooth) // 2 + 60)
    small = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))
    seen = shown._seen(torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2))[0].permute(1, 2, 0).numpy()
    assert np.abs(seen - small).max() <= 1


def test_a_bundle_says_at_which_side_its_encoder_sees_a_cell(tmp_path: Path) -> None:
    folder = encoder_bundle(tmp_path / "b")
    before = ModelBundle(folder).hash
    update_info(folder, encoder=EncoderInfo(id="x", tile_px=96, dim=DIM, input_px=64))
    bundle = ModelBundle(folder)
    encoder = BundleEncoder(bundle)
    assert (encoder.tile_px, encoder.input_px) == (96, 64) and encoder.embed(tiles(96)).shape == (2, DIM)
    assert bundle.hash != before


def test_embed_takes_the_encoder_cells_and_resolution_that_a_bundle_names(tmp_path: Path) -> None:
    """A bundle without an encoder of its own, as imported ones are."""
    from PIL import Image

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **ARGS)
    timm.models.save_for_hf(model, str(tmp_path / "vit"), model_args=ARGS, safe_serialization=True)
    folder = encoder_bundle(tmp_path / "b")
    for path in (folder / "encoder").iterdir():
        path.unlink()
    (folder / "encoder").rmdir()
    name = f"local-dir:{tmp_path / 'vit'}"
    update_info(folder, encoder=EncoderInfo(id=name, tile_px=96, dim=96, pooling="cls+mean", input_px=64))
    Image.fromarray(tiles(288, 1)[0]).save(tmp_path / "x.png")
    embed([tmp_path / "x.png"], EmbedSettings(model=str(folder), mpp=0.5, out=tmp_path / "x.zarr"))
    grid = EmbeddingGrid.open(tmp_path / "x.zarr")
    assert (grid.spec.lattice.tile, grid.dim, grid.spec.encoder.id) == (96, 96, name)
    assert grid.spec.encoder.pooling == "cls+mean" and grid.shape.rows == 3
    assert str(encoder_of(ModelBundle(folder)).resolution) == "0.5 um/px"
    update_info(folder, encoder=EncoderInfo(id=name, tile_px=96, dim=48, pooling="cls+mean"))
    with pytest.raises(FormatError, match="wants vectors of 48"):
        encoder_of(ModelBundle(folder))
    update_info(folder, encoder=EncoderInfo(id="unknown", tile_px=96, dim=48))
    with pytest.raises(InputError, match="names none; give --encoder"):
        encoder_of(ModelBundle(folder))
