"""A narrow published model of each family with random weights, imported by the command line, its encoder by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from timm.models._hub import save_for_hf

from ssl_tilegen.bundle.info import read_info, update_info
from ssl_tilegen.cli import main
from tests.bundle.importers.sources import lid_folder, pixcell_folder, sd35_vae
from tests.bundle.importers.states import PixCell, UNet, Vq, Zoom, large_image_diffusion, zoomldm

DIM = 48
_NET, _VQ = UNet(width=32, mult=(1, 2), blocks=1), Vq(mult=(1, 1, 2), blocks=1)


def named_encoder(folder: Path) -> str:
    """A small ViT of random weights in a folder of timm's, for ``--encoder``: found by name, without a network."""
    torch.manual_seed(3)
    args = {"embed_dim": DIM, "depth": 1, "num_heads": 3}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **args)
    save_for_hf(model, str(folder), model_args=args, safe_serialization=True)
    return f"local-dir:{folder}"


def import_lid(folder: Path, encoder: str, *, region: bool = True) -> None:
    """Large-Image-Diffusion, BRCA at 20x (two tokens) or CRC (one)."""
    state = large_image_diffusion(DIM, region=region, net=_NET, vq=_VQ)
    source = lid_folder(folder / "source", state, _NET, target="brca" if region else "crc")
    for config in (source / "configs").glob("*02-project.yaml"):  # windows of 64 px
        config.write_text(config.read_text().replace("image_size: 64", "image_size: 16"))
    run_command("models", "import", source, "-o", folder / "bundle", "--encoder", encoder)


def import_lid_one_token(folder: Path, encoder: str) -> None:
    import_lid(folder, encoder, region=False)


def import_pixcell(folder: Path, encoder: str, *, tokens: int = 16) -> None:
    """PixCell-1024 (4 x 4 cells and a table) or PixCell-256 (one cell), with its autoencoder; windows of 256 px."""
    source, _ = pixcell_folder(folder / "source", PixCell(tokens, dim=DIM, depth=1, side=32))
    run_command("models", "import", source, "-o", folder / "bundle", "--encoder", encoder)
    if tokens == 16:
        narrow_cells(folder / "bundle", 64)


def narrow_cells(bundle: Path, side_px: int) -> None:
    """Cells as much smaller than published ones as the window is: as many of them lie under it."""
    encoder = read_info(bundle).encoder
    update_info(bundle, encoder=encoder.model_copy(update={"tile_px": side_px}), stride_px=[side_px])


def import_pixcell_256(folder: Path, encoder: str) -> None:
    import_pixcell(folder, encoder, tokens=1)


def import_zoomldm(folder: Path, encoder: str) -> None:
    """ZoomLDM at 10x: 2 x 2 cells under a window of 64 px."""
    zoom, net = Zoom(dim=DIM), UNet(width=32, mult=(1, 2), blocks=1, context=24)
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "config.yaml").write_text("model: {params: {image_size: 16}}\n")
    torch.save(zoomldm(zoom, net, _VQ), folder / "source" / "weights.ckpt")
    more = ("--encoder", encoder, "--magnification", "10x")
    run_command("models", "import", folder / "source", "-o", folder / "bundle", *more)
    narrow_cells(folder / "bundle", 32)


def import_ldm(folder: Path, encoder: str) -> None:
    """A latent diffusion model in diffusers layout."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    source = folder / "source"
    torch.manual_seed(4)
    UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        layers_per_block=1,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=DIM,
        attention_head_dim=4,
    ).save_pretrained(source / "unet")
    sd35_vae().save_pretrained(source / "vae")
    DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(source / "scheduler")
    run_command("models", "import", source, "-o", folder / "bundle", "--encoder", encoder, "--mpp", "0.5")


IMPORTS: dict[str, Callable[[Path, str], None]] = {
    "lid": import_lid,
    "lid-one-token": import_lid_one_token,
    "pixcell-256": import_pixcell_256,
    "pixcell-1024": import_pixcell,
    "zoomldm": import_zoomldm,
    "ldm": import_ldm,
}
"""Family -> what makes ``bundle`` in a folder."""


def run_command(*words: object) -> None:
    """The command line in this process; it must end well."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert not end.value.code, words
