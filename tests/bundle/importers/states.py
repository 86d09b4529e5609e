"""Random weights under the names and shapes of the published models, at any width; our own writing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class UNet:
    """The U-Net of latent-diffusion: attention on all levels but the first."""

    width: int = 32
    mult: tuple[int, ...] = (1, 2, 3, 5)
    blocks: int = 2
    context: int = 24
    heads: int = 1
    channels: int = 3

    @property
    def widths(self) -> list[int]:
        return [self.width * m for m in self.mult]

    def attends(self, level: int) -> bool:
        return level > 0


@dataclass(frozen=True)
class Vq:
    """The autoencoder VQ-f4 of latent-diffusion."""

    width: int = 32
    mult: tuple[int, ...] = (1, 2, 4)
    blocks: int = 2
    codes: int = 64


_REPEAT = 1_000_003
FULL_UNET, FULL_VQ = UNet(192, context=512), Vq(128, codes=8192)


def filled(shapes: Shapes, seed: int) -> State:
    """Random tensors of these shapes: matrices keep about the size of what they act on, norms are near one."""
    source = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes:
        values = _random(torch.Size(shape), source)
        if name.endswith("weight") and len(shape) == 1:
            state[name] = 1 + 0.1 * values
        elif len(shape) > 1:
            state[name] = values * (torch.tensor(shape[1:]).prod() ** -0.5)
        else:
            state[name] = 0.1 * values
    return state


def _random(shape: torch.Size, source: torch.Generator) -> Tensor:
    """Normal values; in large tensors they come again after a prime number of them, which takes a tenth of the time."""
    count = shape.numel()
    if count <= _REPEAT:
        return torch.randn(shape, generator=source)
    return torch.randn(_REPEAT, generator=source).repeat(-(-count // _REPEAT))[:count].reshape(shape)


def hollow(shapes: Shapes, seed: int) -> State:
    """As ``filled``, but zeros that take no room, in memory or in a file: where only names and shapes matter."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes}


def layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def unet_shapes(net: UNet, prefix: str = "model.diffusion_model.") -> Shapes:
    p, emb = prefix, 4 * net.width
    yield from layer(f"{p}time_embed.0", emb, net.width)
    yield from layer(f"{p}time_embed.2", emb, emb)
    yield from layer(f"{p}input_blocks.0.0", net.width, net.channels, 3, 3)
    index, here, skips = 1, net.width, [net.width]
    for level, width in enumerate(net.widths):
        for _ in range(net.blocks):
            yield from resnet(f"{p}input_blocks.{index}.0.", here, width, emb)
            if net.attends(level):
                yield from transformer(f"{p}input_blocks.{index}.1.", width, net.context)
            here, index = width, index + 1
            skips.append(here)
        if level + 1 < len(net.widths):
            yield from layer(f"{p}input_blocks.{index}.0.op", here, here, 3, 3)
            index += 1
            skips.append(here)
    yield from resnet(f"{p}middle_block.0.", here, here, emb)
    yield from transformer(f"{p}middle_block.1.", here, net.context)
    yield from resnet(f"{p}middle_block.2.", here, here, emb)
    index = 0
    for level in reversed(range(len(net.widths))):
        width = net.widths[level]
        for block in range(net.blocks + 1):
            yield from resnet(f"{p}output_blocks.{index}.0.", here + skips.pop(), width, emb)
            if net.attends(level):
                yield from transformer(f"{p}output_blocks.{index}.1.", width, net.context)
            if level and block == net.blocks:
                yield from layer(f"{p}output_blocks.{index}.{1 + net.attends(level)}.conv", width, width, 3, 3)
            here, index = width, index + 1
    yield from layer(f"{p}out.0", net.width)
    yield from layer(f"{p}out.2", net.channels, net.width, 3, 3)


def resnet(p: str, before: int, after: int, emb: int) -> Shapes:
    yield from layer(f"{p}in_layers.0", before)
    yield from layer(f"{p}in_layers.2", after, before, 3, 3)
    yield from layer(f"{p}emb_layers.1", after, emb)
    yield from layer(f"{p}out_layers.0", after)
    yield from layer(f"{p}out_layers.3", after, after, 3, 3)
    if before != after:
        yield from layer(f"{p}skip_connection", after, before, 1, 1)


