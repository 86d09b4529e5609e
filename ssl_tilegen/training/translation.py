"""A warm start across encoders: a linear map between their vectors, put before a denoiser's first layer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.encoders.bundle_encoder import encoder_of

_BATCH = 256
_RIDGE = 1e-3


@torch.no_grad()
def translated_weights(
    weights: dict[str, Tensor], theirs: ModelBundle, ours: ModelBundle, tiles: np.ndarray, mean: Tensor, std: Tensor
) -> dict[str, Tensor]:
    """The weights of a local denoiser for the vectors of another encoder.

    A ridge regression from our normalised vectors to theirs, on the same tiles, is folded into ``condition_in``. The
    coarse latents (``sketch``) are left out: they are fitted to our vectors in closed form.

    Args:
        weights: State dict of their ``FieldUNet``.
        theirs: The bundle that the weights come from.
        ours: The bundle whose encoder will give the vectors.
        tiles: uint8 (N, tile, tile, 3), some thousands.
        mean: Mean (D,) of our vectors.
        std: Standard deviation (D,) of our vectors.
    """
    asked, given = (_vectors(bundle, tiles) for bundle in (theirs, ours))
    asked = (asked - weights["condition_mean"]) / weights["condition_std"]
    given = torch.cat([(given - mean) / std, torch.ones(len(given), 1)], 1).double()
    ridge = _RIDGE * len(given) * torch.eye(given.shape[1], dtype=torch.double)
    solution = torch.linalg.solve(given.T @ given + ridge, given.T @ asked)
    turn, shift = solution[:-1].T, solution[-1]  # asked = turn @ given + shift
    first = weights["condition_in.weight"][:, :, 0, 0].double()
    null = torch.linalg.lstsq(turn, (weights["null"].double() - shift)[:, None]).solution[:, 0]
    kept = {name: value for name, value in weights.items() if not name.startswith("sketch.")}
    return kept | {
        "condition_in.weight": (first @ turn).float()[:, :, None, None],
        "condition_in.bias": weights["condition_in.bias"] + (first @ shift).float(),
        "null": null.float(),
    }


def _vectors(bundle: ModelBundle, tiles: np.ndarray) -> Tensor:
    encoder = encoder_of(bundle, batch=_BATCH)
    parts = [encoder.embed(tiles[first : first + _BATCH]) for first in range(0, len(tiles), _BATCH)]
    return torch.from_numpy(np.concatenate(parts)).double()
