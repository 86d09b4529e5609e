"""Components of a bundle: networks in folders of ``config.json`` and safetensors, written and read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssl_tilegen.bundle.info import read_json
from ssl_tilegen.errors import FormatError
from ssl_tilegen.nets import build_component
from ssl_tilegen.nets.hollow import without_values
from ssl_tilegen.prior.spec import PriorInfo
from ssl_tilegen.system.atomic import publish_folder, remove, temporary_beside
from ssl_tilegen.system.hashing import sha256_of_folder
from ssl_tilegen.system.metadata import foreign_in

SHARD = "14MB"
_NAMES = r"config\.json|prior\.json|.+\.safetensors|.+\.safetensors\.index\.json"


def save_component(
    module: Any, folder: Path, config: dict[str, Any] | None = None, *, exact: bool = False, facts: str | None = None
) -> None:
    """Write a network in float16 (``exact``: as it is), in shards below 15 MiB; ``config`` for those that are no
    diffusers models; ``facts``: the text of ``prior.json``. What was in ``folder`` is there until the new one is
    whole."""
    half = {key: value.cpu().contiguous() if exact else _half(value) for key, value in module.state_dict().items()}
    part = temporary_beside(folder)
    try:
        part.mkdir(parents=True)
        _save_into(part, module, half, config)
        if facts is not None:
            (part / "prior.json").write_text(facts, encoding="utf-8")
        publish_folder(part, folder, replace=True, mark=component_mark)
    finally:
        remove(part)


def _save_into(folder: Path, module: Any, half: dict[str, Tensor], config: dict[str, Any] | None) -> None:
    if config is None:
        module.save_config(folder)
        from huggingface_hub import save_torch_state_dict

        save_torch_state_dict(half, folder, filename_pattern="diffusion_pytorch_model{suffix}.safetensors",
                              max_shard_size=SHARD)  # fmt: skip
    else:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(half, folder / "model.safetensors")
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes them for their owner alone, but bundles are shared


def _half(value: Tensor) -> Tensor:
    return value.detach().cpu().half().contiguous() if value.is_floating_point() else value.detach().cpu()


def save_prior(module: Any, info: PriorInfo, folder: Path) -> None:
    """Put a prior into the bundle at ``folder``."""
    save_component(module, folder / "prior", facts=info.model_dump_json(indent=2) + "\n")


def load_component(folder: Path) -> nn.Module:
    """The network in a folder. FormatError where its configuration and its weights do not fit."""
    config = read_json(folder / "config.json")
    return filled(lambda: build_component(config), folder)


def filled(build: Callable[[], nn.Module], folder: Path) -> nn.Module:
    """The network that ``build`` makes with the weights in ``folder``, strictly; nothing of it is allocated before the
    shapes are known to fit. FormatError where they do not, or where it cannot be built."""
    weights: dict[str, Tensor] = {}
    try:
        files = weight_files(folder)
        _check_shapes(build, files)
        for path in files:
            weights |= load_file(path)
        module = build()
        module.load_state_dict({key: value.float() if value.is_floating_point() else value
                                for key, value in weights.items()})  # fmt: skip
    except FormatError as error:
        raise error if str(folder) in str(error) else FormatError(f"{folder}: {error}") from None
    except (OSError, SafetensorError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{folder}: the weights do not fit the configuration ({reason})") from None
    return module


def _check_shapes(build: Callable[[], nn.Module], files: list[Path]) -> None:
    """ValueError where the files hold other tensors than the network has, by their headers alone."""
    found: dict[str, list[int]] = {}
    for path in files:
        with safe_open(path, "pt") as file:
            found |= {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    try:
        with without_values():
            wanted = {name: list(tensor.shape) for name, tensor in build().state_dict().items()}
    except NotImplementedError:  # of a network that computes something while it is built
        return
    differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if differing:
        name = differing[0]
        raise ValueError(
            f"{len(differing)} tensors differ, the first {name}: {found.get(name)} in the file, {wanted.get(name)} in "
            "the network"
        )


def component_mark(folder: Path) -> str | None:
    """A part of a bundle: its configuration, its weights, and nothing else."""
    if not folder.is_dir():
        return "no config.json: it is no folder"
    if not any(folder.iterdir()):
        return None
    if not (folder / "config.json").is_file():
        return "no config.json"
    strange = foreign_in(folder, _NAMES)
    return f"'{strange}' in it, which is no part of it" if strange else None


def weights_sha256(folder: Path) -> str | None:
    """A hash of a component's weights, whatever its configuration says; None where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    return sha256_of_folder(folder, files) if files else None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component: those that its index names, or the only one. FormatError where there are
    none, or several and no index."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    found = sorted(folder.glob("*.safetensors"))
    if len(indices) > 1 or (not indices and len(found) > 1):
        raise FormatError(f"{folder}: several files of weights and no single index; keep those of one save")
    if not indices:
        if not found:
            raise FormatError(f"{folder}: no weights (*.safetensors); the bundle is incomplete")
        return found
    named = read_json(indices[0]).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise FormatError(f"{indices[0]}: has no weight_map; the bundle is broken")
    names = sorted({str(name) for name in named.values()})
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise FormatError(f"{indices[0]}: names {name!r}, which is no file in {folder}; the bundle is incomplete")
    return [folder / name for name in names]
