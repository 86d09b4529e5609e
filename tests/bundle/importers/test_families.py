"""Each published family, imported with random weights, against the same weights in plain torch (``reference``)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_tilegen.bundle.importers import Imported, ImportOptions, recognise
from ssl_tilegen.cli import main
from ssl_tilegen.errors import FormatError, InputError, SettingError
from ssl_tilegen.nets import build_component
from tests.bundle.importers import reference
from tests.bundle.importers.sources import lid_folder, lightning_checkpoint, pixcell_folder
from tests.bundle.importers.states import (
    FULL_PIXCELL,
    FULL_UNET,
    FULL_VQ,
    FULL_ZOOM,
    PixCell,
    State,
    UNet,
    Vq,
    Zoom,
    filled,
    large_image_diffusion,
    unet_shapes,
    zoomldm,
)
from tests.processes import forked

TOLERANCE = 1e-4
NET, VQ, ZOOM = UNet(), Vq(), Zoom()


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def network(imported: Imported, component: str) -> Any:
    part = imported.components[component]
    with unset_weights():
        module: Any = build_component(part.config).eval()
    module.load_state_dict(part.weights, assign=True)
    return module


@contextmanager
def unset_weights() -> Iterator[None]:
    """In the body weights are not drawn: for networks whose weights are all loaded, drawing takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")]:
            patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference in units of their spread."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.std())


def latents(side: int = 16, channels: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, channels, side, side), torch.tensor([999.0, 21.0])


def denoised(imported: Imported, x: Tensor, t: Tensor, cells: Tensor | None) -> Tensor:
    conditioner = network(imported, "conditioner")
    tokens = conditioner.unconditional(len(x)) if cells is None else conditioner(cells)
    return network(imported, "denoiser")(x, timestep=t, encoder_hidden_states=tokens).sample


@pytest.mark.parametrize("region", [False, True], ids=["one-token", "two-tokens"])
def test_large_image_diffusion(region: bool, tmp_path: Path) -> None:
    state = large_image_diffusion(16, region=region, net=NET, vq=VQ)
    imported = recognise(lid_folder(tmp_path / "m", state, target="brca" if region else "crc"))
    x, t = latents()
    vectors = torch.randn(2, 16)
    for told, cells in ((vectors, vectors[:, None]), (torch.zeros(2, 16), None)):
        theirs = reference.unet(state, NET, x, t, reference.patch_tokens(state, told))
        assert difference(denoised(imported, x, t, cells), theirs) < TOLERANCE
    dropped = network(imported, "conditioner")(torch.full((2, 1, 16), torch.nan))
    assert torch.equal(dropped, network(imported, "conditioner").unconditional(2))
    assert imported.info["encoder"]["id"] == ("hipt-vit256" if region else "phikon")
    assert ("cond_stage_model.region_fc.weight" in imported.left_out) == region
    assert "betas" in imported.left_out and "inception.blocks.0.weight" in imported.left_out


def test_its_autoencoder_encodes_without_and_decodes_with_its_codes(tmp_path: Path) -> None:
    state = large_image_diffusion(16, region=False)
    vq = network(recognise(lid_folder(tmp_path / "m", state)), "autoencoder")
    torch.manual_seed(1)
    pixels = torch.randn(1, 3, 32, 32)
    encoded = vq.encode(pixels).latents
    assert difference(encoded, reference.vq_encode(state, VQ, pixels)) < TOLERANCE
    assert difference(vq.decode(encoded).sample, reference.vq_decode(state, VQ, encoded)) < TOLERANCE


@pytest.mark.parametrize(("said", "is_unit"), [("", False), ("normalize_ssl: true", True), (None, True)])
def test_vectors_are_of_unit_length_where_the_configuration_says_so(said, is_unit: bool, tmp_path: Path) -> None:
    """Published configurations do; their code's default is not to. Where nothing is said of it, as published."""
    source = lid_folder(tmp_path / "m")
    [config] = (source / "configs").glob("*02-project.yaml")
    if said is not None:
        embedder = f"    cond_stage_config: {{target: x.PatchEmbedder, params: {{{said}}}}}\n    unet_config:"
        config.write_text(config.read_text().replace("    unet_config:", embedder))
    conditioner = network(recognise(source), "conditioner")
    cells = torch.randn(1, 1, 16)
    wanted = torch.nn.functional.normalize(cells, dim=-1) if is_unit else cells
    torch.testing.assert_close(conditioner(cells), wanted)


