"""A residual block of a U-Net whose condition is a field."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_tilegen.nets.layers import ChannelNorm, Recomputable, modulated, silu_, zeroed


class FieldBlock(Recomputable):
    """Two 3 x 3 convolutions whose input is scaled and shifted by maps that a field gives.

    ``finer``: positions per sample of the field on each axis; ``growth``: how its samples are spread over them,
    ``bilinear``, which looks one sample further, or ``nearest``.
    """

    def __init__(self, channels: int, hidden: int, finer: int, growth: str = "bilinear") -> None:
        super().__init__()
        self.finer, self.growth = finer, growth
        self.norm = ChannelNorm(channels)
        self.modulate = zeroed(nn.Conv2d(hidden, 2 * channels, 1))
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.act = nn.SiLU()

    def compute(self, x: Tensor, modulation: Tensor) -> Tensor:  # type: ignore[override]
        """(N, C, H, W) and (N, hidden, H / finer, W / finer), or (N, hidden, 1, 1) of all alike -> (N, C, H, W)."""
        if not torch.is_grad_enabled():
            return self._in_place(x, modulation)
        scale, shift = self._grown(self.modulate(modulation)).chunk(2, 1)
        h = self.conv_in(self.act(modulated(self.norm(x), scale, shift)))
        return x + self.conv_out(self.act(h))

    def _in_place(self, x: Tensor, modulation: Tensor) -> Tensor:
        """The same for inference, with half the passes over memory: the gain joins the scale before that grows."""
        scale, shift = self.modulate(modulation).to(x.dtype).chunk(2, 1)
        scale = self._grown((1 + scale) * self.norm.gain.to(x.dtype)[:, None, None])
        shift, normal = self._grown(shift), x * self.norm.inverse_rms(x)
        h = shift.addcmul_(normal, scale) if shift.shape == x.shape else torch.addcmul(shift, normal, scale)
        return self.conv_out(silu_(self.conv_in(silu_(h)))).add_(x)

    def _grown(self, coarse: Tensor) -> Tensor:
        """A map at the resolution of x; where that is its own already, or one for all places, itself."""
        if self.finer == 1 or coarse.shape[2:] == (1, 1):
            return coarse
        how = {"mode": "bilinear", "align_corners": False} if self.growth == "bilinear" else {"mode": "nearest"}
        return nn.functional.interpolate(coarse, scale_factor=self.finer, **how)
