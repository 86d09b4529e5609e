"""A sampler's state in files, so that a run that was stopped goes on to the same bits.

Each process saves the rows it owns in a file of its own; together they are the state, whatever the number of processes
that read it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ssl_tilegen.diffusion.canvas import Canvas, bands_of
from ssl_tilegen.diffusion.sampler import State
from ssl_tilegen.errors import FormatError
from ssl_tilegen.geometry import Window
from ssl_tilegen.system import atomic

FORMAT = 2


def save_state(path: Path, state: State, key: str, own: Window | None = None) -> None:
    """Write the rows ``own`` of a state (default: all) whole or not at all, beside those of the step before.

    The file is ``path`` with step index and first row. It holds a line of JSON, then x, then the history of the update
    rule, if any: raw float32, little-endian, in bands. ``key`` says which run it belongs to. See ``system.atomic``.
    """
    own = own or state.x.window
    piece = _StateFile(
        path.with_name(f"{path.name}.{state.step_index}.{own.row}"),
        key,
        state.step_index,
        own,
        state.x.channels,
        0 if state.previous is None else state.previous.channels // state.x.channels,
    )
    with atomic.writing(piece.file) as unfinished, unfinished.open("wb") as file:
        file.write(piece.header())
        for canvas in filter(None, (state.x, state.previous)):
            for band in bands_of(own, canvas.channels):
                file.write(canvas[band].contiguous().cpu().numpy().astype("<f4", copy=False).tobytes())


def drop_older_states(path: Path, step_index: int) -> None:
    """Remove states of other steps than this, once all processes have saved this one."""
    for file in path.parent.glob(f"{path.name}.*.*"):
        if file.name.split(".")[-2] != str(step_index):
            file.unlink(missing_ok=True)


def load_state(path: Path, state: State, key: str) -> bool:
    """Fill ``state`` from the latest step that all rows of its whole canvas were saved at; whether there is one."""
    cols, channels = (state.x.whole.col, state.x.whole.cols), state.x.channels
    pieces = [p for p in _pieces(path, key) if (p.window.col, p.window.cols) == cols and p.channels == channels]
    for step_index in sorted({piece.step_index for piece in pieces}, reverse=True):
        here = [piece for piece in pieces if piece.step_index == step_index]
        if _cover([piece.window for piece in here], state.x.whole):
            _fill(state, here)
            return True
    return False


@dataclass(frozen=True, slots=True)
class _StateFile:
    """One file: rows of a state."""

    file: Path
    key: str
    step_index: int
    window: Window
    channels: int
    previous: int
    """How many arrays of the shape of x lie behind it."""

    def header(self) -> bytes:
        """The first line of the file."""
        w = self.window
        # the file calls the index of the step "rung"
        facts = {"format": FORMAT, "key": self.key, "rung": self.step_index, "window": [w.row, w.col, w.rows, w.cols],
                 "channels": self.channels, "previous": self.previous}  # fmt: skip
        return json.dumps(facts).encode() + b"\n"

    def read(self, file: BinaryIO, canvas: Canvas) -> None:
        """The rows of the next array in the file that ``canvas`` holds."""
        for band in bands_of(self.window, canvas.channels):
            shape = (canvas.channels, band.rows, band.cols)
            raw = file.read(4 * prod(shape))
            if len(raw) != 4 * prod(shape):
                raise FormatError(f"{self.file} ends early: delete it to start afresh")
            shared = band.intersection(canvas.window)
            if shared is not None:
                rows = np.frombuffer(raw, dtype="<f4").reshape(shape)[:, *shared.within(band).slices]
                canvas[shared].copy_(torch.from_numpy(rows.copy()))


def _pieces(path: Path, key: str) -> Iterator[_StateFile]:
    for file in sorted(path.parent.glob(f"{path.name}.*.*")):
        with file.open("rb") as handle:
            facts = _header(handle, file)
        if facts["key"] == key:
            yield _StateFile(
                file, key, facts["rung"], Window(*facts["window"]), facts["channels"], int(facts["previous"])
            )


def _header(file: BinaryIO, path: Path) -> dict:
    try:
        header = json.loads(file.readline())
        version = header["format"]
    except (ValueError, KeyError, TypeError):
        raise FormatError(f"{path} is not a saved state of ours: delete it to start afresh") from None
    if version != FORMAT:
        raise FormatError(f"{path} has state format {version}, this version knows {FORMAT}: delete it")
    return header


def _cover(windows: list[Window], whole: Window) -> bool:
    """Whether bands of rows make up ``whole``."""
    row = whole.row
    for window in sorted(windows):
        row = max(row, window.row_end) if window.row <= row else row
    return row >= whole.row_end


def _fill(state: State, pieces: list[_StateFile]) -> None:
    if pieces[0].previous:
        state.previous = state.x.like(pieces[0].previous)
    for piece in pieces:
        if piece.window.intersection(state.x.window) is None:
            continue
        with piece.file.open("rb") as file:
            file.readline()
            for canvas in filter(None, (state.x, state.previous)):
                piece.read(file, canvas)
    state.step_index = pieces[0].step_index
