"""Calling a denoiser, whatever its kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def is_local(module: Any) -> bool:
    """Whether a denoiser is a convolution of finite reach conditioned on a field."""
    return hasattr(module, "field_stride")


def predict(
    module: Any, x: Tensor, t: Tensor, condition: Tensor | None, conditioner: Any = None, *, time_scale: float = 1.0
) -> Tensor:
    """Raw prediction (N, C, h, w) of any denoiser for noisy latents (N, C, h, w) at times t (N,).

    Args:
        module: The denoiser.
        x: Noisy latents.
        t: Times; networks that see one window count them in units of 1 / ``time_scale``.
        condition: What ``Conditioning.sample`` gives; NaN throughout, or None, is a dropped one.
        conditioner: For networks that see one window: makes the tokens of a condition (``nets.conditioner``).
        time_scale: See ``t``.

    """
    if is_local(module):
        return module(x.contiguous(memory_format=torch.channels_last), t, condition)
    tokens = conditioner.unconditional(len(x)) if condition is None else conditioner(condition)
    return attend(module, x, t * time_scale, tokens)


def attend(module: Any, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
    """Raw prediction (N, C, h, w) of a network that attends to tokens (N, T, E).

    A network with a learned variance returns twice the channels, of which the first half is the prediction.
    """
    return module(x, timestep=t, encoder_hidden_states=tokens).sample[:, : x.shape[1]]