def transformer(p: str, width: int, context: int) -> Shapes:
    yield from layer(f"{p}norm", width)
    yield from layer(f"{p}proj_in", width, width, 1, 1)
    b = f"{p}transformer_blocks.0."
    for name, size in (("attn1", width), ("attn2", context)):
        yield from layer(f"{b}{name}.to_q", width, width, bias=False)
        yield from layer(f"{b}{name}.to_k", width, size, bias=False)
        yield from layer(f"{b}{name}.to_v", width, size, bias=False)
        yield from layer(f"{b}{name}.to_out.0", width, width)
    yield from layer(f"{b}ff.net.0.proj", 8 * width, width)
    yield from layer(f"{b}ff.net.2", width, 4 * width)
    for k in (1, 2, 3):
        yield from layer(f"{b}norm{k}", width)
    yield from layer(f"{p}proj_out", width, width, 1, 1)


def vq_shapes(net: Vq, p: str = "first_stage_model.") -> Shapes:
    widths = [net.width * m for m in net.mult]
    yield from layer(f"{p}encoder.conv_in", net.width, 3, 3, 3)
    here = net.width
    for level, width in enumerate(widths):
        for block in range(net.blocks):
            yield from vq_resnet(f"{p}encoder.down.{level}.block.{block}.", here, width)
            here = width
        if level + 1 < len(widths):
            yield from layer(f"{p}encoder.down.{level}.downsample.conv", here, here, 3, 3)
    yield from vq_middle(f"{p}encoder.mid.", here)
    yield from layer(f"{p}encoder.norm_out", here)
    yield from layer(f"{p}encoder.conv_out", 3, here, 3, 3)
    yield from layer(f"{p}decoder.conv_in", here, 3, 3, 3)
    yield from vq_middle(f"{p}decoder.mid.", here)
    for level in reversed(range(len(widths))):
        for block in range(net.blocks + 1):
            yield from vq_resnet(f"{p}decoder.up.{level}.block.{block}.", here, widths[level])
            here = widths[level]
        if level:
            yield from layer(f"{p}decoder.up.{level}.upsample.conv", here, here, 3, 3)
    yield from layer(f"{p}decoder.norm_out", here)
    yield from layer(f"{p}decoder.conv_out", 3, here, 3, 3)
    yield f"{p}quantize.embedding.weight", (net.codes, 3)
    yield from layer(f"{p}quant_conv", 3, 3, 1, 1)
    yield from layer(f"{p}post_quant_conv", 3, 3, 1, 1)


def vq_resnet(p: str, before: int, after: int) -> Shapes:
    yield from layer(f"{p}norm1", before)
    yield from layer(f"{p}conv1", after, before, 3, 3)
    yield from layer(f"{p}norm2", after)
    yield from layer(f"{p}conv2", after, after, 3, 3)
    if before != after:
        yield from layer(f"{p}nin_shortcut", after, before, 1, 1)


def vq_middle(p: str, width: int) -> Shapes:
    yield from vq_resnet(f"{p}block_1.", width, width)
    yield from layer(f"{p}attn_1.norm", width)
    for name in ("q", "k", "v", "proj_out"):
        yield from layer(f"{p}attn_1.{name}", width, width, 1, 1)
    yield from vq_resnet(f"{p}block_2.", width, width)


def training_state() -> State:
    """What a training of latent-diffusion leaves beside the weights."""
    names = ("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "posterior_variance")
    return {name: torch.zeros(1000) for name in names} | {"inception.blocks.0.weight": torch.zeros(4)}


def large_image_diffusion(dim: int, *, region: bool, net: UNet | None = None, vq: Vq | None = None) -> State:
    """The state dict of a Large-Image-Diffusion checkpoint; ``region``: of BRCA at 20x, with its second embedding."""
    net, vq, c = net or UNet(), vq or Vq(), "cond_stage_model."
    state = filled(unet_shapes(net), 1) | filled(vq_shapes(vq), 2) | training_state()
    state |= filled(layer(f"{c}patch_fc", net.context, dim), 3)
    return state | (filled(layer(f"{c}region_fc", net.context, 768), 4) if region else {})


def project_yaml(net: UNet, target: str = "ldm.data.hybrid_cond.crc_only_patch.TCGADataset") -> str:
    """A training configuration as the authors' runs write it."""
    return f"""
model:
  base_learning_rate: 1.0e-04
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.0015
    linear_end: 0.0195
    timesteps: 1000
    image_size: 64
    channels: 3
    conditioning_key: crossattn
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params: {{image_size: 64, model_channels: {net.width}, num_heads: {net.heads}, context_dim: {net.context}}}
data:
  target: main.DataModuleFromConfig
  params:
    train: {{target: {target}}}
"""


@dataclass(frozen=True)
class Zoom:
    """The conditioner network of ZoomLDM."""

    dim: int = 20
    width: int = 24
    depth: int = 2
    hidden: int = 40
    levels: int = 8


FULL_ZOOM = Zoom(1024, 512, 12, 2048)


def zoom_shapes(net: Zoom, p: str = "cond_stage_model.") -> Shapes:
    yield f"{p}mag_embedding.weight", (net.levels, net.width)
    yield from layer(f"{p}dim_reduce", net.width, net.dim)
    yield f"{p}pad_token", (1, 1, net.width)
    yield f"{p}encoder.pos_embedding", (1, 65, net.width)
    for k in range(net.depth):
        b = f"{p}encoder.layers.encoder_layer_{k}."
        yield from layer(f"{b}ln_1", net.width)
        yield f"{b}self_attention.in_proj_weight", (3 * net.width, net.width)
        yield f"{b}self_attention.in_proj_bias", (3 * net.width,)
        yield from layer(f"{b}self_attention.out_proj", net.width, net.width)
        yield from layer(f"{b}ln_2", net.width)
        yield from layer(f"{b}mlp.0", net.hidden, net.width)
        yield from layer(f"{b}mlp.3", net.width, net.hidden)
    yield from layer(f"{p}encoder.ln", net.width)
    yield from layer(f"{p}final_proj", net.width, net.width)
    yield from layer(f"{p}layer_norm", net.width)


def zoomldm(zoom: Zoom | None = None, unet: UNet | None = None, vq: Vq | None = None, *, solid: bool = True) -> State:
    """The bare state dict of a ZoomLDM checkpoint, with averaged weights beside those of the last step; unless
    ``solid`` only the conditioner has values."""
    zoom = zoom or Zoom()
    unet = unet or UNet(context=zoom.width)
    drawn = filled if solid else hollow
    plain = drawn(unet_shapes(unet), 1)
    averaged = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): value
        for name, value in drawn(unet_shapes(unet), 11).items()
    }
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5)}
    vqs = drawn(vq_shapes(vq or Vq()), 2)
    return plain | averaged | counters | vqs | filled(zoom_shapes(zoom), 3) | training_state()


