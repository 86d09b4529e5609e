"""ConvNeXt (Liu et al. 2022) as timm has it, parameter for parameter, without timm's long import.

The same names, the same order of operations: a state dict of timm's fits, and gives the same numbers to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

DEPTHS, WIDTHS = (2, 2, 6, 2), (40, 80, 160, 320)  # of convnext_atto
_EPS = 1e-6


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) over its channels, position by position."""
        x = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNeXtAtto(nn.Module):
    """Images (N, 3, H, W), H and W at least 32 -> (N, ``features``)."""

    def __init__(self, features: int, ls_init_value: float = 1e-6) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 4, 4), LayerNorm2d(WIDTHS[0], eps=_EPS))
        before = (WIDTHS[0], *WIDTHS[:-1])
        stages = zip(before, WIDTHS, DEPTHS, strict=True)
        self.stages = nn.Sequential(*(_ConvNeXtStage(a, b, depth, ls_init_value) for a, b, depth in stages))
        self.head = _ConvNeXtHead(WIDTHS[-1], features)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> features (N, C)."""
        return self.head(self.stages(self.stem(images)))


class _ConvNeXtStage(nn.Module):
    def __init__(self, before: int, width: int, depth: int, scale: float) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if before != width:
            self.downsample = nn.Sequential(LayerNorm2d(before, eps=_EPS), nn.Conv2d(before, width, 2, 2))
        self.blocks = nn.Sequential(*(_ConvNeXtBlock(width, scale) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class _ConvNeXtBlock(nn.Module):
    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = LayerNorm2d(width, eps=_EPS)
        self.mlp = _Mlp(width)
        self.gamma = nn.Parameter(torch.full((width,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm(self.conv_dw(x))).mul(self.gamma.reshape(1, -1, 1, 1)) + x


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class _ConvNeXtHead(nn.Module):
    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(width, eps=_EPS)
        self.fc = nn.Linear(width, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x.mean((2, 3), keepdim=True)).flatten(1))
