"""What a denoiser is told of a training window: exactly what the generator will tell it of a window of a canvas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ssl_tilegen.diffusion.coarse_latents import LocalCondition
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.geometry import Window
from ssl_tilegen.nets.window import at_unit_length


class Told(Protocol):
    """(field, window, whether its layout is told) -> what the network is told; NaN is what it is not told."""

    def __call__(self, field: ConditionField, window: Window, *, layout: bool) -> Tensor: ...


def local_told(module: Any, layout_dim: int) -> LocalCondition:
    """For a local network: the field over the window, and the sketch if it takes one."""
    side = module.sketch_side
    return LocalCondition(module.field_stride, layout_dim, side, _unfolding(module) if side else None)


def _unfolding(module: Any) -> Callable[[Tensor], Tensor]:
    """The network's own ``unfold``, from a copy on the CPU that reading threads may use."""
    weight, bias, side = module.sketch.weight.clone(), module.sketch.bias.clone(), module.sketch_side
    return lambda vectors: nn.functional.linear(vectors, weight, bias).unflatten(-1, (-1, side, side))


@dataclass(frozen=True)
class CentreTold:
    """For a network that sees one window: the embedding (D,) at its centre. (Layout is part of that one vector.)"""

    unit_length: bool

    def __call__(self, field: ConditionField, window: Window, *, layout: bool) -> Tensor:
        centre = np.array([[window.row + window.rows / 2, window.col + window.cols / 2]])
        vector = field.vectors(centre)
        return (at_unit_length(vector) if self.unit_length else vector)[0]


def forgotten(told: Tensor) -> Tensor:
    """The same shape, nothing told."""
    return torch.full_like(told, torch.nan)