@dataclass(frozen=True)
class PixCell:
    """The transformer of PixCell; ``tokens`` 1 (256 px) or 16 (1024 px)."""

    tokens: int = 16
    dim: int = 20
    heads: int = 2
    head: int = 12
    depth: int = 2
    channels: int = 4
    side: int = 16

    @property
    def width(self) -> int:
        return self.heads * self.head

    @property
    def config(self) -> dict[str, Any]:
        return {
            "_class_name": "PixCellTransformer2DModel",
            "_diffusers_version": "0.32.2",
            "activation_fn": "gelu-approximate",
            "attention_bias": True,
            "attention_head_dim": self.head,
            "attention_type": "default",
            "caption_channels": self.dim,
            "caption_num_tokens": self.tokens,
            "cross_attention_dim": self.width,
            "dropout": 0.0,
            "in_channels": self.channels,
            "interpolation_scale": 2 if self.tokens > 1 else 1,
            "norm_elementwise_affine": False,
            "norm_eps": 1e-06,
            "norm_num_groups": 32,
            "norm_type": "ada_norm_single",
            "num_attention_heads": self.heads,
            "num_embeds_ada_norm": 1000,
            "num_layers": self.depth,
            "out_channels": 2 * self.channels,
            "patch_size": 2,
            "sample_size": self.side,
            "upcast_attention": False,
            "use_additional_conditions": False,
        }


FULL_PIXCELL = PixCell(dim=1536, heads=16, head=72, depth=28, channels=16, side=16)
"""Of full width; fewer latents than the 128 x 128 of PixCell-1024, on which no weight depends."""


def pixcell_shapes(net: PixCell) -> Shapes:
    d = net.width
    yield "caption_projection.uncond_embedding", (net.tokens, net.dim)
    if net.tokens > 1:
        yield "y_pos_embed.y_pos_embed", (1, net.tokens, net.dim)
    yield from layer("pos_embed.proj", d, net.channels, 2, 2)
    yield from layer("adaln_single.emb.timestep_embedder.linear_1", d, 256)
    yield from layer("adaln_single.emb.timestep_embedder.linear_2", d, d)
    yield from layer("adaln_single.linear", 6 * d, d)
    yield from layer("caption_projection.linear_1", d, net.dim)
    yield from layer("caption_projection.linear_2", d, d)
    for k in range(net.depth):
        b = f"transformer_blocks.{k}."
        yield f"{b}scale_shift_table", (6, d)
        for name in ("attn1", "attn2"):
            for part in ("to_q", "to_k", "to_v", "to_out.0"):
                yield from layer(f"{b}{name}.{part}", d, d)
        yield from layer(f"{b}ff.net.0.proj", 4 * d, d)
        yield from layer(f"{b}ff.net.2", d, 4 * d)
    yield "scale_shift_table", (2, d)
    yield from layer("proj_out", 4 * 2 * net.channels, d)
