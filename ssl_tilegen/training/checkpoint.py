"""The state of a run on disk: written whole, swapped in by renaming, so that a kill leaves the old or the new one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssl_tilegen.errors import FormatError
from ssl_tilegen.system.atomic import flush, flush_tree, remove
from ssl_tilegen.training.ema import EMA
from ssl_tilegen.training.sharding import cut_like, whole

_FOLDER = "checkpoint"


def save_checkpoint(
    out: Path,
    step: int,
    module: nn.Module,
    ema: EMA,
    optimiser: torch.optim.Optimizer,
    *,
    others: Sequence[EMA] = (),
    write: bool = True,
    **more: Any,
) -> None:
    """Write the whole state beside the last one, then swap. ``others``: further averages; ``more``: other parts with a
    ``state_dict`` of numbers.

    Weights that are cut over the processes are made whole first, so all must call this; those that do not ``write``
    do nothing else.
    """
    weights, of_optimiser = whole(_dense(module)), whole(optimiser.state_dict())
    averaged = [_dense(each.gather()) for each in (ema, *others)]
    if not write:
        return
    fresh, old, final = (out / f"{_FOLDER}{suffix}" for suffix in (".new", ".old", ""))
    remove(fresh)
    fresh.mkdir(parents=True)
    save_file(weights, fresh / "weights.safetensors")
    for number, dense in enumerate(averaged):
        save_file(dense, fresh / _average_file(number))
    torch.save(of_optimiser, fresh / "optimiser.pt")
    counts = {"updates": ema.updates, "others": [each.updates for each in others]}
    state = {"step": step} | counts | {name: part.state_dict() for name, part in more.items()}
    (fresh / "state.json").write_text(json.dumps(state))
    flush_tree(fresh)
    if final.exists():
        remove(old)
        final.replace(old)
    fresh.replace(final)
    flush(out)
    remove(old)


def load_checkpoint(
    out: Path,
    module: nn.Module,
    ema: EMA,
    optimiser: torch.optim.Optimizer,
    *,
    others: Sequence[EMA] = (),
    **more: Any,
) -> int:
    """Load the newest whole checkpoint of ``out`` and return its step, 0 where there is none."""
    folder = _newest(out)
    if folder is None:
        return 0
    try:
        state = json.loads((folder / "state.json").read_text())
        _load_cut(module, load_file(folder / "weights.safetensors"))
        counts = [state["updates"], *state.get("others", [])]  # others that were not kept yet start from here
        for number, (each, updates) in enumerate(zip((ema, *others), counts, strict=False)):
            each.module.load_state_dict(load_file(folder / _average_file(number)))
            each.updates = updates
        kept = torch.load(folder / "optimiser.pt", weights_only=True, map_location="cpu")
        optimiser.load_state_dict(_cut_state(kept, optimiser))
        for name, part in more.items():
            if state.get(name):
                part.load_state_dict(state[name])
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(
            f"the checkpoint {folder} does not fit this configuration ({reason}); use --restart"
        ) from None
    for each in (ema, *others):
        each.follow(module)
    return state["step"]


def has_checkpoint(out: Path) -> bool:
    """Whether a run in ``out`` would be continued."""
    return _newest(out) is not None


def _newest(out: Path) -> Path | None:
    return next((f for f in (out / _FOLDER, out / f"{_FOLDER}.old") if f.exists()), None)


def _average_file(number: int) -> str:
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
