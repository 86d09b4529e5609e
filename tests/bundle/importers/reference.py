"""The published networks written out in plain torch, straight on their own state dicts: what imports are compared with.

Our own writing, from the papers and the names of the weights; nothing here uses diffusers or the package.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.bundle.importers.states import PixCell, State, UNet, Vq


def linear(s: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, s[f"{name}.weight"], s.get(f"{name}.bias"))


def conv(s: State, name: str, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
    weight = s[f"{name}.weight"]
    return F.conv2d(x, weight, s[f"{name}.bias"], stride, weight.shape[-1] // 2 if padding is None else padding)


def group_norm(s: State, name: str, x: Tensor, eps: float) -> Tensor:
    return F.group_norm(x, 32, s[f"{name}.weight"], s[f"{name}.bias"], eps)


def layer_norm(s: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], eps)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """(N, L, C) queries, keys and values -> (N, L, C)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def times(t: Tensor, dim: int) -> Tensor:
    """Cosines, then sines, of t at falling frequencies."""
    angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(dim // 2) / (dim // 2))
    return torch.cat([angles.cos(), angles.sin()], 1)


# The U-Net of latent-diffusion


def unet(s: State, net: UNet, x: Tensor, t: Tensor, context: Tensor, p: str = "model.diffusion_model.") -> Tensor:
    emb = linear(s, f"{p}time_embed.2", F.silu(linear(s, f"{p}time_embed.0", times(t, net.width))))
    h = conv(s, f"{p}input_blocks.0.0", x)
    skips, index = [h], 1
    for level in range(len(net.mult)):
        for _ in range(net.blocks):
            h = block(s, f"{p}input_blocks.{index}.", h, emb, context, net.heads)
            skips.append(h)
            index += 1
        if level + 1 < len(net.mult):
            h = conv(s, f"{p}input_blocks.{index}.0.op", h, 2)
            skips.append(h)
            index += 1
    h = unet_resnet(s, f"{p}middle_block.0.", h, emb)
    h = unet_transformer(s, f"{p}middle_block.1.", h, context, net.heads)
    h = unet_resnet(s, f"{p}middle_block.2.", h, emb)
    for index in range(len(net.mult) * (net.blocks + 1)):
        q = f"{p}output_blocks.{index}."
        h = block(s, q, torch.cat([h, skips.pop()], 1), emb, context, net.heads)
        for place in (1, 2):
            if f"{q}{place}.conv.weight" in s:
                h = conv(s, f"{q}{place}.conv", F.interpolate(h, scale_factor=2, mode="nearest"))
    return conv(s, f"{p}out.2", F.silu(group_norm(s, f"{p}out.0", h, 1e-5)))


def block(s: State, p: str, h: Tensor, emb: Tensor, context: Tensor, heads: int) -> Tensor:
    h = unet_resnet(s, f"{p}0.", h, emb)
    return unet_transformer(s, f"{p}1.", h, context, heads) if f"{p}1.proj_in.weight" in s else h


def unet_resnet(s: State, p: str, x: Tensor, emb: Tensor) -> Tensor:
    h = conv(s, f"{p}in_layers.2", F.silu(group_norm(s, f"{p}in_layers.0", x, 1e-5)))
    h = h + linear(s, f"{p}emb_layers.1", F.silu(emb))[:, :, None, None]
    h = conv(s, f"{p}out_layers.3", F.silu(group_norm(s, f"{p}out_layers.0", h, 1e-5)))
    return h + (conv(s, f"{p}skip_connection", x) if f"{p}skip_connection.weight" in s else x)


def unet_transformer(s: State, p: str, x: Tensor, context: Tensor, heads: int) -> Tensor:
    h = conv(s, f"{p}proj_in", group_norm(s, f"{p}norm", x, 1e-6))
    tokens, b = h.flatten(2).transpose(1, 2), f"{p}transformer_blocks.0."
    for name, norm, other in (("attn1", "norm1", None), ("attn2", "norm2", context)):
        y = layer_norm(s, f"{b}{norm}", tokens)
        source = y if other is None else other
        q, k, v = (linear(s, f"{b}{name}.to_{n}", z) for n, z in (("q", y), ("k", source), ("v", source)))
        tokens = tokens + linear(s, f"{b}{name}.to_out.0", attend(q, k, v, heads))
    value, gate = linear(s, f"{b}ff.net.0.proj", layer_norm(s, f"{b}norm3", tokens)).chunk(2, -1)
    tokens = tokens + linear(s, f"{b}ff.net.2", value * F.gelu(gate))
    return x + conv(s, f"{p}proj_out", tokens.transpose(1, 2).reshape(x.shape))


# VQ-f4


def vq_encode(s: State, net: Vq, x: Tensor, p: str = "first_stage_model.") -> Tensor:
    h = conv(s, f"{p}encoder.conv_in", x)
    for level in range(len(net.mult)):
        for index in range(net.blocks):
            h = vq_resnet(s, f"{p}encoder.down.{level}.block.{index}.", h)
        if level + 1 < len(net.mult):
            h = conv(s, f"{p}encoder.down.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), 2, 0)
    h = vq_middle(s, f"{p}encoder.mid.", h)
    h = conv(s, f"{p}encoder.conv_out", F.silu(group_norm(s, f"{p}encoder.norm_out", h, 1e-6)))
    return conv(s, f"{p}quant_conv", h)


def vq_decode(s: State, net: Vq, z: Tensor, p: str = "first_stage_model.") -> Tensor:
    codes = s[f"{p}quantize.embedding.weight"]
    flat = z.permute(0, 2, 3, 1).flatten(0, 2)
    nearest = codes[torch.cdist(flat, codes).argmin(1)]
    z = nearest.reshape(z.shape[0], *z.shape[2:], -1).permute(0, 3, 1, 2)
    h = conv(s, f"{p}decoder.conv_in", conv(s, f"{p}post_quant_conv", z))
    h = vq_middle(s, f"{p}decoder.mid.", h)
    for level in reversed(range(len(net.mult))):
        for index in range(net.blocks + 1):
            h = vq_resnet(s, f"{p}decoder.up.{level}.block.{index}.", h)
        if level:
            h = conv(s, f"{p}decoder.up.{level}.upsample.conv", F.interpolate(h, scale_factor=2, mode="nearest"))
    return conv(s, f"{p}decoder.conv_out", F.silu(group_norm(s, f"{p}decoder.norm_out", h, 1e-6)))


def vq_resnet(s: State, p: str, x: Tensor) -> Tensor:
    h = conv(s, f"{p}conv1", F.silu(group_norm(s, f"{p}norm1", x, 1e-6)))
    h = conv(s, f"{p}conv2", F.silu(group_norm(s, f"{p}norm2", h, 1e-6)))
    return h + (conv(s, f"{p}nin_shortcut", x) if f"{p}nin_shortcut.weight" in s else x)


def vq_middle(s: State, p: str, x: Tensor) -> Tensor:
    x = vq_resnet(s, f"{p}block_1.", x)
    h = group_norm(s, f"{p}attn_1.norm", x, 1e-6)
    q, k, v = (conv(s, f"{p}attn_1.{n}", h).flatten(2).transpose(1, 2) for n in "qkv")
    x = x + conv(s, f"{p}attn_1.proj_out", attend(q, k, v, 1).transpose(1, 2).reshape(x.shape))
    return vq_resnet(s, f"{p}block_2.", x)


# Conditioners


def patch_tokens(s: State, vectors: Tensor, p: str = "cond_stage_model.") -> Tensor:
    """Vectors (N, D), zero where nothing is told -> tokens of Large-Image-Diffusion."""
    tokens = [linear(s, f"{p}patch_fc", F.normalize(vectors, dim=-1))]
    if f"{p}region_fc.weight" in s:
        tokens.append(linear(s, f"{p}region_fc", torch.zeros(len(vectors), 768)))
    return torch.stack(tokens, 1)


def zoom_tokens(
    s: State, cells: Tensor, level: int, depth: int, heads: int = 8, p: str = "cond_stage_model."
) -> Tensor:
    """A square of cells (D, h, w) at a magnification -> tokens (65, E) of ZoomLDM."""
    if cells.shape[1] > 8:
        cells = F.adaptive_avg_pool2d(cells, 8)
    cells = (cells - cells.mean(0, keepdim=True)) / (cells.std(0, keepdim=True) + 1e-8)
    known = linear(s, f"{p}dim_reduce", cells.flatten(1).T)
    count = len(known)
    places = s[f"{p}pad_token"][0].repeat(64, 1)
    first = 32 if count == 1 else 32 - count // 2
    places[first : first + count] = known
    x = torch.cat([s[f"{p}mag_embedding.weight"][level][None], places])[None] + s[f"{p}encoder.pos_embedding"]
    for k in range(depth):
        b = f"{p}encoder.layers.encoder_layer_{k}."
        y = layer_norm(s, f"{b}ln_1", x, 1e-6)
        q, key, v = F.linear(y, s[f"{b}self_attention.in_proj_weight"], s[f"{b}self_attention.in_proj_bias"]).chunk(
            3, -1
        )
        x = x + linear(s, f"{b}self_attention.out_proj", attend(q, key, v, heads))
        x = x + linear(s, f"{b}mlp.3", F.gelu(linear(s, f"{b}mlp.0", layer_norm(s, f"{b}ln_2", x, 1e-6))))
    x = layer_norm(s, f"{p}encoder.ln", x, 1e-6)
    return layer_norm(s, f"{p}layer_norm", linear(s, f"{p}final_proj", x))[0]


# PixCell


def pixcell(s: State, net: PixCell, x: Tensor, t: Tensor, cells: Tensor | None) -> Tensor:
    """Noise (N, C, h, w) that the transformer predicts; cells (N, T, D), or None for the null."""
    told = s["caption_projection.uncond_embedding"].expand(len(x), -1, -1) if cells is None else cells
    told = told + s["y_pos_embed.y_pos_embed"] if net.tokens > 1 else told
    told = linear(
        s, "caption_projection.linear_2", F.gelu(linear(s, "caption_projection.linear_1", told), approximate="tanh")
    )
    side = net.side // 2
    h = conv(s, "pos_embed.proj", x, 2, 0).flatten(2).transpose(1, 2)
    h = h + positions(net.width, side, net.config["interpolation_scale"])
    e = "adaln_single.emb.timestep_embedder."
    time = linear(s, f"{e}linear_2", F.silu(linear(s, f"{e}linear_1", times(t, 256))))
    modulation = linear(s, "adaln_single.linear", F.silu(time)).unflatten(1, (6, -1))
    for k in range(net.depth):
        h = pixcell_block(s, f"transformer_blocks.{k}.", net.heads, h, told, modulation)
    shift, scale = (s["scale_shift_table"] + time[:, None]).chunk(2, 1)
    h = F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift
    pieces = linear(s, "proj_out", h).unflatten(2, (2, 2, -1)).unflatten(1, (side, side))
    return pieces.permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, net.side, net.side)[:, : net.channels]


def pixcell_block(s: State, b: str, heads: int, h: Tensor, told: Tensor, modulation: Tensor) -> Tensor:
    shift_a, scale_a, gate_a, shift_b, scale_b, gate_b = (s[f"{b}scale_shift_table"] + modulation).chunk(6, 1)
    y = F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale_a) + shift_a
    h = h + gate_a * pixcell_attention(s, f"{b}attn1", y, y, heads)
    h = h + pixcell_attention(s, f"{b}attn2", h, told, heads)
    y = F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale_b) + shift_b
    return h + gate_b * linear(s, f"{b}ff.net.2", F.gelu(linear(s, f"{b}ff.net.0.proj", y), approximate="tanh"))


def pixcell_attention(s: State, name: str, x: Tensor, source: Tensor, heads: int) -> Tensor:
    q, k, v = linear(s, f"{name}.to_q", x), linear(s, f"{name}.to_k", source), linear(s, f"{name}.to_v", source)
    return linear(s, f"{name}.to_out.0", attend(q, k, v, heads))


def positions(width: int, side: int, scale: float) -> Tensor:
    """Sines and cosines of the column, then of the row: (side^2, width)."""
    quarter = width // 4
    frequency = 1 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    angle = torch.arange(side, dtype=torch.float64)[:, None] / scale * frequency
    one = torch.cat([angle.sin(), angle.cos()], 1).float()
    across, down = one.repeat(side, 1), one.repeat_interleave(side, 0)
    return torch.cat([across, down], 1)
