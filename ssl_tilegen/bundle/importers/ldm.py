"""Networks of the CompVis latent-diffusion code in diffusers' terms: names, and the configuration that shapes give.

Used by every family that was trained with that code. Names are pairs (theirs, ours).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ssl_tilegen.bundle.importers.weights import Component, Ledger
from ssl_tilegen.errors import FormatError

Pair = tuple[str, str]

_RESNET = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
_VAE_RESNET = (
    ("norm1", "norm1"),
    ("conv1", "conv1"),
    ("norm2", "norm2"),
    ("conv2", "conv2"),
    ("nin_shortcut", "conv_shortcut"),
)
_VAE_ATTENTION = (("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0"))


def unet(ledger: Ledger, prefix: str, *, heads: int, head_channels: int = -1, sample_size: int = 64) -> Component:
    """The U-Net under ``prefix`` (``model.diffusion_model.``) as a UNet2DConditionModel.

    Args:
        ledger: The checkpoint; the U-Net's tensors are taken from it.
        prefix: What their names begin with.
        heads: Attention heads, which no shape tells; -1 where ``head_channels`` is given instead.
        head_channels: Channels of a head.
        sample_size: Side of the latents it was trained on.

    Raises:
        FormatError: a tensor is missing or blocks are not laid out as that code lays them out.
    """
    levels = _levels(ledger, prefix)
    widths, blocks = [level["width"] for level in levels], levels[0]["blocks"]
    attends = [level["attention"] for level in levels]
    channels = ledger.peek(f"{prefix}input_blocks.0.0.weight").shape[1]
    middle = f"{prefix}middle_block.1."
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": sample_size,
        "in_channels": channels,
        "out_channels": ledger.peek(f"{prefix}out.2.weight").shape[0],
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends)],
        "attention_head_dim": _heads(widths, heads, head_channels),
        "cross_attention_dim": ledger.peek(f"{middle}transformer_blocks.0.attn2.to_k.weight").shape[1],
        "transformer_layers_per_block": _depth(ledger, middle),
        "use_linear_projection": ledger.peek(f"{middle}proj_in.weight").ndim == 2,
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "downsample_padding": 1,
    }
    return Component(config, ledger.renamed(_with_suffixes(ledger, _unet_parts(ledger, prefix, attends, blocks))))


def vq_autoencoder(ledger: Ledger, prefix: str = "first_stage_model.") -> Component:
    """The vector-quantised autoencoder under ``prefix`` as a VQModel whose latents are not rescaled."""
    levels = 1 + max(
        int(name.split(".")[len(prefix.split(".")) + 1]) for name in ledger.names(f"{prefix}encoder.down.")
    )
    blocks = len({name.split(".block.")[1].split(".")[0] for name in ledger.names(f"{prefix}encoder.down.0.block.")})
    widths = [ledger.peek(f"{prefix}encoder.down.{k}.block.0.conv1.weight").shape[0] for k in range(levels)]
    codes, width = ledger.peek(f"{prefix}quantize.embedding.weight").shape
    latents = ledger.peek(f"{prefix}quant_conv.weight").shape[1]
    config: dict[str, Any] = {
        "_class_name": "VQModel",
        "in_channels": ledger.peek(f"{prefix}encoder.conv_in.weight").shape[1],
        "out_channels": ledger.peek(f"{prefix}decoder.conv_out.weight").shape[0],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "latent_channels": latents,
        "sample_size": 256,
        "num_vq_embeddings": codes,
        "vq_embed_dim": width,
        "norm_num_groups": 32,
        "scaling_factor": 1.0,
    }
    weights = ledger.renamed(_with_suffixes(ledger, _vq_parts(ledger, prefix, levels, blocks)))
    return Component(config, {name: _as_linear(name, value) for name, value in weights.items()})


def scheduler(linear_start: float, linear_end: float, steps: int, *, schedule: str = "scaled_linear") -> dict[str, Any]:
    """The noise schedule of that code as a scheduler of diffusers."""
    return {
        "_class_name": "DDIMScheduler",
        "beta_schedule": schedule,
        "beta_start": linear_start,
        "beta_end": linear_end,
        "num_train_timesteps": steps,
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "clip_sample": False,
    }


def leave_training_state(ledger: Ledger) -> None:
    """Leave out tensors of the training code beside the networks: computed schedules, scores' networks, counters."""
    schedules = ("betas", "alphas_cumprod", "sqrt_", "log_one_minus", "posterior_", "lvlb_weights", "logvar")
    ledger.leave([n for n in ledger.names() if n.startswith(schedules)], "computed from the noise schedule")
    ledger.leave(ledger.names("inception."), "scores of the training run")
    ledger.leave(ledger.names("first_stage_model.loss."), "loss of the autoencoder's training")
    ledger.leave(ledger.names("fid."), "scores of the training run")


def _levels(ledger: Ledger, prefix: str) -> list[dict[str, Any]]:
    """Width, number of residual blocks and attention of each resolution, from the input blocks."""
    levels: list[dict[str, Any]] = [{"blocks": 0}]
    index = 1
    while ledger.names(f"{prefix}input_blocks.{index}."):
        block = f"{prefix}input_blocks.{index}."
        if f"{block}0.op.weight" in ledger:
            levels.append({"blocks": 0})
        else:
            level = levels[-1]
            level["width"] = ledger.peek(f"{block}0.out_layers.3.weight").shape[0]
            level["attention"] = f"{block}1.proj_in.weight" in ledger
            level["blocks"] += 1
        index += 1
    if len({level["blocks"] for level in levels}) != 1 or not levels[0]["blocks"]:
        raise FormatError(f"{ledger.source}: no U-Net of latent-diffusion under {prefix}")
    return levels