@pytest.mark.parametrize(("target", "name", "unit"), [("crc", "crc-20x", "um"), ("naip", "naip", "m")])
def test_which_of_the_published_models_it_is(target: str, name: str, unit: str, tmp_path: Path) -> None:
    info = recognise(lid_folder(tmp_path / "m", target=target)).info
    assert info["name"].endswith(name) and [u for _, u in info["resolutions"].values()] == [unit]


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16])
def test_zoomldm(side: int, tmp_path: Path) -> None:
    state = zoomldm()
    torch.save(state, tmp_path / "weights.ckpt")
    level = {1: 0, 2: 1, 4: 2, 8: 3, 16: 4}[side]
    names = ("20x", "10x", "5x", "2.5x", "1.25x")
    imported = recognise(tmp_path, ImportOptions(magnification=names[level]))
    torch.manual_seed(2)
    grid = torch.randn(2, ZOOM.dim, side, side)
    tokens = network(imported, "conditioner")(grid.flatten(2).transpose(1, 2))
    theirs = torch.stack([reference.zoom_tokens(state, cells, level, ZOOM.depth) for cells in grid])
    assert difference(tokens, theirs) < TOLERANCE
    if side == 2:
        averaged = filled(unet_shapes(UNet(context=ZOOM.width)), 11)
        x, t = latents()
        ours = network(imported, "denoiser")(x, timestep=t, encoder_hidden_states=tokens).sample
        assert difference(ours, reference.unet(averaged, UNet(context=ZOOM.width), x, t, theirs)) < TOLERANCE
        assert not network(imported, "conditioner").unconditional(3).any()


def test_zoomldm_knows_its_magnifications(tmp_path: Path) -> None:
    torch.save(zoomldm(), tmp_path / "weights.ckpt")
    with pytest.raises(SettingError, match="40x"):
        recognise(tmp_path, ImportOptions(magnification="40x"))


@pytest.mark.parametrize("tokens", [1, 16])
def test_pixcell(tokens: int, tmp_path: Path) -> None:
    net = PixCell(tokens)
    folder, state = pixcell_folder(tmp_path / "p", net)
    imported = recognise(folder)
    x, t = latents(net.side, net.channels)
    cells = torch.randn(2, tokens, net.dim)
    for told in (cells, None):
        ours = denoised(imported, x, t, told)[:, : net.channels]
        assert difference(ours, reference.pixcell(state, net, x, t, told)) < TOLERANCE
    half = torch.stack([cells[0], torch.full_like(cells[1], torch.nan)])
    conditioner = network(imported, "conditioner")
    assert torch.equal(conditioner(half)[1], conditioner.unconditional(1)[0])
    assert imported.info["latent_scale"] == [1.5305] * 4 and imported.info["latent_mean"] == [0.0609] * 4
    assert imported.info["conditioning"]["landing"] == ("cells" if tokens > 1 else "anywhere")


def test_pixcell_says_where_its_autoencoder_is_to_be_had(tmp_path: Path) -> None:
    folder, _ = pixcell_folder(tmp_path / "p", PixCell(1), vae=False)
    with pytest.raises(InputError, match=r"stable-diffusion-3\.5-large"):
        recognise(folder)
    beside, _ = pixcell_folder(tmp_path / "q", PixCell(1))
    assert recognise(folder, ImportOptions(vae=beside / "vae")).components["autoencoder"].weights
    with pytest.raises(InputError, match="nowhere: no autoencoder here"):  # though the source brings one
        recognise(beside, ImportOptions(vae=tmp_path / "nowhere"))
    config = json.loads((beside / "vae" / "config.json").read_text())
    (beside / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.18}))
    with pytest.raises(FormatError, match="scaling_factor"):
        recognise(folder, ImportOptions(vae=beside / "vae"))


def test_a_diffusers_folder(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    from tests.bundle.importers.sources import sd35_vae

    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        layers_per_block=1,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=12,
        attention_head_dim=4,
    )
    unet.save_pretrained(tmp_path / "ldm" / "unet")
    sd35_vae().save_pretrained(tmp_path / "ldm" / "vae")
    DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(tmp_path / "ldm" / "scheduler")
    with pytest.raises(SettingError, match="--encoder"):
        recognise(tmp_path / "ldm")
    with pytest.raises(InputError, match="nowhere: no autoencoder here"):
        recognise(tmp_path / "ldm", ImportOptions(encoder="dinov2-b", vae=tmp_path / "nowhere"))
    imported = recognise(tmp_path / "ldm", ImportOptions(encoder="dinov2-b"))
    x, t = latents(16, 4)
    tokens = torch.randn(2, 1, 12)
    assert torch.equal(denoised(imported, x, t, tokens), unet(x, t, encoder_hidden_states=tokens).sample)


