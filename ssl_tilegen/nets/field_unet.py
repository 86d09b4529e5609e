"""A local denoiser: a convolutional U-Net of finite reach whose condition is a field over the canvas.

Nothing in it looks further than ``halo`` latents, and every normalisation is per position. The condition enters as a
map (the embedding grid interpolated to every ``field_stride`` latents), not as one vector per window. So a canvas of
any size is one big convolution: tiles with an exact halo, each place computed once, no windows to merge.

It can also take coarse latents, a linear map of each cell's vector, beside the noisy latents. They know the colour of
a place better than any network that paints it, so the colours of the clean estimate can be drawn to theirs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_tilegen.nets.configurable import ConfigurableNetwork, register_to_config
from ssl_tilegen.nets.field_block import FieldBlock
from ssl_tilegen.nets.layers import ChannelNorm, Modulated, zeroed
from ssl_tilegen.nets.low_pass import REACH, low_frequencies
from ssl_tilegen.nets.noise_schedule import NoiseLevels, preconditioning
from ssl_tilegen.nets.widening import widened_levels

_LEVELS = 3
_LEAST_NOISE = 1e-3  # below it, x itself tells the colours


class FieldUNet(Modulated, ConfigurableNetwork):
    """A denoiser with the preconditioning of Karras et al. 2022, per channel, for flow matching (Lipman et al. 2023)
    or, with the configuration of a variance-preserving ``scheduler``, for noise or v prediction (see
    `nets.noise_schedule`).

    What it predicts has a best linear estimate given x alone; the network gives the remainder, at unit scale.

    With ``colour_rounds``, the low frequencies of the clean estimate's colours (after that many rounds of
    `nets.low_pass`) are those of the coarse latents, where there are any, as in iterative latent variable refinement
    (Choi et al. 2021). ``colour`` (3, C) tells the mean colour of a latent's pixels, but for a constant.
    """

    _supports_gradient_checkpointing = True
    condition_mean: Tensor
    condition_std: Tensor
    latent_std: Tensor
    colour: Tensor
    edge_layers = ("stem", "out", "time_in", "condition_in")

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        condition_dim: int = 192,
        widths: tuple[int, int, int] = (96, 160, 256),
        down_blocks: tuple[int, int, int] = (1, 2, 2),
        up_blocks: tuple[int, int] = (2, 2),
        hidden: int = 256,
        time_features: int = 64,
        sketch_side: int = 0,
        prediction_type: str = "flow",
        scheduler: dict[str, Any] | None = None,
        colour_rounds: int = 0,
    ) -> None:
        super().__init__()
        self._prediction = prediction_type
        self.levels = NoiseLevels(scheduler)
        self.sketch_side, self.colour_rounds = sketch_side, colour_rounds if sketch_side else 0
        self._condition_dim = condition_dim
        self._reach = sum(2 * (d + u) * 2**i for i, (d, u) in enumerate(zip(down_blocks, (*up_blocks, 0), strict=True)))
        self.register_buffer("condition_mean", torch.zeros(condition_dim))
        self.register_buffer("condition_std", torch.ones(condition_dim))
        self.register_buffer("latent_std", torch.ones(latent_channels))
        if self.colour_rounds:
            self.register_buffer("colour", torch.zeros(3, latent_channels).fill_diagonal_(1.0))
        self.null = nn.Parameter(torch.zeros(condition_dim))
        self._add_modulation(condition_dim, hidden, time_features)
        # bundles store these as ``sketch`` and ``sketch_side``: the linear map that decodes cells to coarse latents
        self.sketch = nn.Linear(condition_dim, latent_channels * sketch_side**2) if sketch_side else None
        if self.sketch is not None:
            self.sketch.requires_grad_(False)  # fitted in closed form
        self.stem = nn.Conv2d(latent_channels * (2 if sketch_side else 1) + bool(sketch_side), widths[0], 3, padding=1)
        self.down: Any = nn.ModuleList(_stack(widths[i], down_blocks[i], hidden, i) for i in range(_LEVELS))
        self.shrink = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 2, 2) for i in range(_LEVELS - 1))
        self.grow = nn.ModuleList(_grow(widths[i + 1], widths[i]) for i in range(_LEVELS - 1))
        self.join = nn.ModuleList(nn.Conv2d(2 * widths[i], widths[i], 1) for i in range(_LEVELS - 1))
        self.up: Any = nn.ModuleList(_stack(widths[i], up_blocks[i], hidden, i) for i in range(_LEVELS - 1))
        self.norm_out = ChannelNorm(widths[0])
        self.out = zeroed(nn.Conv2d(widths[0], latent_channels, 3, padding=1))

    @property
    def field_stride(self) -> int:
        """Latents per field sample on each axis; windows must start and end at multiples of it."""
        return 2 ** (_LEVELS - 1)

    @property
    def halo(self) -> int:
        """Latents of context to each side that make a piece exact, a multiple of ``field_stride``."""
        reach = self._reach + 2 + REACH * self.colour_rounds
        edges = 2 * self.field_stride  # bilinear growth of the modulation, and rounding to the coarsest lattice
        return -(-(reach + edges) // self.field_stride) * self.field_stride

    def widened(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a network with fewer latent channels, or narrower levels, in the shapes of this one. Their
        latent channels come first, the weights of the others are zero. A wider network computes the same."""
        return widened_levels(self._with_all_latents(weights), self.state_dict())

    def _with_all_latents(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        known, channels = len(weights.get("latent_std", self.latent_std)), len(self.latent_std)
        if known >= channels or ("sketch.bias" in weights) != bool(self.sketch_side):
            return weights
        theirs, more = weights["stem.weight"], channels - known
        stem = theirs.new_zeros(len(theirs), self.stem.in_channels, *theirs.shape[2:])
        stem[:, :known] = theirs[:, :known]
        if self.sketch_side:
            stem[:, channels : channels + known] = theirs[:, known : 2 * known]
            stem[:, -1:] = theirs[:, -1:]
        out = nn.functional.pad(weights["out.weight"], (0, 0, 0, 0, 0, 0, 0, more))
        bias = nn.functional.pad(weights["out.bias"], (0, more))
        return {**weights, "stem.weight": stem, "out.weight": out, "out.bias": bias}

    def decode_cells(self, vectors: Tensor) -> Tensor:
        """The images (..., C, side, side) that vectors (..., D) most likely are, in clean latents."""
        assert self.sketch is not None, "this network takes no coarse latents"
        return self.sketch(vectors).unflatten(-1, (-1, self.sketch_side, self.sketch_side))

    def decode_colours(self, vectors: Tensor) -> Tensor:
        """The mean colours (..., 3, side, side) in [-1, 1], but for a constant, of the pixels of those latents; of a
        network with ``colour_rounds``."""
        return torch.einsum("kc,...cyx->...kyx", self.colour, self.decode_cells(vectors))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """Raw prediction (N, C, h, w) for noisy latents x, times t (N,) as the scheduler counts, a condition or None.

        The condition is a field (N, D, h/4, w/4). For a network with coarse latents they are further channels,
        folded to the same stride: (N, 16 C, h/4, w/4). Parts of it that are NaN count as not known.
        """
        alpha, sigma = (level[:, None, None, None] for level in self.levels(t))
        std = self.latent_std[:, None, None]
        keep, linear, gain = preconditioning(self._prediction, alpha, sigma, std)
        field, folded = (None, None) if condition is None else condition.tensor_split([self._condition_dim], 1)
        time = (sigma / (alpha + sigma)).flatten()
        sketch = None
        if folded is not None and self.sketch_side:
            sketch = nn.functional.pixel_shuffle(folded, self.field_stride)
        remainder = self._remainder(self._seen(x * keep, sketch), self._modulation(time, self._field(field, x)))
        raw = linear * x + gain * remainder
        return raw if sketch is None or not self.colour_rounds else self._coloured(raw, x, alpha, sigma, sketch)

    def _seen(self, x: Tensor, sketch: Tensor | None) -> Tensor:
        """Scaled noisy latents, beside them the coarse latents and a mask of where there is one."""
        if not self.sketch_side:
            return x
        if sketch is None:
            return torch.cat([x, torch.zeros_like(x), torch.zeros_like(x[:, :1])], 1)
        known = ~sketch.isnan()
        return torch.cat([x, torch.where(known, sketch, 0.0), known[:, :1].to(x.dtype)], 1)

    def _coloured(self, raw: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor, sketch: Tensor) -> Tensor:
        """The prediction whose clean estimate has the colours of the coarse latents, in low frequencies."""
        with torch.autocast(x.device.type, enabled=False):
            of_sketch = alpha if self._prediction == "epsilon" else 1.0
            of_x = alpha if self._prediction == "v_prediction" else 1.0
            lacking = of_sketch * sketch.float() - (of_x * x.float() - sigma * raw.float())
            lacking = torch.where(sketch.isnan(), 0.0, lacking)
            colours = low_frequencies(nn.functional.conv2d(lacking, self.colour[:, :, None, None]), self.colour_rounds)
            change = nn.functional.conv2d(colours, self._of_colours()[:, :, None, None])
            return raw - change / sigma.clamp(min=_LEAST_NOISE)

    def _of_colours(self) -> Tensor:
        """(C, 3): the least change of latents that changes the colours of their pixels so."""
        gram = self.colour @ self.colour.T
        return self.colour.T @ torch.linalg.inv(gram + 1e-6 * gram.trace() * torch.eye(3, device=gram.device))

    def _field(self, condition: Tensor | None, x: Tensor) -> Tensor:
        """The condition (N, D, h/4, w/4), standardised, with the learned vector where nothing is known."""
        null = self.null[None, :, None, None]
        if condition is None:
            return null.expand(len(x), -1, x.shape[2] // self.field_stride, x.shape[3] // self.field_stride)
        field = (condition - self.condition_mean[:, None, None]) / self.condition_std[:, None, None]
        return torch.where(field.isnan(), null, field)

    def _remainder(self, x: Tensor, modulation: Tensor) -> Tensor:
        h = self.stem(x)
        skips = []
        for level in range(_LEVELS):
            for block in self.down[level]:
                h = block(h, modulation)
            if level < _LEVELS - 1:
                skips.append(h)
                h = self.shrink[level](h)
        for level in reversed(range(_LEVELS - 1)):
            h = self.join[level](torch.cat([self.grow[level](h), skips.pop()], 1))
            for block in self.up[level]:
                h = block(h, modulation)
        return self.out(self.act(self.norm_out(h)))


def _stack(channels: int, blocks: int, hidden: int, level: int) -> nn.ModuleList:
    finer = 2 ** (_LEVELS - 1 - level)
    return nn.ModuleList(FieldBlock(channels, hidden, finer) for _ in range(blocks))


def _grow(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, 4 * channels_out, 1), nn.PixelShuffle(2))
