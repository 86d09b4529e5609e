"""Calling a denoiser, whatever its kind; the condition of networks that see one window."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def is_local(module: Any) -> bool:
    """Whether a denoiser is a convolution of finite reach conditioned on a field."""
    return hasattr(module, "field_stride")


def predict(module: Any, x: Tensor, t: Tensor, told: Tensor | None, *, dim: int, time_scale: float = 1.0) -> Tensor:
    """Raw prediction (N, C, h, w) of any denoiser for noisy latents at times t (N,).

    ``told``: a field for local networks, vectors (N, ``dim``) for the others, which count times in units of
    1 / ``time_scale`` and take the vector as one token.
    """
    if is_local(module):
        return module(x.contiguous(memory_format=torch.channels_last), t, told)
    return module(x, t * time_scale, tokens(x, told, dim)).sample


def tokens(x: Tensor, vectors: Tensor | None, dim: int) -> Tensor:
    """Vectors (N, D) as one token each (N, 1, D); the zero vector is the unconditional token, and stands for NaN."""
    if vectors is None:
        return torch.zeros(len(x), 1, dim, device=x.device)
    return torch.where(vectors.isnan(), 0.0, vectors)[:, None]


def at_unit_length(vectors: Tensor) -> Tensor:
    """(N, D) -> (N, D)."""
    return nn.functional.normalize(vectors, dim=-1)
