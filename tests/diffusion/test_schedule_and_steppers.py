"""Ladders and updates against diffusers' schedulers and against a Gaussian solved in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler

from ssl_tilegen.diffusion.parameterization import PARAMETERIZATIONS, to_clean
from ssl_tilegen.diffusion.schedule import Schedule
from ssl_tilegen.diffusion.steppers import STEPPERS, stepper_named
from ssl_tilegen.errors import FormatError, SettingError
from tests.diffusion.toys import FLOW, Gaussian

SCHEDULES = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled": {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "zero snr": {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
}
SPACINGS = {"leading": {"steps_offset": 1}, "trailing": {}, "linspace": {}}


def config_of(scheduler) -> dict:
    return dict(scheduler.config) | {"_class_name": type(scheduler).__name__}


def raw_for(kind: str, x: torch.Tensor, clean: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """What a network of this prediction type would have said."""
    noise = (x - alpha * clean) / sigma
    return {"flow": noise - clean, "epsilon": noise, "v_prediction": alpha * noise - sigma * clean, "sample": clean}[
        kind
    ]


@pytest.mark.parametrize("kind", PARAMETERIZATIONS)
def test_every_prediction_type_gives_the_clean_estimate_back(kind):
    config = FLOW if kind == "flow" else {"beta_schedule": "scaled_linear"}
    step = Schedule.from_config(config, 10).step(4)
    x, clean = torch.randn(2, 1, 3, 4, 4, dtype=torch.float64)
    raw = raw_for(kind, x, clean, step.alpha, step.sigma)
    torch.testing.assert_close(to_clean(kind)(raw, x, step), clean)


@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rungs_are_those_of_diffusers_ddim(schedule, spacing, steps):
    theirs = DDIMScheduler(**SCHEDULES[schedule], timestep_spacing=spacing, **SPACINGS[spacing], set_alpha_to_one=True)
    theirs.set_timesteps(steps)
    ours = Schedule.from_config(config_of(theirs), steps)
    np.testing.assert_array_equal(ours.t[:-1], theirs.timesteps)
    np.testing.assert_allclose(ours.alpha[:-1] ** 2, theirs.alphas_cumprod[theirs.timesteps], rtol=3e-3, atol=1e-6)
    assert len(ours) == steps and ours.sigma[-1] == 0 and ours.alpha[-1] == 1
    assert (np.diff(ours.sigma) < 0).all()


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_and_ancestral_equal_diffusers_ddim(eta):
    theirs = DDIMScheduler(**SCHEDULES["scaled"], timestep_spacing="trailing", clip_sample=False)
    theirs.set_timesteps(10)  # it counts back by 1000 // steps, right only where that divides
    schedule, update = Schedule.from_config(config_of(theirs), 10), STEPPERS["ancestral" if eta else "ddim"]
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    for step, t in zip(schedule.steps(), theirs.timesteps, strict=True):
        clean, fresh = torch.randn(2, *x.shape, dtype=torch.float64)
        raw = raw_for("epsilon", x, clean, step.alpha, step.sigma)
        expected = theirs.step(raw, t, x, eta=eta, variance_noise=fresh if eta else None).prev_sample
        x = update.rule(x, clean, None, step) + update.fresh_noise(step) * fresh
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_ddim_on_a_flow_ladder_equals_diffusers_euler(shift):
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / 12, 12).tolist())
    schedule = Schedule.from_config(config_of(theirs), 12)
    np.testing.assert_allclose(schedule.t, theirs.sigmas, atol=1e-6)
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    for step, t in zip(schedule.steps(), theirs.timesteps, strict=True):
        clean = torch.randn_like(x)
        expected = theirs.step(raw_for("flow", x, clean, step.alpha, step.sigma), t, x).prev_sample
        x = STEPPERS["ddim"].rule(x, clean, None, step)
        torch.testing.assert_close(x, expected.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [5, 20])
def test_dpmpp_2m_equals_diffusers(steps):
    theirs = DPMSolverMultistepScheduler(
        **SCHEDULES["scaled"], timestep_spacing="trailing", final_sigmas_type="zero", algorithm_type="dpmsolver++",
        solver_order=2, solver_type="midpoint", lower_order_final=True,
    )  # fmt: skip
    theirs.set_timesteps(steps)
    schedule = Schedule.from_config(config_of(theirs), steps)
    x, previous = torch.randn(1, 3, 4, 4, dtype=torch.float64), None
    for step, t in zip(schedule.steps(), theirs.timesteps, strict=True):
        clean = torch.randn_like(x)
        expected = theirs.step(raw_for("epsilon", x, clean, step.alpha, step.sigma), t, x).prev_sample
        x = STEPPERS["dpmpp_2m"].rule(x, clean, previous, step)
        previous = clean
        torch.testing.assert_close(x, expected.double(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("steps", [2, 4, 10])
def test_plms_equals_diffusers(steps):
    """Its second level is visited twice there, too; the last step leads to the first training step."""
    theirs = PNDMScheduler(**SCHEDULES["scaled"], skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    theirs.set_timesteps(steps)
    schedule = Schedule.from_config(config_of(theirs) | {"last_alpha_bar": 0}, steps).starting_twice()
    np.testing.assert_array_equal(schedule.t[:-1], theirs.timesteps)
    update, x = STEPPERS["plms"], torch.randn(3, 4, 4, dtype=torch.float64)
    previous = torch.full((9, 4, 4), torch.nan, dtype=torch.float64)
    for step, t in zip(schedule.steps(), theirs.timesteps, strict=True):
        clean = torch.randn_like(x)
        expected = theirs.step(raw_for("epsilon", x, clean, step.alpha, step.sigma), t, x).prev_sample
        x, previous = update.rule(x, clean, previous, step), update.remember(x, clean, previous, step)
        torch.testing.assert_close(x, expected.double(), rtol=1e-4, atol=1e-4)


def test_plms_needs_some_signal_to_begin_with():
    with pytest.raises(SettingError, match="plms"):
        Schedule.from_config(FLOW, 4).starting_twice()


def walk(config: dict, name: str, steps: int, x: torch.Tensor, truth: Gaussian) -> tuple[torch.Tensor, Schedule]:
    schedule, update, previous = Schedule.from_config(config, steps), stepper_named(name), None
    for step in schedule.steps():
        clean = truth.clean(x, None, step)
        x = update.rule(x, clean, previous, step) + update.fresh_noise(step) * torch.randn_like(x)
        previous = clean
    return x, schedule


@pytest.mark.parametrize(
    "config", [FLOW, FLOW | {"shift": 3.0}, SCHEDULES["cosine"] | {"timestep_spacing": "trailing"}]
)
def test_the_flow_of_a_gaussian_is_found_and_looking_back_finds_it_sooner(config):
    truth, start, errors = Gaussian(), torch.linspace(-3, 3, 101, dtype=torch.float64), {}
    for name in ("ddim", "dpmpp_2m"):
        for steps in (20, 80):
            x, schedule = walk(config, name, steps, start, truth)
            exact = truth.flowed(start, schedule.alpha[0], schedule.sigma[0])
            errors[name, steps] = (x - exact).abs().max().item()
        assert errors[name, 80] < errors[name, 20] / 3  # first order or better
    assert errors["dpmpp_2m", 80] < 0.02
    assert all(errors["dpmpp_2m", steps] < errors["ddim", steps] / 2 for steps in (20, 80))


@pytest.mark.parametrize("config", [FLOW, SCHEDULES["cosine"] | {"timestep_spacing": "trailing"}])
def test_ancestral_sampling_gives_the_gaussian_itself(config):
    torch.manual_seed(0)
    x, _ = walk(config, "ancestral", 100, torch.randn(20_000, dtype=torch.float64), Gaussian())
    assert x.mean().item() == pytest.approx(0.7, abs=0.02)
    assert x.std().item() == pytest.approx(0.4, abs=0.02)


TIMES = [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(("times", "steps", "start", "expected"), [
    (TIMES, None, 1.0, TIMES),
    (TIMES, 2, 1.0, [1.0, 0.5]),
    (TIMES, 1, 1.0, [1.0]),
    (TIMES, 8, 1.0, [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
    ([1.0, 0.9, 0.4], 6, 1.0, [1.0, 0.95, 0.9, 0.65, 0.4, 0.2]),
    (TIMES, None, 0.5, [0.5, 0.25]),
    (TIMES, None, 0.6, [0.6, 0.3]),
    (TIMES, None, 0.1, [0.1]),
    (TIMES, 8, 0.5, [0.5, 0.375, 0.25, 0.125]),
    ([1.0, 0.9, 0.4], 3, 0.4, [0.4]),
])  # fmt: skip
def test_few_times_are_met_exactly_and_interpolated_for_other_steps(times, steps, start, expected):
    schedule = Schedule.at_times(FLOW | {"shift": 3.0}, times, steps, start)
    np.testing.assert_allclose(schedule.sigma, [*expected, 0.0], atol=1e-12)
    np.testing.assert_array_equal(schedule.t, schedule.sigma)
    np.testing.assert_allclose(schedule.alpha + schedule.sigma, 1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_other_schedules_take_the_trained_steps_nearest_to_the_times(schedule):
    schedule, every = Schedule.at_times(SCHEDULES[schedule], TIMES), Schedule.from_config(SCHEDULES[schedule], 1000)
    fractions = [step.noise_fraction for step in schedule.steps()]
    np.testing.assert_allclose(fractions[1:], TIMES[1:], atol=2e-3)
    assert schedule.t[0] == 999 and schedule.sigma[-1] == 0 and schedule.alpha[-1] == 1
    for t, alpha in zip(schedule.t[:-1].astype(int), schedule.alpha, strict=False):
        assert alpha == pytest.approx(every.alpha[999 - t])


@pytest.mark.parametrize("times", [[], [0.9, 0.5], [1.0, 0.5, 0.5], [1.0, 0.0], [1.0, 0.2, 0.3]])
def test_times_that_do_not_fall_from_1_are_refused(times):
    with pytest.raises(SettingError, match="times"):
        Schedule.at_times(FLOW, times)


def test_renoise_keeps_nothing_but_the_clean_estimate():
    step, update = Schedule.at_times(FLOW, TIMES).step(1), STEPPERS["renoise"]
    x, clean = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(update.rule(x, clean, None, step), 0.5 * clean)
    assert update.fresh_noise(step) == 0.5 and update.fresh_noise(Schedule.at_times(FLOW, TIMES).step(3)) == 0


def test_renoise_gives_the_gaussian_when_the_model_samples_it():
    """A few-step model's clean estimate is a sample of the data given x, not their mean."""
    torch.manual_seed(0)
    truth, schedule, update = Gaussian(), Schedule.at_times(FLOW, TIMES), STEPPERS["renoise"]
    x = torch.randn(40_000, dtype=torch.float64)
    for step in schedule.steps():
        spread = (truth.deviation**-2 + step.alpha**2 / step.sigma**2) ** -0.5
        clean = truth.clean(x, None, step) + spread * torch.randn_like(x)
        x = update.rule(x, clean, None, step) + update.fresh_noise(step) * torch.randn_like(x)
    assert x.mean().item() == pytest.approx(0.7, abs=0.02) and x.std().item() == pytest.approx(0.4, abs=0.02)


