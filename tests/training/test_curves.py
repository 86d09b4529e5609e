"""Curves of a run's log."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from ssl_tilegen.training.curves import _read, _smoothed, draw_curves

PALE, INK = (176, 198, 226), (31, 78, 140)


def write_log(path, values, more=()):
    lines = [{"step": 10 * (i + 1), "loss": value} for i, value in enumerate(values)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *more]))
    return path


def pixels(path, colour):
    return int((np.asarray(Image.open(path).convert("RGB")) == colour).all(-1).sum())


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    assert _read(write_log(tmp_path / "a", [1.5, float("nan"), 1.0])) == {"loss": [(10, 1.5), (30, 1.0)]}


def test_long_curves_are_drawn_pale_under_their_running_mean(tmp_path):
    rng = np.random.default_rng(0)
    long, short = tmp_path / "long.png", tmp_path / "short.png"
    draw_curves(write_log(tmp_path / "a", list(rng.random(200))), long)
    draw_curves(write_log(tmp_path / "b", [1.0, 2.0, 0.5]), short)
    assert pixels(long, PALE) > 500 and pixels(long, INK) > 200
    assert pixels(short, PALE) == 0 and pixels(short, INK) > 200
    assert long.stat().st_size < 60 * 1024


def test_the_running_mean_keeps_a_straight_line():
    line = [(float(x), 2.0 * x + 1) for x in range(100)]
    assert np.allclose(_smoothed(line), line)


def test_every_value_has_a_panel(tmp_path):
    draw_curves(write_log(tmp_path / "a", [3.0, 2.0]), tmp_path / "one.png")
    draw_curves(write_log(tmp_path / "b", [3.0, 2.0], [{"step": 20, "psnr": 30.0}]), tmp_path / "two.png")
    assert Image.open(tmp_path / "two.png").width == 2 * Image.open(tmp_path / "one.png").width
    draw_curves(write_log(tmp_path / "c", []), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