def spoiled(state: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    first = "model.diffusion_model.input_blocks.4.0.in_layers.2.weight"
    if how == "missing":
        return {name: value for name, value in state.items() if name != first}
    if how == "strange":
        return state | {"model.control.weight": torch.zeros(2)}
    return state | {first: state[first][:, :4]}


@pytest.mark.parametrize("how", ["missing", "strange", "shape"])
def test_every_tensor_is_accounted_for(how: str, tmp_path: Path) -> None:
    state = spoiled(large_image_diffusion(16, region=False), how)
    with pytest.raises(FormatError) as caught:
        recognise(lid_folder(tmp_path / "m", state))
    assert "\n" not in str(caught.value)


def test_what_is_none_of_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such"):
        recognise(tmp_path / "nothing")
    with pytest.raises(InputError, match="no model here"):
        recognise(tmp_path)
    with pytest.raises(FormatError, match="none of the models"):
        recognise(lightning_checkpoint(tmp_path / "x.ckpt", {"a": torch.ones(1)}))
    with pytest.raises(InputError, match="--config"):
        recognise(lightning_checkpoint(tmp_path / "y.ckpt", large_image_diffusion(16, region=False)))


@pytest.mark.slow
def test_zoomldm_at_full_width(tmp_path: Path) -> None:
    """Its conditioner's values; of the other networks, which are those of the test below, names and shapes."""
    state = zoomldm(FULL_ZOOM, FULL_UNET, FULL_VQ, solid=False)
    torch.save(state, tmp_path / "weights.ckpt")
    imported = recognise(tmp_path, ImportOptions(magnification="5x"))
    grid = torch.randn(1024, 4, 4)
    tokens = network(imported, "conditioner")(grid.flatten(1).T[None])
    assert difference(tokens[0], reference.zoom_tokens(state, grid, 2, FULL_ZOOM.depth)) < TOLERANCE


@pytest.mark.slow
def test_pixcell_1024_at_full_width(tmp_path: Path) -> None:
    folder, state = pixcell_folder(tmp_path / "p", FULL_PIXCELL)
    imported = recognise(folder)
    x, t = latents(FULL_PIXCELL.side, 16)
    cells = torch.randn(1, 16, 1536)
    ours = denoised(imported, x[:1], t[:1], cells)[:, :16]
    assert difference(ours, reference.pixcell(state, FULL_PIXCELL, x[:1], t[:1], cells)) < TOLERANCE


@pytest.fixture(scope="module")
def full_lid(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, Path]:
    """The state of a paper model of full width, and its folder."""
    state = large_image_diffusion(384, region=True, net=FULL_UNET, vq=FULL_VQ)
    return state, lid_folder(tmp_path_factory.mktemp("full") / "m", state, FULL_UNET, target="brca")


@pytest.mark.slow
def test_large_image_diffusion_at_full_width(full_lid: tuple[State, Path]) -> None:
    state, source = full_lid
    imported = recognise(source)
    x, t = latents(32)
    assert sum(v.numel() for v in imported.components["denoiser"].weights.values()) // 10**5 == 4009 + 2
    vectors = torch.randn(1, 384)
    theirs = reference.unet(state, FULL_UNET, x[:1], t[:1], reference.patch_tokens(state, vectors))
    assert difference(denoised(imported, x[:1], t[:1], vectors[:, None]), theirs) < TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_an_import_at_full_width_takes_less_memory_than_its_weights(
    full_lid: tuple[State, Path], tmp_path: Path
) -> None:
    state, source = full_lid
    nbytes = sum(value.numel() * value.element_size() for value in state.values())
    heard = tmp_path / "heard.log"
    process = forked(heard, _import_and_tell_peak, source, tmp_path / "bundle")
    process.join(300)
    peak = re.search(r"VmHWM:\s+(\d+) kB", heard.read_text())
    assert process.exitcode == 0 and peak and int(peak[1]) * 1024 < 1.3 * nbytes, heard.read_text()


def _import_and_tell_peak(source: Path, out: Path) -> None:
    """The process's own peak, which holds the libraries too."""
    try:
        main(["models", "import", str(source), "-o", str(out)])
    finally:
        print(Path("/proc/self/status").read_text())
