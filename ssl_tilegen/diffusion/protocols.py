"""What the engine asks of a model, and the two small callables that cross its borders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ssl_tilegen.diffusion.coarse_latents import LocalCondition

Progress = Callable[[float, float], None]
"""``progress(done, total)``: called now and then, never from another thread; units are the callee's to ignore."""


class Model(Protocol):
    """A denoiser and its decoder (``bundle.ModelBundle`` is one). All lengths are in latents."""

    @property
    def locality(self) -> Literal["local", "window"]:
        """``local``: a convolution of finite reach, conditioned on a field. ``window``: sees exactly one window of
        ``window_lat`` x ``window_lat`` latents, conditioned on the field at its centre."""
        ...

    @property
    def window_lat(self) -> int:
        """Side of the windows it was trained on."""
        ...

    @property
    def halo_lat(self) -> int:
        """Context to each side that makes a piece of a local pass equal to that piece of the whole."""
        ...

    @property
    def align_lat(self) -> int:
        """A local pass starts at multiples of this on the virtual canvas (it computes on blocks of latents)."""
        ...

    @property
    def field_stride_lat(self) -> int:
        """Latents per sample of the condition field of a local pass, on each axis."""
        ...

    @property
    def local_condition(self) -> LocalCondition:
        """How a local model is told of a window."""
        ...

    @property
    def latent_channels(self) -> int: ...

    @property
    def factor(self) -> int:
        """Pixels per latent on each axis."""
        ...

    @property
    def decoder_halo_lat(self) -> int | None:
        """Context to each side that makes a decoded piece exact; None for a decoder without finite reach."""
        ...

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The ``scheduler_config.json`` of the bundle."""
        ...

    @property
    def prediction_type(self) -> str:
        """A key of ``prediction.PREDICTIONS``."""
        ...

    @property
    def device(self) -> torch.device: ...

    def predict(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Raw prediction (N, C, h, w) for noisy latents (N, C, h, w) at times (N,); no condition = unconditional."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) -> pixels (N, 3, factor * h, factor * w) in about [-1, 1]."""
        ...
