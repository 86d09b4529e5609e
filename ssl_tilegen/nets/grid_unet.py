"""A prior of grids whose vectors have a layout part: a U-Net that sees inside the cells.

The layout part of a vector is a coarse image of its tile in principal components. A network that takes it as so many
numbers has to learn an edge anew for every place in a cell, and does not know that a road goes on in the next cell.
Here the layout parts of all cells are laid out as one coarse image, and a U-Net of finite reach goes from positions
inside the cells up to whole cells, where content and validity join, and back. As of `GridPrior`, the condition is a
field, and a grid of any size is one convolution.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ssl_tilegen.errors import FormatError
from ssl_tilegen.nets.configurable import register_to_config
from ssl_tilegen.nets.field_block import FieldBlock
from ssl_tilegen.nets.layers import ChannelNorm, zeroed
from ssl_tilegen.nets.prior_base import CellNetwork


class GridUNet(CellNetwork):
    """Cells of ``layout_dim`` components of a coarse image of ``layout_px`` x ``layout_px``; ``widths`` from the finest
    level to that of whole cells: with three, the finest has 4 x 4 positions in a cell.

    ``layout_basis`` (L, 3 * layout_px ** 2) are the components as unit vectors, and ``layout_gain`` (L,) what turns
    the numbers that the network sees into true ones, at unit scale: see ``set_layout``. The network sees both images,
    the whitened one, in which noise is white, and the true one, which goes on across the borders of cells. It is told
    of joints, so that it does not learn from small images laid side by side that what is seen ends at cells.
    """

    _supports_gradient_checkpointing = True
    edge_layers = ("stem", "content_in", "out", "content_out", "time_in", "condition_in")
    layout_basis: Tensor
    layout_gain: Tensor

    @register_to_config
    def __init__(
        self,
        dim: int = 128,
        layout_dim: int = 64,
        layout_px: int = 16,
        condition_dim: int = 8,
        labels: int = 0,
        widths: tuple[int, ...] = (64, 128, 208),
        down_blocks: tuple[int, ...] = (1, 1, 2),
        up_blocks: tuple[int, ...] = (2, 2),
        hidden: int = 96,
        time_features: int = 64,
    ) -> None:
        super().__init__()
        levels = len(widths)
        self._finest = 2 ** (levels - 1)
        if not 0 < layout_dim < dim or len(down_blocks) != levels or len(up_blocks) != levels - 1:
            raise FormatError("GridUNet: give down_blocks for each width, up_blocks for all but the last, and a "
                              "layout_dim within dim")  # fmt: skip
        if layout_px % self._finest:
            raise FormatError(f"GridUNet: {levels} widths need a layout_px that is a multiple of {self._finest}")
        channels = self._add_statistics(dim, condition_dim, labels)
        self._content, self._layout, self._px = dim - layout_dim, layout_dim, layout_px
        self._fold = layout_px // self._finest
        reach = 2 + sum(2 * (d + u) * 2**i for i, (d, u) in enumerate(zip(down_blocks, (*up_blocks, 0), strict=True)))
        self._halo = -(-reach // self._finest) + 1
        self.register_buffer("layout_basis", torch.zeros(layout_dim, 3 * layout_px**2))
        self.register_buffer("layout_gain", torch.ones(layout_dim))
        self._add_modulation(condition_dim, hidden, time_features)
        self.stem = nn.Conv2d(6 * self._fold**2 + 1, widths[0], 3, padding=1)
        self.content_in = nn.Conv2d(channels - layout_dim, widths[-1], 1)
        finer = [2 ** (levels - 1 - level) for level in range(levels)]
        sizes = list(zip(widths, finer, strict=True))
        self.down: Any = nn.ModuleList(_stack(w, n, hidden, f) for (w, f), n in zip(sizes, down_blocks, strict=True))
        self.up: Any = nn.ModuleList(_stack(w, n, hidden, f) for (w, f), n in zip(sizes[:-1], up_blocks, strict=True))
        pairs = list(pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, 2) for fine, coarse in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in pairs)
        self.join = nn.ModuleList(nn.Conv2d(2 * fine, fine, 1) for fine, _ in pairs)
        self.norm_content = ChannelNorm(widths[-1])
        self.content_out = zeroed(nn.Conv2d(widths[-1], channels - layout_dim, 1))
        self.norm_out = ChannelNorm(widths[0])
        self.out = zeroed(nn.Conv2d(widths[0], 3 * self._fold**2, 3, padding=1))

    @property
    def halo(self) -> int:  # type: ignore[override]
        """Cells of context to each side that make a piece exact."""
        return self._halo

    @property
    def places(self) -> int:  # type: ignore[override]
        """Places on each axis of a cell that ``masked`` tells apart: the pixels of its coarse image."""
        return self._px

    def masked(self, cells: Tensor, mask: Tensor) -> Tensor:
        """See `CellNetwork.masked`. Of a mixture's coarse image each place is that of the cells whose it is."""
        share, place = self._share(mask), slice(self._content, self._content + self._layout)
        mixed, gain = cells * share, self.layout_gain[:, None, None]
        image = self._coarse(cells[None, place] * gain) * mask
        mixed[place] = self._in_components(image)[0] / gain
        return torch.where(share == 1, cells, mixed)

    @torch.no_grad()
    def set_layout(self, weight: Tensor) -> None:
        """Take the components from the encoder's ``weight`` (L, 3 * layout_px ** 2), which maps a coarse image to
        layout parts; its rows are orthogonal. After ``scale`` is set."""
        length = weight.norm(dim=1)
        self.layout_basis.copy_(weight / length[:, None])
        gain = 1 / (length * self.scale[self._content : -1])
        self.layout_gain.copy_(gain / gain.square().mean().sqrt())

    def remainder(
        self, x: Tensor, t: Tensor, condition: Tensor, inside: Tensor | None, joints: Tensor | None
    ) -> Tensor:
        """See `CellNetwork.remainder`. What lies outside is zero where the network takes it in, and no longer known
        then: a window smaller than the reach need not equal a canvas that ends there."""
        x = x if inside is None else x * inside
        content, layout, validity = x.tensor_split([self._content, self._content + self._layout], 1)
        modulation = self._modulation(t, condition)
        image = self._image(torch.cat([layout, layout * self.layout_gain[:, None, None]]))
        h = self.stem(torch.cat([image, self._seams(joints, image)], 1))
        skips = []
        for level, blocks in enumerate(self.down):
            if level == len(self.down) - 1:
                h = h + self.content_in(torch.cat([content, validity], 1))
            for block in blocks:
                h = block(h, modulation)
            if level < len(self.down) - 1:
                skips.append(h)
                h = self.shrink[level](h)
        of_content = self.content_out(self.act(self.norm_content(h)))
        for level in reversed(range(len(self.up))):
            h = nn.functional.pixel_shuffle(self.grow[level](h), 2)
            h = self.join[level](torch.cat([h, skips.pop()], 1))
            for block in self.up[level]:
                h = block(h, modulation)
        of_layout = self._components(self.out(self.act(self.norm_out(h))))
        return torch.cat([of_content[:, :-1], of_layout, of_content[:, -1:]], 1)

    def _image(self, layouts: Tensor) -> Tensor:
        """Two sets of layout parts (2 N, L, R, K) as coarse images beside each other, folded to the finest level."""
        image = nn.functional.pixel_unshuffle(self._coarse(layouts), self._fold)
        return torch.cat(image.chunk(2), 1)

    def _coarse(self, layouts: Tensor) -> Tensor:
        """Layout parts (N, L, R, K) as one image (N, 3, R * layout_px, K * layout_px)."""
        flat = nn.functional.conv2d(layouts, self.layout_basis.T[:, :, None, None])
        return nn.functional.pixel_shuffle(flat, self._px)

    def _in_components(self, image: Tensor) -> Tensor:
        """The inverse: (N, L, R, K)."""
        return nn.functional.conv2d(nn.functional.pixel_unshuffle(image, self._px), self.layout_basis[:, :, None, None])

    def _seams(self, joints: Tensor | None, image: Tensor) -> Tensor:
        """1 at the positions of the finest level on both sides of a joint: (N, 1, H, W)."""
        seams = torch.zeros_like(image[:, :1])
        if joints is not None:
            step = self._finest
            for axis, joint in ((3, joints[:, :1]), (2, joints[:, 1:])):
                lines = seams.transpose(3, axis)
                edges = joint.transpose(3, axis).repeat_interleave(step, 2).to(seams.dtype)
                lines[..., ::step] += edges
                lines[..., step - 1 :: step][..., :-1] += edges[..., 1:]
        return seams.clamp(max=1.0)

    def _components(self, folded: Tensor) -> Tensor:
        """A folded coarse image in components: (N, L, R, K)."""
        return self._in_components(nn.functional.pixel_shuffle(folded, self._fold))


def _stack(width: int, blocks: int, hidden: int, finer: int) -> nn.ModuleList:
    return nn.ModuleList(FieldBlock(width, hidden, finer, "nearest") for _ in range(blocks))
