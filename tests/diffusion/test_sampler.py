"""The loop: guidance, canvases in memory and on disk, stopping and going on."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.guidance import guided
from ssl_tilegen.diffusion.sampler import State, fill_with_noise, noise_at, run
from ssl_tilegen.diffusion.sampler_state import drop_older_states, load_state, save_state
from ssl_tilegen.diffusion.schedule import Schedule
from ssl_tilegen.diffusion.stack import sample_stack
from ssl_tilegen.diffusion.steppers import STEPPERS
from ssl_tilegen.errors import FormatError, OutputError
from ssl_tilegen.geometry import Window
from tests.diffusion.toys import FLOW, Gaussian

SCHEDULE = Schedule.from_config(FLOW, 12)
PLACE = Window(-5, 3, 30, 70)


def gaussian_denoiser(x, step, out, tick):
    out.data.copy_(Gaussian().clean(x.data, None, step))
    tick(1.0)


def walked(state: State, name: str, **more):
    """``state`` walked down the schedule by the update rule of that name."""
    return run(state, SCHEDULE, gaussian_denoiser, STEPPERS[name], noise=noise_at(state.x, 4), **more)


def started(**kind) -> State:
    x = Canvas(PLACE, 2, **kind)
    fill_with_noise(x, seed=4)
    return State(x)


@pytest.mark.parametrize("name", STEPPERS)
def test_a_mapped_canvas_gives_the_same_bits(name, tmp_path):
    in_memory, mapped = (walked(started(**kind), name) for kind in ({}, {"scratch": tmp_path}))
    assert torch.equal(in_memory.data, mapped.data) and not list(tmp_path.iterdir())


def test_the_loop_finds_the_gaussian_and_reports_progress():
    seen, state = [], started()
    start = state.x.data.clone()
    x = walked(state, "dpmpp_2m", progress=lambda done, of: seen.append(done / of))
    torch.testing.assert_close(x.data, Gaussian().flowed(start, 0, 1), atol=0.06, rtol=0)
    assert seen == sorted(seen) and seen[-1] == 1 and len(seen) == 24


@pytest.mark.parametrize("name", STEPPERS)
def test_a_stack_is_walked_as_canvases_are(name):
    """The first image of a stack is the canvas itself, from the same noise."""
    x = started().x
    noise = lambda window, stream: torch.stack([noise_at(x, seed)(window, stream) for seed in (4, 5)])  # noqa: E731
    first = noise(PLACE, 0)
    stack = sample_stack(
        first, SCHEDULE, lambda x, cond, step: Gaussian().clean(x, cond, step), torch.zeros(2), STEPPERS[name],
        window=PLACE, noise=noise,
    )  # fmt: skip
    alone = walked(started(), name).data
    torch.testing.assert_close(stack[0], alone)
    assert not torch.equal(stack[1], stack[0]) and torch.equal(first[0], started().x.data)


def test_a_rule_that_adds_noise_asks_where_it_comes_from():
    with pytest.raises(ValueError, match="adds noise"):
        sample_stack(torch.zeros(1, 2, 4, 4), SCHEDULE, lambda x, cond, step: x, torch.zeros(1), STEPPERS["ancestral"])


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("name", STEPPERS)
@pytest.mark.parametrize("stop_after", [1, 5, 11])
def test_a_stopped_run_goes_on_to_the_same_bits(name, stop_after, tmp_path):
    file = tmp_path / "state"

    def stop(state: State) -> None:
        save_state(file, state, "key")
        drop_older_states(file, state.step_index)
        if state.step_index == stop_after:
            raise StoppedError

    straight = walked(started(), name)
    with pytest.raises(StoppedError):
        walked(started(), name, checkpoint=stop)
    state = State(Canvas(PLACE, 2))
    assert load_state(file, state, "key") and state.step_index == stop_after
    assert torch.equal(walked(state, name).data, straight.data)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_state_of_another_run_is_not_taken_and_a_broken_one_is_named(tmp_path):
    file = tmp_path / "state"
    save_state(file, started(), "key")
    assert not load_state(file, started(), "other")
    assert not load_state(file, State(Canvas(PLACE.shifted(1, 0), 2)), "key")
    assert not load_state(tmp_path / "absent", started(), "key")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(FormatError, match="ends early"):
        load_state(tmp_path / "state", started(), "key")
    file.write_bytes(b"rubbish\n")
    with pytest.raises(FormatError, match="not a saved state"):
        load_state(tmp_path / "state", started(), "key")


def test_bands_saved_by_many_are_one_state_for_any_number(tmp_path):
    """Three files of one rung, two of the next: the complete rung is taken, and a part of the canvas reads its part."""
    state, file = started(), tmp_path / "state"
    state.step_index, state.previous = 4, state.x.like()
    state.previous.data.normal_()
    cuts = [PLACE.row, PLACE.row + 5, PLACE.row + 11, PLACE.row_end]
    rows = [Window(a, PLACE.col, b - a, PLACE.cols) for a, b in pairwise(cuts)]
    for own in rows:
        save_state(file, state, "key", own)
    state.step_index = 5
    for own in rows[:2]:
        save_state(file, state, "key", own)
    state.step_index = 4
    held = Window(PLACE.row + 3, PLACE.col, 10, PLACE.cols)
    part = State(Canvas(held, 2, whole=PLACE))
    assert load_state(file, part, "key") and part.step_index == 4
    assert torch.equal(part.x.data, state.x[held]) and torch.equal(part.previous.data, state.previous[held])
    state.step_index = 5
    save_state(file, state, "key", rows[2])
    assert load_state(file, part, "key") and part.step_index == 5
    drop_older_states(file, 5)
    assert len(list(tmp_path.iterdir())) == 3


class Recorder:
    def __init__(self):
        self.conds = []

    def __call__(self, x, cond, step):
        self.conds.append(cond)
        return x * 0 if cond is None else x * 0 + 1


@pytest.mark.parametrize(("weight", "interval", "calls", "value"), [
    (1.0, (0, 1), 1, 1.0),
    (3.0, (0, 1), 2, 3.0),
    (0.0, (0, 1), 2, 0.0),
    (3.0, (0, 0.4), 1, 1.0),
    (3.0, (0.4, 0.6), 2, 3.0),
])  # fmt: skip
def test_guidance_calls_twice_only_where_it_acts(weight, interval, calls, value):
    step, net = SCHEDULE.step(6), Recorder()  # half noise
    out = guided(net, weight, interval)(torch.ones(2, 1, 3, 3), torch.ones(2, 4), step)
    assert len(net.conds) == calls and (out == value).all()


def test_a_scratch_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="file"):
        Canvas(PLACE, 2, scratch=tmp_path / "file")


@pytest.mark.parametrize("window", [Window(-70, 5, 200, 3000), Window(1, 0, 1, 1), Window(0, 0, 128, 2000)])
def test_bands_cover_once_and_break_between_noise_blocks(window):
    bands = list(Canvas(window, 16).bands())
    assert bands[0].row == window.row and bands[-1].row_end == window.row_end
    assert all(a.row_end == b.row and b.row % 64 == 0 for a, b in pairwise(bands))
    assert all((band.col, band.cols) == (window.col, window.cols) for band in bands)


def test_canvas_knows_its_place():
    canvas = Canvas(PLACE, 2, core=PLACE.grown(-2))
    canvas[Window(-5, 3, 1, 1)].fill_(7)
    assert canvas.data[0, 0, 0] == 7 and canvas.like().core == canvas.core
    assert sum(band.size.area for band in canvas.bands()) == PLACE.size.area
    with pytest.raises(ValueError, match="not inside"):
        canvas[Window(-6, 3, 1, 1)]
