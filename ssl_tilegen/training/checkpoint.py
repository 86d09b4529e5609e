"""The state of a run on disk: written whole, swapped in by renaming, so that a kill leaves the old or the new one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssl_tilegen.errors import FormatError, OutputError
from ssl_tilegen.nets.torch_files import read_torch_file
from ssl_tilegen.system.atomic import flush, flush_tree, is_temporary, remove
from ssl_tilegen.system.boundary import reason_of
from ssl_tilegen.training.ema import EMA
from ssl_tilegen.training.sharding import cut_like, whole

_FOLDER = "checkpoint"
FILES = r"(weights|average(-\d+)?)\.safetensors|optimiser\.pt|state\.json"
"""Names in the folder of a checkpoint."""
_Count = Annotated[int, Field(ge=0, lt=1 << 53, strict=True)]
_BROKEN = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError, SafetensorError)


class RunState(BaseModel):
    """``state.json``: the step that a run has come to, the updates of its averages, the state of its gradient scaler.
    That is empty where none is needed."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    step: _Count
    updates: _Count
    others: list[_Count] = Field(default=[], max_length=1000)
    scaler: dict[str, float | int] = Field(default_factory=dict, max_length=100)


def save_checkpoint(
    out: Path,
    step: int,
    module: nn.Module,
    ema: EMA,
    optimiser: torch.optim.Optimizer,
    *,
    others: Sequence[EMA] = (),
    scaler: torch.amp.GradScaler | None = None,
    write: bool = True,
) -> None:
    """Write the whole state beside the last one, then swap. ``others``: further averages.

    Weights that are cut over the processes are made whole first, so all must call this; those that do not ``write``
    do nothing else.
    """
    weights, of_optimiser = whole(_dense(module)), whole(optimiser.state_dict())
    averaged = [_dense(each.gather()) for each in (ema, *others)]
    if not write:
        return
    fresh, old, final = (out / f"{_FOLDER}{suffix}" for suffix in (".new", ".old", ""))
    _remove(fresh, out)
    fresh.mkdir(parents=True)
    save_file(weights, fresh / "weights.safetensors")
    for number, dense in enumerate(averaged):
        save_file(dense, fresh / _ema_file(number))
    torch.save(of_optimiser, fresh / "optimiser.pt")
    state = RunState(step=step, updates=ema.updates, others=[each.updates for each in others],
                     scaler=scaler.state_dict() if scaler else {})  # fmt: skip
    (fresh / "state.json").write_text(state.model_dump_json())
    flush_tree(fresh)
    if final.exists():
        _remove(old, out)
        final.replace(old)
    fresh.replace(final)
    flush(out)
    _remove(old, final)


def _remove(folder: Path, spare: Path) -> None:
    """Remove a folder of ours; what a user has put into it is moved to ``spare``."""
    known = re.compile(FILES)
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        if not known.fullmatch(entry.name) and not is_temporary(entry.name):
            if os.path.lexists(spare / entry.name):
                raise OutputError(f"{entry}: is no part of a checkpoint, and is in its way; move it away")
            entry.rename(spare / entry.name)
    remove(folder)


def load_checkpoint(
    out: Path,
    module: nn.Module,
    ema: EMA,
    optimiser: torch.optim.Optimizer,
    *,
    others: Sequence[EMA] = (),
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Load the newest whole checkpoint of ``out`` and return its step, 0 where there is none. FormatError where it is
    damaged or is of another configuration."""
    folder = _newest(out)
    if folder is None:
        return 0
    try:
        state = RunState.model_validate_json((folder / "state.json").read_bytes())
        _load_cut(module, load_file(folder / "weights.safetensors"))
        counts = [state.updates, *state.others]  # others that were not kept yet start from here
        for number, (each, updates) in enumerate(zip((ema, *others), counts, strict=False)):
            each.module.load_state_dict(load_file(folder / _ema_file(number)))
            each.updates = updates
        kept = dict(read_torch_file(folder / "optimiser.pt"))
        optimiser.load_state_dict(_cut_state(kept, optimiser))
        if scaler and state.scaler:
            scaler.load_state_dict(state.scaler)
    except _BROKEN as error:
        raise FormatError(
            f"the checkpoint {folder} is damaged or of another configuration ({_reason(error)}); use --restart"
        ) from None
    for each in (ema, *others):
        each.follow(module)
    return state.step


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"state.json: {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
    return reason_of(error)[:200]


def has_checkpoint(out: Path) -> bool:
    """Whether a run in ``out`` would be continued."""
    return _newest(out) is not None


def _newest(out: Path) -> Path | None:
    return next((f for f in (out / _FOLDER, out / f"{_FOLDER}.old") if f.exists()), None)


def _ema_file(number: int) -> str:
    return f"average{f'-{number}' if number else ''}.safetensors"


def _load_cut(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load whole weights into a module whose own may be cut over the processes."""
    own = module.state_dict()
    module.load_state_dict({key: cut_like(value, own.get(key, value)) for key, value in weights.items()})


def _cut_state(state: dict[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole optimiser's state with every tensor of a parameter's shape cut as that parameter is."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    known = {
        index: {name: cut_like(v, parameters[index]) if isinstance(v, Tensor) else v for name, v in numbers.items()}
        for index, numbers in state["state"].items()
    }
    return state | {"state": known}


def _dense(module: nn.Module) -> dict[str, Tensor]:
    """The state with memory of its own and in the usual order, as safetensors wants it."""
    return {key: value.contiguous() for key, value in module.state_dict().items()}
