"""What the engine asks of a model, and the two small callables that cross its borders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Progress = Callable[[float, float], None]
"""``progress(done, total)``: called now and then, never from another thread; units are the callee's to ignore."""


class Model(Protocol):
    """A denoiser and its decoder (``bundle.ModelBundle`` is one). All lengths are in latents.

    ``locality`` is ``local`` for a convolutional denoiser of finite reach, whose condition is a field sampled once per
    ``field_stride_lat`` latents, or ``window`` for one that sees exactly ``window_lat`` x ``window_lat`` latents and
    one condition vector. A network that computes on blocks of latents needs its input's corner at a multiple of
    ``align_lat``; ``halo_lat`` of context make a piece of a local pass equal to the same piece of the whole.
    ``decoder_halo_lat`` is None for a decoder without finite reach.
    """

    locality: Literal["local", "window"]
    window_lat: int
    halo_lat: int
    align_lat: int
    field_stride_lat: int
    latent_channels: int
    factor: int
    decoder_halo_lat: int | None
    scheduler_config: Mapping[str, Any]
    prediction_type: str
    device: torch.device

    def predict(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Raw prediction (N, C, h, w) for noisy latents (N, C, h, w) at times (N,); no condition = unconditional."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) -> pixels (N, 3, factor * h, factor * w) in about [-1, 1]."""
        ...
