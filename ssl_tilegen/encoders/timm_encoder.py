"""Encoders by name: the registry's, any timm model, a Hugging Face repository, a local folder or file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import timm
import torch
from huggingface_hub.utils import logging as hub_logging
from safetensors.torch import load_file
from torch import Tensor, nn

from ssl_tilegen.config.networks import check_timm
from ssl_tilegen.encoders.base import Normalisation
from ssl_tilegen.encoders.card import EncoderCard
from ssl_tilegen.encoders.hf_keys import to_timm
from ssl_tilegen.encoders.module_encoder import NetworkEncoder
from ssl_tilegen.encoders.positions import stretched
from ssl_tilegen.encoders.registry import ENCODERS
from ssl_tilegen.errors import FormatError, InputError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.nets.torch_files import read_torch_file
from ssl_tilegen.system.boundary import first_line

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")


def load_timm_encoder(
    name: str,
    *,
    weights: str | Path | None = None,
    pooling: str | None = None,
    device: torch.device | str = "cpu",
    batch: int | None = None,
    tile_px: int | None = None,
    resolution: Resolution | None = None,
) -> NetworkEncoder:
    """The encoder called ``name``, with its own normalisation and pooling.

    ``name``: one of the registry, ``hf-hub:ORG/NAME``, ``local-dir:PATH`` or a timm model name (with or without tag).
    ``weights``: a file or folder to load instead of downloading. ``tile_px`` and ``resolution``: other cells than its
    own, which the network sees at its own size. Loading is strict. InputError or FormatError says
    in one line what is missing and what to do.
    """
    hub_logging.set_verbosity_error()  # its retries would bury the one line that helps
    card = ENCODERS.get(name)
    module = _registered(card, weights) if card else _by_name(name, weights)
    card = card or _card_of(name, module)
    return NetworkEncoder(
        name,
        module,
        tile_px=tile_px or card.tile_px,
        input_px=card.tile_px,
        normalisation=card.normalisation,
        pooling=pooling or card.pooling,
        resolution=resolution or (Resolution(card.mpp, "um") if card.mpp else None),
        device=device,
        batch=batch,
    )


def build(card: EncoderCard) -> nn.Module:
    """The network of a registry entry without its weights (use under ``torch.device('meta')`` to cost nothing)."""
    if card.is_own:
        return resolve_name(card.architecture)(**card.args)
    return rebuild({"arch": card.architecture, "arch_args": card.args})


def recipe_of(name: str, module: object = None) -> dict[str, Any]:
    """``arch`` and ``arch_args`` from which `rebuild` makes the network of ``name`` again, as JSON has them; ``module``
    is that network, where its arguments follow from its weights."""
    from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

    card = ENCODERS.get(name)
    if card:
        return {"arch": card.architecture, "arch_args": dict(getattr(module, "own_arguments", card.args))}
    for prefix, load in (("local-dir:", load_model_config_from_path), ("hf-hub:", load_model_config_from_hf)):
        if name.startswith(prefix):
            _, arch, arguments = load(name.removeprefix(prefix))
            return {"arch": arch, "arch_args": {k: v for k, v in (arguments or {}).items() if k != "num_classes"}}
    return {"arch": name, "arch_args": {}}


def rebuild(recipe: Mapping[str, Any]) -> nn.Module:
    """The network of a recipe, with random weights. FormatError for a name or argument that is not allowed."""
    own = {card.architecture: card for card in ENCODERS.values() if card.is_own}
    if recipe.get("arch") in own:
        return build(own[recipe["arch"]])
    check_timm(recipe.get("arch"), recipe.get("arch_args"))
    return timm.create_model(recipe["arch"], pretrained=False, num_classes=0, **_resolved(recipe["arch_args"]))


def _registered(card: EncoderCard, weights: str | Path | None) -> nn.Module:
    if weights is None and card.layout == "timm" and not card.is_own:
        return _create(card.source, card.name, pretrained=True, **_resolved(card.args))
    found = read_weights(Path(weights)) if weights else read_weights(_download(card))
    arguments = {**card.args, **_feed_forward(found)}
    module: Any = rebuild({"arch": card.architecture, "arch_args": arguments})
    module.own_arguments = arguments
    return load_strictly(module, found, card.name, position=card.position)


def _feed_forward(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of a gated feed-forward layer, where weights by transformers' names have one."""
    for ending, halves in ((".mlp.weights_in.weight", 1), (".mlp.gate_proj.weight", 2)):
        inner = next((value for name, value in weights.items() if name.endswith(ending)), None)
        if inner is not None:
            ratio = halves * inner.shape[0] / inner.shape[1]
            return {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU", "mlp_ratio": ratio}
    return {}


def _by_name(name: str, weights: str | Path | None) -> nn.Module:
    if weights is None:
        return _create(name, name, pretrained=True)
    return load_strictly(_create(name, name, pretrained=False), read_weights(Path(weights)), name)


def _create(source: str, name: str, **args: Any) -> nn.Module:
    """timm.create_model with errors that say what to do."""
    folder = source.removeprefix("local-dir:")
    if folder != source and not (Path(folder) / "config.json").is_file():
        raise InputError(f"--encoder {name}: no config.json in {folder}; give a folder as timm's save_for_hf writes it")
    try:
        return timm.create_model(source, num_classes=0, **args)
    except Exception as error:
        raise InputError(f"--encoder {name}: {_remedy(source, error)}") from error


def _download(card: EncoderCard) -> Path:
    """The weights file of a Hugging Face repository, from the cache or the network."""
    from huggingface_hub import hf_hub_download

    if card.layout == "file":
        raise InputError(f"--encoder {card.name}: its weights are on no hub; fetch them from {card.source} and give "
                         "--weights FILE, or import the model with --encoder-weights FILE")  # fmt: skip
    try:
        return Path(hf_hub_download(card.source.removeprefix("hf-hub:"), card.file))
    except Exception as error:
        raise InputError(f"--encoder {card.name}: {_remedy('hf-hub:' + card.source, error)}") from error


def _remedy(source: str, error: Exception) -> str:
    """The reason of a failed build or download and its remedy, in one line."""
    kind, text = type(error).__name__, str(error)
    page = f"https://huggingface.co/{source.removeprefix('hf-hub:')}"
    if "Gated" in kind or "401" in text or "403" in text:
        return f"the weights are gated; accept the licence at {page} and run `hf auth login`, or give --weights FILE"
    if "RepositoryNotFound" in kind:
        return f"no such model at {page}; check the name, or give --weights FILE"
    if "Unknown model" in text or "Invalid pretrained tag" in text or isinstance(error, ValueError):
        return "unknown; `ssl-tilegen models list` shows the known ones, hf-hub:ORG/NAME and timm's names work too"
    if source.startswith("local-dir:"):
        return f"cannot be loaded ({first_line(error)[:200]}); give a folder as timm's save_for_hf writes it"
    return f"cannot be downloaded ({kind}); fetch the weights on a machine with network access and give --weights FILE"


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors or torch file, or of the one such file in a folder. Never runs pickled code."""
    if path.is_dir():
        found = [path / name for name in _WEIGHT_FILES if (path / name).is_file()]
        if not found:
            raise InputError(f"--weights {path}: none of {', '.join(_WEIGHT_FILES)} in it; give the file itself")
        path = found[0]
    if not path.is_file():
        raise InputError(f"--weights {path}: no such file; check the path")
    try:
        tree = load_file(path) if path.suffix == ".safetensors" else read_torch_file(path)
    except Exception as error:
        raise FormatError(
            f"--weights {path}: not a file of weights ({first_line(error)[:200]}); "
            "give .safetensors or a torch file of plain tensors"
        ) from error
    return _unwrapped(tree)


def _unwrapped(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict inside the usual wrappings of checkpoints."""
    for key in ("state_dict", "model", "teacher"):
        if isinstance(tree.get(key), Mapping):
            return _unwrapped(tree[key])
    tensors = {name: value for name, value in tree.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "backbone."):
        if any(name.startswith(prefix) for name in tensors):  # heads beside a backbone have none
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], name: str, position: str = "") -> nn.Module:
    """``module`` with ``weights``, every one of them; classifier heads are left out. FormatError where they differ.

    ``position``: how a table of positions for another side is stretched; '' is timm's own way.
    """
    weights = to_timm(weights) if any(".attention." in key for key in weights) else dict(weights)
    if position and "pos_embed" in weights:
        side = int(module.patch_embed.grid_size[0])  # type: ignore[union-attr,index]
        weights["pos_embed"] = stretched(weights["pos_embed"], side, position)
    if isinstance(module, timm.models.SwinTransformer):
        weights = _of_swin(weights)
    if isinstance(module, timm.models.VisionTransformer):
        weights = timm.models.vision_transformer.checkpoint_filter_fn(weights, module)
    own = set(module.state_dict())
    weights = {key: value for key, value in weights.items() if key in own or not key.startswith(("head.", "fc."))}
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        missing, extra = len(own - set(weights)), len(set(weights) - own)
        raise FormatError(
            f"--weights do not fit {name}: {missing} tensors missing, {extra} unknown or of another "
            "shape; give the weights of this very model"
        ) from error
    return module


def _of_swin(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Swin's weights by the names of today's timm: stages halve at their start (they did at their end), and what can be
    computed is not kept."""
    old = "layers.0.downsample.reduction.weight" in weights
    found = {}
    for name, value in weights.items():
        if name.endswith(("relative_position_index", "attn_mask")):
            continue
        if old:
            name = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name)
        found[name] = value
    return found


def _card_of(name: str, module: nn.Module) -> EncoderCard:
    """The facts of timm about a model that is not in the registry. The user has to look up its licence."""
    known: Mapping[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    size = getattr(getattr(module, "patch_embed", None), "img_size", None) or known["input_size"][1:]
    statistics = Normalisation(tuple(known["mean"]), tuple(known["std"]))
    card = EncoderCard(name, name, name, int(module.num_features), "unknown", mpp=None)  # type: ignore[arg-type]
    return replace(card, tile_px=int(size[0]), normalisation=statistics, pooling="pool")


def _resolved(args: Mapping[str, Any]) -> dict[str, Any]:
    """Layer names of the registry as the classes timm wants."""
    places = {"mlp_layer": timm.layers, "act_layer": nn}
    return {key: getattr(places[key], value) if key in places else value for key, value in args.items()}
