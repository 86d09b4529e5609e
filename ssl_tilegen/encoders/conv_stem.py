"""CTransPath's network (Wang et al. 2022): Swin-T whose patches are made by small convolutions."""

from __future__ import annotations

import timm
from torch import Tensor, nn

ARCHITECTURE = "swin_tiny_patch4_window7_224"
_WIDTH = 96


class ConvStem(nn.Module):
    """Images (N, 3, H, W) -> tokens (N, H / 4, W / 4, 96): two halving convolutions, one of 1 x 1, a norm."""

    def __init__(self, width: int = _WIDTH) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs, outputs = 3, width // 8
        for _ in range(2):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs, outputs = outputs, 2 * outputs
        self.proj = nn.Sequential(*layers, nn.Conv2d(inputs, width, 1))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> patches (N, rows, cols, C)."""
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


def build_ctranspath() -> nn.Module:
    """The network with random weights; (N, 3, 224, 224) -> (N, 768)."""
    network = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0)
    network.patch_embed = ConvStem()
    return network
