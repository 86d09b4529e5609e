"""Conditioning: from the grid of embeddings to a denoiser's input, the same in training and sampling.

A bundle brings its conditioning; the engine asks nothing else about the kind of its denoiser. It has two halves:

- **sampling**, here: ``sample(field, windows)`` reads the condition field (``diffusion.field``) and gives one array per
  window. It needs no weights, so data-loading threads and the sampler both call it.
- **encoding**, in the bundle's component ``conditioner`` (``nets.conditioner``): from such an array to the tokens that
  the network attends to. It holds the *null*, the tokens of a window without a condition, which is a tensor of the
  bundle and not always zero.

Two kinds exist, and published families are cases of them:

==================  ===================================  ===========================================  ===============
kind                sample (per window)                  encoded by                                   example
==================  ===================================  ===========================================  ===============
field               (D [+ coarse latents], h, w)         the local denoiser itself                    models/tiny
tokens, 1 cell      (1, D): the field at the centre      unit length; a linear layer in the U-Net     Large-Image-Diff.
 + constant token   the same                             a one-hot token behind it                    BRCA at 20x
tokens, k x k       (k k, D): the field at the centres   a table of positions                         PixCell-1024
                    of k x k equal parts, row by row     a small network with a magnification         ZoomLDM
==================  ===================================  ===========================================  ===============

**Landing.** ``quantum_lat`` says where windows may begin: anywhere (1), or at whole cells, so that each part of a
window is exactly one cell and nothing is interpolated. Samplers lay their windows at its multiples on the virtual
canvas, and training draws its windows there.

**Dropping.** NaN throughout is a dropped condition; ``dropped`` makes it, conditioners and local denoisers
understand it. Unconditional calls of guidance pass no condition at all and get the null.

**What comes back** of a network is cut to the latents' channels (``nets.window.predict``): models with a learned
variance return twice as many.

A bundle without ``conditioning`` in its ``bundle.json`` is older than this and gets the one that its ``locality`` and
``l2_condition`` mean, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ssl_tilegen.diffusion.coarse_latents import LocalCondition
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.errors import FormatError
from ssl_tilegen.geometry import Window


class ConditioningSpec(BaseModel):
    """``conditioning`` of ``bundle.json``.

    Args:
        kind: ``field`` for local denoisers, ``tokens`` for those that see one window.
        cells: Cells k on each side of a window, for ``tokens``.
        landing: Whether windows may begin ``anywhere`` or only at whole ``cells``.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["field", "tokens"] = "tokens"
    cells: int = Field(default=1, ge=1)
    landing: Literal["anywhere", "cells"] = "anywhere"


class Conditioning(Protocol):
    """The condition of windows; ``layout=False`` gives the content of cells without their layout."""

    @property
    def is_field(self) -> bool:
        """Whether the denoiser is local: any window, of any size, conditioned on a field over it."""
        ...

    @property
    def quantum_lat(self) -> int:
        """Windows begin at multiples of this many latents of the virtual canvas."""
        ...

    @property
    def layout_dim(self) -> int:
        """How many of a vector's last numbers are layout, where it is apart from content; else 0."""
        ...

    def sample(self, field: ConditionField, windows: Sequence[Window], *, layout: bool = True) -> Tensor:
        """The condition (N, ...) of N windows of one size."""
        ...


@dataclass(frozen=True)
class FieldConditioning:
    """For local denoisers: the field over each window, with coarse latents where the network takes them."""

    condition: LocalCondition
    quantum_lat: int
    is_field: bool = True

    @property
    def layout_dim(self) -> int:
        """How many of a vector's last numbers are layout."""
        return self.condition.layout_dim

    def sample(self, field: ConditionField, windows: Sequence[Window], *, layout: bool = True) -> Tensor:
        """Conditions (N, C, rows / stride, cols / stride) over windows of one size."""
        return torch.stack([self.condition(field, window, layout=layout) for window in windows])


@dataclass(frozen=True)
class TokenConditioning:
    """For denoisers of one window: the field at the centres of its ``cells`` x ``cells`` equal parts, row by row."""

    cells: int = 1
    quantum_lat: int = 1
    is_field: bool = False
    layout_dim: int = 0

    @classmethod
    def of(cls, spec: ConditioningSpec, window_lat: int) -> TokenConditioning:
        """As ``spec`` says, for windows of ``window_lat`` latents. Raises FormatError where cells do not divide it."""
        if spec.landing == "cells" and window_lat % spec.cells:
            raise FormatError(f"bundle.json: conditioning: {spec.cells} cells do not divide {window_lat} latents")
        return cls(spec.cells, window_lat // spec.cells if spec.landing == "cells" else 1)

    def sample(self, field: ConditionField, windows: Sequence[Window], *, layout: bool = True) -> Tensor:
        """(N, cells^2, D). Layout is part of a vector and never dropped."""
        parts = (np.arange(self.cells) + 0.5) / self.cells
        rows, cols = np.meshgrid(parts, parts, indexing="ij")
        place = np.stack([rows.ravel(), cols.ravel()], 1)
        corners = np.array([(w.row, w.col) for w in windows], dtype=np.float64)
        sizes = np.array([(w.rows, w.cols) for w in windows], dtype=np.float64)
        positions = corners[:, None] + place[None] * sizes[:, None]
        return field.vectors(positions.reshape(-1, 2)).unflatten(0, (len(windows), -1))


def dropped(condition: Tensor) -> Tensor:
    """A dropped condition of the same shape."""
    return torch.full_like(condition, torch.nan)
