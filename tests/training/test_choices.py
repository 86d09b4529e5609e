"""Every target with every network: its laws, and from training to a painted image."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EmbedSettings, GenerateSettings
from ssl_tilegen.config.train import DataSettings, DenoiserSettings, RunSettings, load_stage_settings
from ssl_tilegen.diffusion.parameterization import to_clean
from ssl_tilegen.diffusion.schedule import Step
from ssl_tilegen.nets import build_component
from ssl_tilegen.nets.hollow import without_values
from ssl_tilegen.nets.noise_schedule import preconditioning
from ssl_tilegen.training.objectives.flat_ground import flat_ground_counts
from ssl_tilegen.training.objectives.targets import Target
from ssl_tilegen.workflows.embed.run import embed
from ssl_tilegen.workflows.generate.run import generate
from ssl_tilegen.workflows.train import train
from tests.training import runs

PAPER = Path(__file__).parents[2] / "examples" / "paper"
TARGETS = ["flow", "v", "epsilon"]
UNET = (
    '_class_name = "UNet2DConditionModel"\nblock_out_channels = [8, 16]\nlayers_per_block = 1\nnorm_num_groups = 4\n'
    'down_block_types = ["DownBlock2D", "CrossAttnDownBlock2D"]\nup_block_types = ["CrossAttnUpBlock2D", "UpBlock2D"]\n'
    "attention_head_dim = [2, 2]\ncross_attention_dim = 8\n"
)
DIT = '_class_name = "WindowDiT"\nwidth = 32\ndepth = 2\nheads = 2\n'
NETS = {"local": "widths = [16, 16, 32]\nhidden = 16\n", "unet": UNET, "dit": DIT}
BLOCKS = (
    "block_out_channels = [8, 16]\nnorm_num_groups = 4\n"
    'down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D"]\n'
    'up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D"]\n'
)
KINDS = {
    "AutoencoderKL": BLOCKS + "latent_channels = 4\n",
    "VQModel": BLOCKS + "latent_channels = 3\nnum_vq_embeddings = 32\n",
}


def settings(target: str, **more: Any) -> DenoiserSettings:
    return DenoiserSettings(data=DataSettings(sources=[]), run=RunSettings(steps=1), target=target, **more)


def batch_of(target: Target, count: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    t = torch.from_numpy(np.stack([target.sample_times(rng) for _ in range(count)]))
    return torch.randn(count, 4, 6, 6), torch.randn(count, 4, 6, 6), t


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_asked_of_the_network_means_the_clean_latent_to_the_engine(name):
    target = Target.of(settings(name))
    clean, noise, t = batch_of(target)
    x, wanted, _ = target.noisy(clean, noise, t)
    alpha, sigma = target.levels(t)
    for i in range(len(t)):
        step = Step(0, float(t[i]), float(alpha[i]), float(sigma[i]), 1.0, 0.0)
        meant = to_clean(target.prediction)(wanted[i], x[i], step)
        assert torch.allclose(meant, clean[i], atol=2e-3)


@pytest.mark.parametrize("name", TARGETS)
def test_min_snr_weighs_the_error_of_the_clean_estimate_alike_for_every_target(name):
    target = Target.of(settings(name, weighting="min_snr", min_snr_gamma=3.0))
    clean, noise, t = batch_of(target)
    x, wanted, weight = target.noisy(clean, noise, t)
    alpha, sigma = target.levels(t)
    off = wanted + 0.1 * torch.randn_like(wanted)
    for i in range(len(t)):
        if not 0.02 < alpha[i] < 0.98:
            continue
        step = Step(0, float(t[i]), float(alpha[i]), float(sigma[i]), 1.0, 0.0)
        error = (to_clean(target.prediction)(off[i], x[i], step) - clean[i]).square().mean()
        snr = float(alpha[i] / sigma[i]) ** 2
        ours = weight[i] * (off[i] - wanted[i]).square().mean()
        assert float(ours) == pytest.approx(min(snr, 3.0) * float(error), rel=2e-2)


def test_errors_on_flat_ground_count_more_where_asked_and_as_much_over_all():
    clean = torch.randn(3, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    clean[:, :, :6] = 1.0
    plain, some, full = (flat_ground_counts(clean, torch.full((3,), power)) for power in (0.0, 0.5, 1.0))
    assert torch.equal(plain, torch.ones(3, 12, 12))
    assert some.mean() == pytest.approx(1, abs=1e-5)
    assert full.mean() == pytest.approx(1, abs=1e-5)
    assert full[:, :4].min() > some[:, :4].max() > 1 > some[:, 8:].mean() > full[:, 8:].mean()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_local_network_is_asked_for_a_remainder_of_unit_deviation(name, share):
    torch.manual_seed(0)
    std, n = 0.6, 400_000
    alpha = torch.tensor(1 - share) if name == "flow" else torch.tensor((1 - share**2) ** 0.5)
    sigma = torch.tensor(share)
    clean, noise = std * torch.randn(n), torch.randn(n)
    x = alpha * clean + sigma * noise
    wanted = {"flow": noise - clean, "epsilon": noise, "v": alpha * noise - sigma * clean}[name]
    kind = {"v": "v_prediction"}.get(name, name)
    keep, linear, gain = preconditioning(kind, alpha, sigma, torch.tensor(std))
    remainder = (wanted - linear * x) / gain
    assert float(remainder.std()) == pytest.approx(1, abs=0.01)
    assert float((keep * x).std()) == pytest.approx(1, abs=0.01)
    assert abs(float((remainder * x).mean())) < 0.01


def painted(folder: Path, out: Path) -> np.ndarray:
    """The bundle of a run embeds an image and paints it anew."""
    model = str(out / "bundle")
    embed([folder / "p0.png"], EmbedSettings(out=out / "g.zarr", model=model, mpp=0.5))
    generate(GenerateSettings(grid=out / "g.zarr", out=out / "x.png", model=model, steps=3, merge="auto"))
    return np.asarray(Image.open(out / "x.png"))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_and_network_trains_and_paints(base, tmp_path, net, target):
    bundle_of = f'bundle = "{base / "run" / "bundle"}"'
    text = f'window_lat = 8\nmargin_lat = 1\n{bundle_of}\ntarget = "{target}"\n[net]\n{NETS[net]}'
    config = runs.write_config(base, "denoiser", text, f"denoiser-{net}-{target}")
    train("denoiser", config, tmp_path, device="cpu")
    assert Image.open(tmp_path / "denoiser" / "sample-0000004.png").size == (8 * 64, 3 * 64)
    bundle = ModelBundle.load(tmp_path / "bundle")
    assert bundle.conditioning.is_field == (net == "local")
    assert net == "local" or bundle.denoiser.config["sample_size"] == 8
    assert bundle.scheduler_config.get("prediction_type", "flow") == bundle.prediction_type
    image = painted(base, tmp_path)
    assert image.shape == (136, 160, 3) and image.std() > 1


@pytest.mark.parametrize("kind", KINDS)
def test_autoencoders_of_diffusers_train_with_features_and_critic_and_paint(base, tmp_path, kind):
    losses = "feature_weight = 0.5\ncritic_weight = 0.1\ncritic_width = 8\n"
    features = f'feature_bundle = "{base / "run" / "bundle"}"\n'
    text = f'window_px = 32\n{features}{losses}[net]\n_class_name = "{kind}"\n{KINDS[kind]}'
    train("encoder", base / "encoder.toml", tmp_path, device="cpu")
    config = runs.write_config(base, "autoencoder", text, f"autoencoder-{kind}")
    train("autoencoder", config, tmp_path, device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "autoencoder" / "log.jsonl").read_text().splitlines()]
    assert {"features", "discriminator", "generator"} <= lines[0].keys()
    assert {"fixed_psnr", "fixed_ssim", "rfd"} <= lines[-1].keys() and lines[-1]["rfd"] > 0
    train("denoiser", runs.write_config(base, "denoiser"), tmp_path, device="cpu")
    bundle = ModelBundle.load(tmp_path / "bundle")
    assert type(bundle.autoencoder).__name__ == kind and bundle.factor == 2
    assert painted(base, tmp_path).std() > 1


def test_a_decoder_learns_from_a_backbone_and_latents_stay(base, tmp_path):
    trained = base / "run" / "bundle"
    features = (
        'backbone = "test_efficientnet"\nbackbone_stages = [0, 2]\nbackbone_weights = "random"\nfeature_weight = 0.5\n'
    )
    text = f'start_from = "{trained}"\ntrain_only = "decoder"\nposterior_noise = 0\nchroma_weight = 2\n{features}'
    train("autoencoder", runs.write_config(base, "autoencoder", text, "detail"), tmp_path, device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "autoencoder" / "log.jsonl").read_text().splitlines()]
    assert lines[0]["features"] > 0
    before, after = ModelBundle.load(trained), ModelBundle.load(tmp_path / "bundle")
    tile = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert torch.equal(before.encode(tile), after.encode(tile)) and after.has("denoiser")
    assert not torch.equal(before.decode(before.encode(tile)[None]), after.decode(after.encode(tile)[None]))


def test_fine_colour_costs_and_lightness_does_not():
    from ssl_tilegen.training.objectives.reconstruction import gradient_difference, opponent_colours

    even = torch.zeros(1, 3, 8, 8)
    checked = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 8, 8)
    grey, tinted = even + 0.1 * checked, even + 0.1 * checked * torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    cost = lambda image: float(gradient_difference(opponent_colours(image), opponent_colours(even)))  # noqa: E731
    assert cost(grey) == pytest.approx(0, abs=1e-6) and cost(tinted) == pytest.approx(
        0.2 * (1 / 2 + 1 / 4) / 2, abs=1e-6
    )


def test_a_file_of_weights_is_looked_for_beside_the_configuration(base):
    config = runs.write_config(base, "autoencoder", 'backbone = "test_efficientnet"\nbackbone_weights = "w.pth"\n', "w")
    assert load_stage_settings("autoencoder", config).anchored(base).backbone_weights == str(base / "w.pth")
    kept = load_stage_settings("autoencoder", config, ["backbone_weights=random"]).anchored(base)
    assert kept.backbone_weights == "random"


def test_a_critic_and_its_maker_leave_each_other_s_weights_alone():
    from ssl_tilegen.training.objectives.adversarial import PatchDiscriminator, adversarial_losses

    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8)
    made, real = torch.randn(2, 3, 32, 32, requires_grad=True), torch.randn(2, 3, 32, 32)
    generator_loss, discriminator_loss = adversarial_losses(discriminator, made, real)
    generator_loss.backward()
    assert (
        made.grad is not None and made.grad.abs().sum() > 0 and all(p.grad is None for p in discriminator.parameters())
    )
    made.grad = None
    discriminator_loss.backward()
    assert made.grad is None and all(p.grad is not None for p in discriminator.parameters())


def shrunken(tree: dict[str, Any], by: int) -> dict[str, Any]:
    """A network's configuration with ``by`` times fewer channels."""
    widths = [width // by for width in tree["block_out_channels"]]
    heads = {"attention_head_dim": [2] * len(widths)} if "attention_head_dim" in tree else {}
    return tree | heads | {"block_out_channels": widths, "norm_num_groups": 4}


def test_the_paper_s_networks_are_of_its_size_and_train_when_shrunken(base, tmp_path):
    tables = {stage: tomllib.loads((PAPER / f"{stage}.toml").read_text()) for stage in ("autoencoder", "denoiser")}
    with without_values():
        unet = build_component({"in_channels": 3, "out_channels": 3, "sample_size": 64, "encoder_hid_dim": 384,
                                "encoder_hid_dim_type": "text_proj", **tables["denoiser"]["net"]})  # fmt: skip
        codes = build_component(tables["autoencoder"]["net"])
    assert 3.5e8 < sum(p.numel() for p in unet.parameters()) < 4.5e8
    assert 5e7 < sum(p.numel() for p in codes.parameters()) < 6e7
    train("encoder", base / "encoder.toml", tmp_path, device="cpu")
    for stage, by in (("autoencoder", 16), ("denoiser", 24)):
        table = tables[stage]
        over = [f"net.{key}={json.dumps(value)}" for key, value in shrunken(table["net"], by).items()]
        over += ["run.steps=1", "run.batch=2", "run.warmup=0", "run.readers=1", "data.validation_share=0"]
        over += ['data.sources=[{paths=["p0.png"],mpp=0.5,turns=1}]']
        small = ["window_px=64", f"feature_bundle={tmp_path / 'bundle'}"]
        over += small if stage == "autoencoder" else ["window_lat=16"]
        config = base / f"paper-{stage}.toml"
        config.write_text((PAPER / f"{stage}.toml").read_text())
        train(stage, config, tmp_path, overrides=over, device="cpu")
    bundle = ModelBundle.load(tmp_path / "bundle")
    assert (bundle.factor, bundle.conditioning.is_field, bundle.prediction_type) == (4, False, "epsilon")
    assert painted(base, tmp_path).std() > 1
