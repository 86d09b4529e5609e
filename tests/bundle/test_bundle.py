"""Model bundles: what is written is read back, and what is wrong is said in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ssl_tilegen.bundle import ModelBundle, Sampling, update_info
from ssl_tilegen.errors import FormatError, InputError, TilegenError
from tests.bundles import DIM, LATENTS, TILE_PX, WINDOW_PX, encoder_bundle, painting_bundle

KINDS = ("local", "window")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: painting_bundle(tmp_path_factory.mktemp(kind), window=kind == "window") for kind in KINDS}


@pytest.fixture
def copied(bundles: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles["local"], tmp_path / "bundle"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_says_of_itself(kind: str, bundles: dict[str, Path]) -> None:
    model = ModelBundle.load(bundles[kind])
    assert model.conditioning.is_field == (kind == "local") and model.factor == 8 and model.window_lat == WINDOW_PX // 8
    assert model.latent_channels == LATENTS and model.decoder_halo_lat == 6
    assert (model.halo_lat, model.conditioning.quantum_lat) == ((32, 4) if kind == "local" else (0, 1))
    assert model.info.encoder.dim == DIM and model.scheduler_config["_class_name"].startswith("FlowMatch")


@pytest.mark.parametrize("kind", KINDS)
def test_it_predicts_from_conditions_and_without(kind: str, bundles: dict[str, Path]) -> None:
    model, side = ModelBundle.load(bundles[kind]), WINDOW_PX // 8
    x, t = torch.randn(2, LATENTS, side, side), torch.full((2,), 0.5)
    shape = (2, DIM, side // 4, side // 4) if kind == "local" else (2, 1, DIM)
    one, other = (model.predict(x, t, torch.randn(shape)) for _ in range(2))
    bare = model.predict(x, t, None)
    assert one.shape == bare.shape == x.shape and one.dtype == torch.float32
    assert not torch.allclose(one, other) and not torch.allclose(one, bare)


def test_weights_survive_the_way_through_float16(copied: Path) -> None:
    first = ModelBundle.load(copied)
    weights = {name: value.clone() for name, value in first.denoiser.state_dict().items()}
    again = ModelBundle.load(copied).denoiser.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert {value.dtype for value in again.values()} == {torch.float32}
    assert sum(file.stat().st_size for file in copied.rglob("*.safetensors")) < 1 << 20


def test_encoding_piece_by_piece_is_encoding_the_whole(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelBundle.load(bundles["local"])
    rgb = np.random.default_rng(0).integers(0, 256, (160, 120, 3), np.uint8)
    whole = model.encode(rgb)
    monkeypatch.setattr("ssl_tilegen.bundle.model_bundle._PIECE_LAT", 7)
    torch.testing.assert_close(model.encode(rgb), whole, rtol=1e-4, atol=1e-4)


def test_latents_are_normalised_and_back(copied: Path) -> None:
    rgb = np.full((64, 64, 3), 100, np.uint8)
    plain = ModelBundle.load(copied).encode(rgb)
    update_info(copied, latent_mean=[1.0] * LATENTS, latent_scale=[2.0] * LATENTS)
    model = ModelBundle.load(copied)
    torch.testing.assert_close(model.encode(rgb), (plain - 1) * 2)
    update_info(copied, latent_mean=[0.0] * LATENTS, latent_scale=[1.0] * LATENTS)
    torch.testing.assert_close(model.decode((plain[None] - 1) * 2), ModelBundle.load(copied).decode(plain[None]))


def test_the_hash_follows_weights_and_joints(copied: Path) -> None:
    first, encoder = ModelBundle.load(copied).hash, ModelBundle.load(copied).component_hash("encoder")
    update_info(copied, scores={"fid": 3}, licence="CC0")
    assert ModelBundle.load(copied).hash == first
    update_info(copied, latent_scale=[2.0] * LATENTS)
    assert ModelBundle.load(copied).hash != first and ModelBundle.load(copied).component_hash("encoder") == encoder


def test_an_encoder_alone_is_a_bundle(tmp_path: Path) -> None:
    model = ModelBundle.load(encoder_bundle(tmp_path / "b"))
    assert model.encoder(torch.zeros(1, 3, TILE_PX, TILE_PX)).shape == (1, DIM)
    assert model.has("encoder") and not model.has("denoiser")
    with pytest.raises(FormatError, match=r"denoiser.*incomplete"):
        _ = model.denoiser


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


WEIGHTS = "diffusion_pytorch_model.safetensors"
BROKEN = {
    "newer": (lambda b: edit(b / "bundle.json", format=2), FormatError, "format 2.*upgrade"),
    "no JSON": (lambda b: (b / "bundle.json").write_text("{"), FormatError, "bundle.json: not valid JSON"),
    "not an object": (lambda b: (b / "bundle.json").write_text("[]"), FormatError, "bundle.json"),
    "wrong type": (lambda b: edit(b / "bundle.json", window_px="big"), FormatError, "window_px"),
    "no bundle.json": (lambda b: (b / "bundle.json").unlink(), InputError, "not a model bundle"),
    "no weights": (lambda b: (b / "denoiser" / WEIGHTS).unlink(), FormatError, "denoiser"),
    "cut weights": (lambda b: cut(b / "denoiser" / WEIGHTS), FormatError, "denoiser"),
    "other widths": (lambda b: edit(b / "denoiser" / "config.json", widths=[8, 8, 16]), FormatError, "denoiser"),
    "unknown class": (lambda b: edit(b / "denoiser" / "config.json", _class_name="Nonsense"), FormatError, "Nonsense"),
    "no config": (lambda b: (b / "denoiser" / "config.json").unlink(), FormatError, "incomplete"),
    "broken config": (lambda b: (b / "denoiser" / "config.json").write_text("{"), FormatError, "not valid JSON"),
    "no scheduler": (lambda b: shutil.rmtree(b / "scheduler"), FormatError, "incomplete"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_bundle_is_one_line(case: str, copied: Path) -> None:
    spoil, kind, message = BROKEN[case]
    spoil(copied)
    with pytest.raises(kind, match=message) as caught:
        model = ModelBundle.load(copied)
        assert model.denoiser and model.scheduler_config
    assert isinstance(caught.value, TilegenError) and "\n" not in str(caught.value)


def test_a_few_step_bundle_says_so_and_takes_no_guidance_unless_it_says_otherwise():
    own = Sampling.model_validate({"times": [1, 0.75, 0.5]})
    assert (own.update, own.steps, own.guidance) == ("renoise", 3, 1.0)
    said = Sampling.model_validate({"times": [1, 0.5], "steps": 4, "update": "ddim", "guidance": 2.0})
    assert (said.update, said.steps, said.guidance) == ("ddim", 4, 2.0)
    assert Sampling.model_validate_json(own.model_dump_json()) == own
    with pytest.raises(ValueError, match="fall from 1"):
        Sampling(times=(0.5, 0.6))


def test_remains_of_an_older_save_are_not_mixed_in(copied: Path) -> None:
    """Only the files that the index names are read; without an index there may be one file alone."""
    folder = copied / "denoiser"
    weights = {name: value.contiguous() for name, value in ModelBundle.load(copied).denoiser.state_dict().items()}
    names = sorted(weights)
    (folder / WEIGHTS).unlink()
    shards = {"a-00001.safetensors": names[::2], "a-00002.safetensors": names[1::2]}
    for shard, keys in shards.items():
        save_file({key: weights[key] for key in keys}, folder / shard)
    save_file({name: value + 1 for name, value in weights.items()}, folder / "z-remains.safetensors")
    with pytest.raises(FormatError, match="no single index"):
        _ = ModelBundle.load(copied).denoiser
    index = folder / "a.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: shard for shard, keys in shards.items() for key in keys}}))
    loaded = ModelBundle.load(copied).denoiser.state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


@pytest.mark.parametrize("weight_map", [{}, {"x": "../encoder/model.safetensors"}, {"x": "gone.safetensors"}, "x"])
def test_an_index_names_files_of_its_own_folder(copied: Path, weight_map: object) -> None:
    (copied / "denoiser" / "a.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(FormatError, match=r"weight_map|names"):
        _ = ModelBundle.load(copied).denoiser


def test_the_index_of_a_bundle_names_every_class(bundles: dict[str, Path]) -> None:
    index = {kind: json.loads((bundles[kind] / "model_index.json").read_text()) for kind in KINDS}
    assert index["local"]["encoder"] == ["timm", "vit_tiny_patch16_224"]
    assert index["local"]["denoiser"] == ["ssl_tilegen.nets", "FieldUNet"]
    assert index["window"]["denoiser"] == ["diffusers", "UNet2DConditionModel"]
