"""The files of a model that a command reads; nothing may be written into them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ssl_tilegen.bundle import BUILT_IN
from ssl_tilegen.bundle.hub import is_hub_name
from ssl_tilegen.system.outputs import Input


def model_inputs(model: str | Path, option: str = "the model") -> Iterator[Input]:
    """The folder of a bundle that is given by its path."""
    if str(model) not in BUILT_IN and not is_hub_name(model):
        yield Input(Path(model), option)


def encoder_inputs(encoder: str | None, weights: str | Path | None) -> Iterator[Input]:
    """An encoder's folder and weights."""
    if encoder and encoder.startswith("local-dir:"):
        yield Input(Path(encoder.removeprefix("local-dir:")), "--encoder")
    if weights:
        yield Input(Path(weights), "--weights")
