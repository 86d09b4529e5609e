"""How strong fine detail is in images, scale by scale, and how its colours go with its lightness."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_tilegen.training.objectives.reconstruction import opponent_colours

_SCALES = 4
_BLOCK_PX = 32  # of the finest band; half of it in the next, and so on
_LEAST_SIDE = 8
_FLOOR = 6e-5  # of the mean square, in images of [-1, 1]: a deviation of 1 of 255 grey levels
_BLUR = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def detail_difference(made: Tensor, real: Tensor) -> Tensor:
    """How far the detail of images (N, 3, H, W) in [-1, 1] differs in blocks of 32 px, per item: (N,).

    The bands of a Laplacian pyramid (Burt and Adelson 1983) of lightness and two opponent colours are compared, not
    place by place: the squared difference of the logarithms of their deviations, and that of the correlations of both
    colours with lightness; the mean over bands and blocks. What minimises a square is a mean, so that detail is on
    average as strong as in real images, where losses of absolute differences leave it weaker.
    """
    costs = []
    for own, other in zip(_bands(made.float()), _bands(real.float()), strict=True):
        (energy, together), (real_energy, real_together) = _statistics(own), _statistics(other)
        of_strength = (energy.log() - real_energy.log()).square().mean((1, 2, 3)) / 4
        costs.append(of_strength + (together - real_together).square().mean((1, 2, 3)))
    return torch.stack(costs).mean(0)


def _bands(image: Tensor) -> list[tuple[Tensor, int]]:
    """Bands (N, 3, h, w) of lightness and two colours, from fine to coarse, and the side of a block in them."""
    planes, bands = torch.cat([image.mean(1, keepdim=True), opponent_colours(image)], 1), []
    for scale in range(_SCALES):
        if min(planes.shape[2:]) <= len(_BLUR):
            break
        smooth = _smoothed(planes)
        bands.append((planes - smooth, min(max(_BLOCK_PX >> scale, _LEAST_SIDE), *planes.shape[2:])))
        planes = smooth[:, :, ::2, ::2]
    return bands


def _smoothed(planes: Tensor) -> Tensor:
    kernel = torch.tensor(_BLUR, device=planes.device).expand(planes.shape[1], 1, -1)
    padded = nn.functional.pad(planes, (2, 2, 2, 2), mode="reflect")
    along = nn.functional.conv2d(padded, kernel[:, :, None], groups=planes.shape[1])
    return nn.functional.conv2d(along, kernel[..., None], groups=planes.shape[1])


def _statistics(band: tuple[Tensor, int]) -> tuple[Tensor, Tensor]:
    """Mean squares (N, 3, h, w) of a band in blocks, and correlations of both colours with lightness (N, 2, h, w)."""
    planes, block = band
    energy = nn.functional.avg_pool2d(planes.square(), block) + _FLOOR
    shared = nn.functional.avg_pool2d(planes[:, :1] * planes[:, 1:], block)
    return energy, shared * (energy[:, :1] * energy[:, 1:]).rsqrt()
