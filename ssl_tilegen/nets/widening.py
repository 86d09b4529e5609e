"""The weights of a narrower `FieldUNet` in the shapes of a wider one, which computes the same (Chen et al. 2016).

New channels of the main path begin as zero: the weights that write them are zero, those that read them keep their
random values, so that both learn. Within a residual block it is the other way round. The root-mean-square norms are
over more channels then, of which the new ones are zero; their gains make up for it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_WRITERS = {"stem", "shrink", "grow", "join", "conv_out", "modulate"}
"""Layers that write into the main path, or scale and shift what was read of it."""
_OTHERS = {"conv_in", "norm", "norm_out", "out"}
"""Layers that read it."""


@torch.no_grad()
def widened_levels(weights: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` in the shapes of ``initial``, the first weights of a network no level of which is narrower.

    Tensors that one of the two lacks (blocks of a deeper network), and those that are no wider, stay as they are.
    """
    return {name: _placed(name, theirs, initial[name]) if _is_wider(name, theirs, initial.get(name)) else theirs
            for name, theirs in weights.items()}  # fmt: skip


def _is_wider(name: str, theirs: Tensor, own: Tensor | None) -> bool:
    on_path = (_WRITERS | _OTHERS).intersection(name.split("."))
    if own is None or not on_path or own.ndim != theirs.ndim or own.shape == theirs.shape:
        return False
    return all(ours >= other for ours, other in zip(own.shape, theirs.shape, strict=True))


def _placed(name: str, theirs: Tensor, own: Tensor) -> Tensor:
    layers = name.split(".")
    rows = _positions(len(theirs), len(own), parts=2 if "modulate" in layers else 1)
    if layers[-1] == "gain":
        wide = own * (len(theirs) / len(own)) ** 0.5
        wide[rows] = theirs * (len(theirs) / len(own)) ** 0.5
        return wide
    wide = torch.zeros_like(own) if _WRITERS.intersection(layers) else own.clone()
    if theirs.ndim == 1:
        wide[rows] = theirs
        return wide
    columns = _positions(theirs.shape[1], own.shape[1], parts=2 if "join" in layers else 1)
    if "conv_out" not in layers:  # what it reads is the main path, whose new channels are zero
        wide[rows] = own[rows]
    wide[rows[:, None], columns] = theirs
    return wide


def _positions(narrow: int, wide: int, parts: int) -> Tensor:
    """Where ``narrow`` channels, in ``parts`` equal groups, are among ``wide`` ones: the first of each group."""
    starts = torch.arange(parts)[:, None] * (wide // parts)
    return (starts + torch.arange(narrow // parts)).flatten()
