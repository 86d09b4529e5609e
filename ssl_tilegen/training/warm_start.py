"""Warm starts: the weights of another bundle's network as the first ones, and parts of it that stay as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_tilegen.errors import SettingError

_DECODING = ("decoder.", "synthesis.", "to_pixels.", "post_quant_conv.")
"""Parts of an autoencoder, ours or of diffusers, that make pixels of latents."""


@torch.no_grad()
def fill_what_fits(module: Any, weights: dict[str, Tensor], *, widen: bool = True) -> list[str]:
    """Copy another network's weights into ``module`` where names and shapes agree; a kernel with more inputs than
    theirs takes theirs as its first, and zeros. Statistics stay. Returns the names that did not fit.

    ``widen``: a network that knows how may take the weights of one of its class with fewer latent channels.
    """
    if widen and hasattr(module, "widened"):
        weights = module.widened(weights)
    left = []
    for name, parameter in module.named_parameters():
        theirs = weights.get(name)
        if theirs is None or theirs.shape[:1] != parameter.shape[:1] or theirs.ndim != parameter.ndim:
            left.append(name)
        elif theirs.shape == parameter.shape:
            parameter.copy_(theirs)
        elif theirs.ndim == 4 and theirs.shape[1] < parameter.shape[1] and theirs.shape[2:] == parameter.shape[2:]:
            parameter.zero_()
            parameter[:, : theirs.shape[1]] = theirs
        else:
            left.append(name)
    return left


def said_of_start(name: str, module: nn.Module, left: list[str]) -> str:
    """How many of a network's weights a warm start filled, and which it left as they begin."""
    sizes = {key: parameter.numel() for key, parameter in module.named_parameters()}
    total, missing = sum(sizes.values()), sum(sizes[key] for key in left)
    line = f"start_from {name}: took {total - missing:,} of {total:,} weights ({100 * (1 - missing / total):.1f} %)"
    if not left:
        return line
    shown = ", ".join(sorted(left, key=lambda key: -sizes[key])[:4])
    return (
        f"warning: {line}; {len(left)} of {len(sizes)} tensors begin anew ({shown}{', ...' if len(left) > 4 else ''})"
    )


def freeze_encoder(network: nn.Module, left: list[str]) -> None:
    """Only parameters that make pixels of latents learn; ``left`` are parameters that a warm start could not fill."""
    strange = [name for name in left if not name.startswith(_DECODING)]
    if strange:
        raise SettingError(
            f"train_only decoder: '{strange[0]}' does not fit the encoder of start_from; "
            "change only arguments of the decoder in [net]"
        )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(_DECODING))


def still_module(network: Any) -> None:
    """Every part of which no parameter learns works as in inference (no dropout)."""
    for part in network.children():
        if not any(p.requires_grad for p in part.parameters()):
            part.eval()
