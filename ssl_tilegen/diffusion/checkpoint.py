"""A sampler's state in one file, so that a run that was stopped goes on to the same bits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.sampler import State
from ssl_tilegen.errors import FormatError

FORMAT = 1


def save_state(path: Path, state: State, key: str) -> None:
    """Write ``state`` whole or not at all (temporary file, fsync, rename); ``key`` says which run it belongs to.

    The file is a line of JSON, then x and, if kept, the previous clean estimate: raw float32, little-endian, in bands.
    """
    header = {"format": FORMAT, "key": key, "rung": state.rung, "window": _place(state.x),
              "channels": state.x.channels, "previous": state.previous is not None}  # fmt: skip
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        for canvas in filter(None, (state.x, state.previous)):
            _write(file, canvas)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def load_state(path: Path, state: State, key: str) -> bool:
    """Fill ``state`` from the file if it is there and belongs to this run; whether it did."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        header = _header(file, path)
        if header["key"] != key or header["window"] != _place(state.x) or header["channels"] != state.x.channels:
            return False
        _read(file, state.x, path)
        if header["previous"]:
            state.previous = state.x.like()
            _read(file, state.previous, path)
    state.rung = header["rung"]
    return True


def _header(file: BinaryIO, path: Path) -> dict:
    try:
        header = json.loads(file.readline())
        newer = header["format"] > FORMAT
    except (ValueError, KeyError, TypeError):
        raise FormatError(f"{path} is not a saved state of ours: delete it to start afresh") from None
    if newer:
        raise FormatError(f"{path} has state format {header['format']}, this version knows {FORMAT}: delete it")
    return header


def _place(canvas: Canvas) -> list[int]:
    window = canvas.window
    return [window.row, window.col, window.rows, window.cols]


def _write(file: BinaryIO, canvas: Canvas) -> None:
    for band in canvas.bands():
        file.write(canvas[band].contiguous().cpu().numpy().astype("<f4", copy=False).tobytes())


def _read(file: BinaryIO, canvas: Canvas, path: Path) -> None:
    for band in canvas.bands():
        view = canvas[band]
        raw = file.read(4 * view.numel())
        if len(raw) != 4 * view.numel():
            raise FormatError(f"{path} ends early: delete it to start afresh")
        view.copy_(torch.from_numpy(np.frombuffer(raw, dtype="<f4").reshape(view.shape).copy()))
