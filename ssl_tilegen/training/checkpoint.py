"""The state of a run on disk: written whole, swapped in by renaming, so that a kill leaves the old or the new one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssl_tilegen.errors import FormatError
from ssl_tilegen.training.average import Average

_FOLDER = "checkpoint"


def save_checkpoint(
    out: Path, step: int, module: nn.Module, average: Average, optimiser: torch.optim.Optimizer, **more: Any
) -> None:
    """Write the whole state beside the last one, then swap. ``more``: other parts with a ``state_dict`` of numbers."""
    fresh, old, final = (out / f"{_FOLDER}{suffix}" for suffix in (".new", ".old", ""))
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(_dense(module), fresh / "weights.safetensors")
    save_file(_dense(average.module), fresh / "average.safetensors")
    torch.save(optimiser.state_dict(), fresh / "optimiser.pt")
    state = {"step": step, "updates": average.updates} | {name: part.state_dict() for name, part in more.items()}
    (fresh / "state.json").write_text(json.dumps(state))
    _reach_the_disk(fresh)
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.replace(old)
    fresh.replace(final)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    out: Path, module: nn.Module, average: Average, optimiser: torch.optim.Optimizer, **more: Any
) -> int:
    """Load the newest whole checkpoint of ``out`` and return its step, 0 where there is none."""
    folder = next((f for f in (out / _FOLDER, out / f"{_FOLDER}.old") if f.exists()), None)
    if folder is None:
        return 0
    try:
        state = json.loads((folder / "state.json").read_text())
        module.load_state_dict(load_file(folder / "weights.safetensors"))
        average.module.load_state_dict(load_file(folder / "average.safetensors"))
        optimiser.load_state_dict(torch.load(folder / "optimiser.pt", weights_only=True, map_location="cpu"))
        average.updates = state["updates"]
        for name, part in more.items():
            if state.get(name):
                part.load_state_dict(state[name])
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(
            f"the checkpoint {folder} does not fit this configuration ({reason}); use --restart"
        ) from None
    return state["step"]


def _dense(module: nn.Module) -> dict[str, Tensor]:
    """The state with memory of its own and in the usual order, as safetensors wants it."""
    return {key: value.contiguous() for key, value in module.state_dict().items()}


def _reach_the_disk(folder: Path) -> None:
    """Flush the files, so that a rename can never be on the disk before what it names."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
