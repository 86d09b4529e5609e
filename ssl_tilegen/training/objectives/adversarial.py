"""A patch discriminator, and both sides of its game in one backward pass."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call

_LEVELS = 3


class PatchDiscriminator(nn.Module):
    """Says of every patch how real it looks: (N, 3, H, W) -> (N, 1, h, w) (Isola et al. 2017), normalised per position
    group by group, never over the batch."""

    keep_together = True  # the generator's side calls it with other weights than its own

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for level in range(1, _LEVELS):
            wide = width * 2**level
            layers += [nn.Conv2d(wide // 2, wide, 4, 2, 1), nn.GroupNorm(min(8, wide), wide), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width * 2 ** (_LEVELS - 1), 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> a logit per patch (N, 1, h, w)."""
        return self.layers(images)


def adversarial_losses(discriminator: nn.Module, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """(loss of the generator, loss of the discriminator), which may be added: neither gives the other's weights a
    gradient.

    The generator's is minus the score of a discriminator whose weights stand still; the discriminator's is the hinge
    loss on images that stand still (Lim & Ye 2017).
    """
    still = {
        name: value.detach() for name, value in [*discriminator.named_parameters(), *discriminator.named_buffers()]
    }
    generator_loss = -functional_call(discriminator, still, (made,)).mean()
    discriminator_loss = (1 - discriminator(real)).relu().mean() + (1 + discriminator(made.detach())).relu().mean()
    return generator_loss, discriminator_loss
