"""The interface that the engine requires of a model, and two callbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from ssl_tilegen.diffusion.conditioning import Conditioning

StepProgress = Callable[[float, float], None]
"""``progress(done, total)``: called now and then, never from another thread; units are the callee's to ignore."""


class Model(Protocol):
    """A denoiser and its decoder (``bundle.ModelBundle`` is one). All lengths are in latents."""

    @property
    def conditioning(self) -> Conditioning:
        """Condition of a window, and where windows may begin. With a field it is a convolution of finite reach
        that may be run over any canvas; with tokens it sees exactly one window of ``window_lat`` x ``window_lat``."""
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
    def latent_channels(self) -> int:
        """Channels of a latent."""
        ...

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
        """A key of ``parameterization.PARAMETERIZATIONS``."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        ...

    def predict(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Raw prediction (N, C, h, w) for noisy latents (N, C, h, w) at times (N,); no condition = unconditional."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) -> pixels (N, 3, factor * h, factor * w) in about [-1, 1]."""
        ...
