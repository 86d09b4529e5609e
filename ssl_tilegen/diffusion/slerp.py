"""Spherical interpolation of vectors: directions along the great circle, lengths linearly."""

from __future__ import annotations

import torch
from torch import Tensor

_STRAIGHT = 1e-3
"""Below this sine of the angle the arc is taken as straight (an error of 1e-7 when parallel)."""
_STRAIGHT_COSINE = 0.9995


def slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """From ``a`` (weight 0) to ``b`` (weight 1); a and b are (..., D), weight is (...), everything broadcasts.

    Shoemake 1985. Parallel vectors fall back to the straight line; opposite ones, which have no one arc, too; beside a
    zero vector the other keeps its direction. Never NaN for finite input.
    """
    tiny = torch.finfo(a.dtype).tiny
    weight = weight.double()  # sums in float64: in float32 their last bits depend on how many are made at once
    length_a, length_b = (torch.linalg.vector_norm(v, dim=-1, dtype=torch.float64) for v in (a, b))
    length = (1 - weight) * length_a + weight * length_b
    product = length_a * length_b
    of_a, of_b = _arc((a * b).sum(-1, dtype=torch.float64) / product.clamp_min(tiny), weight)
    zero = torch.minimum(length_a, length_b) <= tiny**0.5  # its weight would be more than the dtype holds
    of_a = torch.where(zero, 1 - weight, of_a * length / length_a.clamp_min(tiny))
    of_b = torch.where(zero, weight, of_b * length / length_b.clamp_min(tiny))
    return of_a.to(a.dtype).unsqueeze(-1) * a + of_b.to(b.dtype).unsqueeze(-1) * b


def raw_slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """As ``slerp``, but the arc's weights apply to the vectors as they are: other directions where lengths differ.

    As published samplers interpolate. Straight where the cosine is above 0.9995 in size.
    """
    tiny = torch.finfo(a.dtype).tiny
    weight = weight.double()
    length_a, length_b = (torch.linalg.vector_norm(v, dim=-1, dtype=torch.float64) for v in (a, b))
    cosine = (a * b).sum(-1, dtype=torch.float64) / (length_a * length_b).clamp_min(tiny)
    of_a, of_b = _arc(cosine, weight)
    straight = cosine.abs() > _STRAIGHT_COSINE
    of_a, of_b = torch.where(straight, 1 - weight, of_a), torch.where(straight, weight, of_b)
    return of_a.to(a.dtype).unsqueeze(-1) * a + of_b.to(b.dtype).unsqueeze(-1) * b


def _arc(cosine: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of two unit vectors in the one between them, of the angle's cosine; straight where it has no arc."""
    angle = torch.arccos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    bent = sine > _STRAIGHT
    divisor = torch.where(bent, sine, torch.ones_like(sine))
    first = torch.where(bent, torch.sin((1 - weight) * angle) / divisor, 1 - weight)
    second = torch.where(bent, torch.sin(weight * angle) / divisor, weight)
    return first, second