def _heads(widths: list[int], heads: int, head_channels: int) -> int | list[int]:
    """The value that diffusers calls ``attention_head_dim`` and takes as the number of heads."""
    return heads if head_channels <= 0 else [width // head_channels for width in widths]


def _depth(ledger: Ledger, attention: str) -> int:
    return len(
        {
            name.split(".transformer_blocks.")[1].split(".")[0]
            for name in ledger.names(f"{attention}transformer_blocks.")
        }
    )


def _unet_parts(ledger: Ledger, prefix: str, attends: list[bool], blocks: int) -> Iterator[Pair]:
    """Modules of the U-Net: (theirs, ours), without ``.weight`` and ``.bias``."""
    ends = (
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("input_blocks.0.0", "conv_in"),
        ("out.0", "conv_norm_out"),
        ("out.2", "conv_out"),
    )
    yield from ((prefix + theirs, ours) for theirs, ours in ends)
    for level, attention in enumerate(attends):
        for block in range(blocks):
            theirs, ours = f"{prefix}input_blocks.{1 + level * (blocks + 1) + block}.", f"down_blocks.{level}."
            yield from _resnet(f"{theirs}0.", f"{ours}resnets.{block}.", _RESNET)
            if attention:
                yield from _attention(ledger, f"{theirs}1.", f"{ours}attentions.{block}.")
        if level + 1 < len(attends):
            down = f"{prefix}input_blocks.{(level + 1) * (blocks + 1)}.0.op"
            yield down, f"down_blocks.{level}.downsamplers.0.conv"
    for place, resnet in ((0, 0), (2, 1)):
        yield from _resnet(f"{prefix}middle_block.{place}.", f"mid_block.resnets.{resnet}.", _RESNET)
    yield from _attention(ledger, f"{prefix}middle_block.1.", "mid_block.attentions.0.")
    for level, attention in enumerate(reversed(attends)):
        for block in range(blocks + 1):
            theirs, ours = f"{prefix}output_blocks.{level * (blocks + 1) + block}.", f"up_blocks.{level}."
            yield from _resnet(f"{theirs}0.", f"{ours}resnets.{block}.", _RESNET)
            if attention:
                yield from _attention(ledger, f"{theirs}1.", f"{ours}attentions.{block}.")
        if level + 1 < len(attends):
            up = f"{prefix}output_blocks.{level * (blocks + 1) + blocks}.{2 if attention else 1}.conv"
            yield up, f"up_blocks.{level}.upsamplers.0.conv"


def _attention(ledger: Ledger, theirs: str, ours: str) -> Iterator[Pair]:
    """A spatial transformer, whose parts have the same names in both."""
    for name in ledger.names(theirs):
        part = name.removeprefix(theirs).rpartition(".")[0]
        yield theirs + part, ours + part


def _resnet(theirs: str, ours: str, names: tuple[Pair, ...]) -> Iterator[Pair]:
    yield from ((theirs + a, ours + b) for a, b in names)


def _vq_parts(ledger: Ledger, prefix: str, levels: int, blocks: int) -> Iterator[Pair]:
    same = ("quant_conv", "post_quant_conv", "quantize.embedding")
    yield from ((prefix + name, name) for name in same)
    for half in ("encoder", "decoder"):
        yield from (
            (f"{prefix}{half}.{a}", f"{half}.{b}")
            for a, b in (("conv_in", "conv_in"), ("norm_out", "conv_norm_out"), ("conv_out", "conv_out"))
        )
        for theirs, ours in ((1, 0), (2, 1)):
            yield from _resnet(f"{prefix}{half}.mid.block_{theirs}.", f"{half}.mid_block.resnets.{ours}.", _VAE_RESNET)
        yield from _resnet(f"{prefix}{half}.mid.attn_1.", f"{half}.mid_block.attentions.0.", _VAE_ATTENTION)
    for level in range(levels):
        down, up = f"{prefix}encoder.down.{level}.", f"{prefix}decoder.up.{level}."
        mirrored = levels - 1 - level
        for block in range(blocks):
            yield from _resnet(f"{down}block.{block}.", f"encoder.down_blocks.{level}.resnets.{block}.", _VAE_RESNET)
        for block in range(blocks + 1):
            yield from _resnet(f"{up}block.{block}.", f"decoder.up_blocks.{mirrored}.resnets.{block}.", _VAE_RESNET)
        if level + 1 < levels:
            yield f"{down}downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv"
        if level > 0:
            yield f"{up}upsample.conv", f"decoder.up_blocks.{mirrored}.upsamplers.0.conv"


def _with_suffixes(ledger: Ledger, parts: Iterator[Pair]) -> Iterator[Pair]:
    """The weights and biases of modules; of those that a checkpoint does not have (a shortcut) nothing."""
    for theirs, ours in dict(parts).items():
        for suffix in (".weight", ".bias"):
            if theirs + suffix in ledger:
                yield theirs + suffix, ours + suffix


def _as_linear(name: str, value: Tensor) -> Tensor:
    """1 x 1 convolutions of the autoencoder's attention are linear layers in diffusers."""
    return value[:, :, 0, 0] if ".attentions." in name and value.ndim == 4 else value