def test_a_tail_keeps_the_last_rungs_and_starts_in_first_order():
    schedule = Schedule.from_config(FLOW, 10)
    tail = schedule.tail(0.3)
    assert len(tail) == 3 and tail.sigma[0] == pytest.approx(0.3)
    assert tail.step(0).last_log_snr == -np.inf


@pytest.mark.parametrize(("config", "steps", "error", "says"), [
    (FLOW, 0, SettingError, "steps"),
    ({"beta_schedule": "linear"}, 1001, SettingError, "1000"),
    ({"beta_schedule": "exotic"}, 5, FormatError, "exotic"),
    ({"timestep_spacing": "odd"}, 5, FormatError, "odd"),
])  # fmt: skip
def test_bad_ladders_are_named(config, steps, error, says):
    with pytest.raises(error, match=says):
        Schedule.from_config(config, steps)


def test_noise_prediction_without_signal_is_refused():
    step = Schedule.from_config(SCHEDULES["zero snr"] | {"timestep_spacing": "trailing"}, 5).step(0)
    with pytest.raises(FormatError, match="epsilon"):
        to_clean("epsilon")(torch.ones(1), torch.ones(1), step)
    assert to_clean("v_prediction")(torch.ones(1), torch.zeros(1), step).item() == pytest.approx(-1)


def test_unknown_names_list_the_known():
    with pytest.raises(SettingError, match="dpmpp_2m"):
        stepper_named("euler")
    with pytest.raises(FormatError, match="v_prediction"):
        to_clean("magic")
