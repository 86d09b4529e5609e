"""The record of a run beside its weights: resolved settings, fingerprints of the data and the weights, versions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from ssl_tilegen import __version__
from ssl_tilegen.bundle.components import weights_sha256
from ssl_tilegen.config.train.common import LOCAL
from ssl_tilegen.system.atomic import write_json
from ssl_tilegen.system.resources import versions

_LIBRARIES = ("torch", "timm", "diffusers", "numpy")
_COMPONENT_OF = {"painter": "denoiser"}


class Data(Protocol):
    """The training data of a stage."""

    def fingerprint(self) -> dict[str, Any]:
        """``files``, and ``sha256`` of all that matters."""
        ...


def component_of(stage: str) -> str:
    """The component of a bundle that a stage trains."""
    return _COMPONENT_OF.get(stage, stage)


def keep_data(data: Data, run_folder: Path) -> bool:
    """Write ``data.json`` into the run; whether there was one that told of other data."""
    path, known = run_folder / "data.json", data.fingerprint()
    try:
        changed = json.loads(path.read_text())["sha256"] != known["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        changed = False
    write_json(path, known, indent=1)
    return changed


def write_run_metadata(stage: str, settings: BaseModel, data: Data, bundle_folder: Path, base: Path) -> None:
    """Write ``training/<stage>.json`` into the bundle; paths count from ``base``."""
    known = data.fingerprint()
    record = {
        "stage": stage,
        "software": f"ssl-tilegen {__version__}",
        "versions": versions(*_LIBRARIES),
        "settings": _relative(settings.model_dump(mode="json"), base),
        "data_sha256": known["sha256"],
        "images": len(known["files"]),
        "weights_sha256": weights_sha256(bundle_folder / component_of(stage)),
    }
    write_json(bundle_folder / "training" / f"{stage}.json", record, indent=1)


def trained_sha256(stage: str, bundle_folder: Path) -> str | None:
    """The weights that ``stage`` left in a bundle; None where it left none, or before these were recorded."""
    try:
        return json.loads((bundle_folder / "training" / f"{stage}.json").read_bytes()).get("weights_sha256")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def changed_settings(kept: Path, settings: BaseModel) -> list[str]:
    """``name old -> new`` of every setting that differs from the file of an earlier run; those of versions that did
    not know a setting do not count."""
    try:
        old = json.loads(kept.read_text())
    except (OSError, ValueError):
        return []
    before, after = _flat(old), _flat(settings.model_dump(mode="json"))
    return [f"{name} {before[name]} -> {after[name]}" for name in sorted(before.keys() & after.keys())
            if before[name] != after[name]]  # fmt: skip


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    """The leaves of nested settings by their dotted names, as they stand in ``--set``."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return leaves


def _relative(value: Any, base: Path) -> Any:
    """Absolute paths inside a tree of settings as ones from ``base`` on: records name no machine."""
    if isinstance(value, dict):
        return {key: _relative(item, base) for key, item in value.items()}
    if isinstance(value, list):
        return [_relative(item, base) for item in value]
    prefix = LOCAL if isinstance(value, str) and value.startswith(LOCAL) else ""
    is_path = isinstance(value, str) and Path(value.removeprefix(prefix)).is_absolute()
    return prefix + os.path.relpath(value.removeprefix(prefix), base.resolve()) if is_path else value
