"""Spherical interpolation of vectors: directions along the great circle, lengths linearly."""

from __future__ import annotations

import torch
from torch import Tensor

_STRAIGHT = 1e-3
"""Below this sine of the angle the arc is taken as straight (an error of 1e-7 when parallel)."""


def slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """From ``a`` (weight 0) to ``b`` (weight 1); a and b are (..., D), weight is (...), everything broadcasts.

    Shoemake 1985. Parallel vectors fall back to the straight line; opposite ones, which have no one arc, too; a zero
    vector takes the other's direction. Never NaN for finite input.
    """
    length_a, length_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    w = weight.unsqueeze(-1)
    unit_a, unit_b = _unit(a, length_a, b, length_b), _unit(b, length_b, a, length_a)
    angle = torch.arccos((unit_a * unit_b).sum(-1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    bent = sine > _STRAIGHT
    divisor = torch.where(bent, sine, torch.ones_like(sine))
    of_a = torch.where(bent, torch.sin((1 - w) * angle) / divisor, 1 - w)
    of_b = torch.where(bent, torch.sin(w * angle) / divisor, w.expand_as(sine))
    return (of_a * unit_a + of_b * unit_b) * ((1 - w) * length_a + w * length_b)


def _unit(vector: Tensor, length: Tensor, other: Tensor, other_length: Tensor) -> Tensor:
    """Direction of ``vector``, or of ``other`` where it is zero, or zero where both are."""
    tiny = torch.finfo(vector.dtype).tiny
    return torch.where(length > tiny, vector / length.clamp_min(tiny), other / other_length.clamp_min(tiny))
