"""A projected discriminator that sees the condition (Sauer et al. 2021; Miyato & Koyama 2018).

A frozen pretrained network turns an image into feature maps at several strides. On each sits a small head of
spectrally normalised convolutions that gives every place a logit. The part of the logit that depends on the condition
is the product of the head's features and a linear map of the condition there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm


class ProjectedDiscriminator(nn.Module):
    """Feature maps [(N, C_k, h_k, w_k)] and a condition (N, D, h, w) -> logits [(N, 1, h_k, w_k)].

    ``mean``, ``std`` (D,) are statistics of the condition. NaN in the condition stands for what the generator was not
    given. It counts as zero, and two mask channels (content, and layout: the last number) say that it is missing.
    Heads of fine maps are narrower than ``width``: most of the time would go into them.
    """

    keep_together = True  # called with other weights than its own, see `adversarial_losses`
    mean: Tensor
    std: Tensor

    def __init__(self, channels: Sequence[int], mean: Tensor, std: Tensor, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        widths = [max(min(16, width), min(width, width * (level + 1) // 3)) for level in range(len(channels))]
        pairs = zip(channels, widths, strict=True)
        self.heads = nn.ModuleList(_DiscriminatorHead(count, len(mean) + 2, wide) for count, wide in pairs)

    def forward(self, features: Sequence[Tensor], condition: Tensor) -> list[Tensor]:
        """Feature maps and conditions (N, D) -> logits of each head."""
        known = self._normalised(condition)
        return [head(maps, known) for head, maps in zip(self.heads, features, strict=True)]

    def _normalised(self, condition: Tensor) -> Tensor:
        """(N, D + 2, h, w) without NaN."""
        known = ~condition.isnan()
        scaled = (condition - self.mean[:, None, None]) / self.std[:, None, None]
        masks = (known[:, :1].to(scaled.dtype), known[:, -1:].to(scaled.dtype))
        return torch.cat([torch.where(known, scaled, 0.0), *masks], 1)


class _DiscriminatorHead(nn.Module):
    """Logits of one feature map."""

    def __init__(self, channels: int, condition_dim: int, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels, affine=False)
        self.enter = spectral_norm(nn.Conv2d(channels, width, 1))
        self.mix = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.logit = spectral_norm(nn.Conv2d(width, 1, 1))
        self.project = spectral_norm(nn.Conv2d(condition_dim, width, 1))
        self.act = nn.LeakyReLU(0.2)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        h = self.act(self.enter(self.norm(maps)))
        h = self.act(self.mix(h))
        asked = self.project(condition)  # at the condition's own size: both maps are linear
        asked = nn.functional.interpolate(asked, size=h.shape[-2:], mode="bilinear", align_corners=False)
        return self.logit(h) + (h * asked).mean(1, keepdim=True)


def adversarial_losses(
    discriminator: nn.Module, made: Sequence[Tensor], real: Sequence[Tensor], condition: Tensor
) -> tuple[Tensor, Tensor]:
    """(loss of the generator, loss of the discriminator) on feature maps of made and real images.

    The two may be added: neither gives the other's weights a gradient. The generator's is minus the logit of a
    discriminator whose weights stand still; the discriminator's is the hinge loss (Lim & Ye 2017). Both are means over
    the heads.
    """
    still = {name: value.detach() for name, value in discriminator.named_parameters()}
    of_made = functional_call(discriminator, still, (made, condition))
    generator = -torch.stack([logits.float().mean() for logits in of_made]).mean()
    fixed = discriminator([maps.detach() for maps in made], condition)
    pairs = zip(discriminator(real, condition), fixed, strict=True)
    hinge = [(1 - r.float()).relu().mean() + (1 + m.float()).relu().mean() for r, m in pairs]
    return generator, torch.stack(hinge).mean()
