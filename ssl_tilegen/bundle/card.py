"""The card of a bundle in the hub's form: a YAML head and a page, both from the bundle's metadata."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ssl_tilegen.bundle.components import weight_files
from ssl_tilegen.bundle.model_bundle import ModelBundle
from ssl_tilegen.errors import FormatError
from ssl_tilegen.system.atomic import write_text

FILE = "README.md"
MARK = "<!-- written by ssl-tilegen; remove this line to keep your own text -->"
_SPDX = {"apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
         "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "gpl-3.0"}  # fmt: skip
_DOMAIN_TAGS = {"um": "histopathology", "m": "remote-sensing"}


def write_card(folder: Path) -> bool:
    """Write the card of the bundle in ``folder`` beside its weights, unless somebody wrote one; whether it did."""
    path = folder / FILE
    is_ours = path.is_file() and MARK in path.read_text(encoding="utf-8", errors="replace")
    if os.path.lexists(path) and not is_ours:
        return False
    write_text(path, card_of(ModelBundle(folder)))
    return True


def card_of(bundle: ModelBundle, model: str | None = None) -> str:
    """The card's text; ``model``: the name that users of the card load the bundle by, by default its own."""
    from huggingface_hub import ModelCardData

    info = bundle.info
    tags = ["ssl-tilegen", "diffusion", *dict.fromkeys(_DOMAIN_TAGS[unit] for _, unit in info.resolutions.values())]
    head = ModelCardData(
        library_name="ssl-tilegen",
        tags=tags,
        datasets=info.datasets or None,
        model_name=info.name,
        eval_results=_results(info.scores),
        **_licence(info.licence),
    )
    parts = [
        f"---\n{head.to_yaml()}\n---", MARK, f"# {info.name}", _summary(bundle), _parts(bundle), _origins(bundle),
        _training(bundle), _scores(info.scores), _use(model or info.name),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _licence(text: str) -> dict[str, Any]:
    """The licence as the hub writes it: its identifier where it is a known one, else a name of its first words."""
    name = re.split(r"[;:,(]", text)[0].strip().lower()
    if name in _SPDX:
        return {"license": name}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name).strip("-") or "unknown"}


def _results(scores: dict[str, Any]) -> list[Any] | None:
    """The scores as results of the hub: one for each number, by metric and data."""
    from huggingface_hub import EvalResult

    found = [
        EvalResult(task_type="image-generation", dataset_type=data, dataset_name=data, metric_type=metric,
                   metric_value=value)
        for metric, data, value in _numbers(scores)
    ]  # fmt: skip
    return found or None


def _numbers(scores: dict[str, Any]) -> list[tuple[str, str, float]]:
    found = []
    for metric, values in scores.items():
        for data, value in values.items() if isinstance(values, dict) else [("validation", values)]:
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.append((str(metric), str(data), value))
    return found


def _summary(bundle: ModelBundle) -> str:
    info = bundle.info
    places = ", ".join(f"{domain}: {value:g} {unit}/px" for domain, (value, unit) in info.resolutions.items())
    cell = f"cells of {info.encoder.tile_px} px, vectors of {info.encoder.dim} numbers ({info.encoder.id})"
    kind = "a local denoiser" if info.locality == "local" else f"a denoiser that sees windows of {info.window_px} px"
    lines = ["Paints large images under grids of embeddings. Its images are synthetic and not for diagnosis.",
             f"Resolution: {places or 'not stated'}; {cell}; {kind}.", f"Licence: {info.licence}."]  # fmt: skip
    if info.origin:
        lines.append(f"Origin: {info.origin}.")
    return "\n".join(lines)


def _parts(bundle: ModelBundle) -> str:
    rows = ["| part | class | parameters |", "|---|---|---|"]
    for name in ("encoder", "autoencoder", "denoiser", "conditioner", "prior"):
        if bundle.has(name):
            config = json.loads((bundle.folder / name / "config.json").read_text())
            rows.append(f"| {name} | {config.get('_class_name') or config.get('arch', '')} | {_size(bundle, name)} |")
    return "\n".join(rows)


def _size(bundle: ModelBundle, name: str) -> str:
    """The number of weights, from the headers of the files."""
    from math import prod

    from safetensors import safe_open

    total = 0
    try:
        for path in weight_files(bundle.folder / name):
            with safe_open(path, "pt") as file:
                total += sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    except FormatError:
        return "none"
    return f"{total / 1e6:.1f} M"


def _origins(bundle: ModelBundle) -> str:
    """The parts that are another bundle's still."""
    lines = [
        f"- {name}: of {origin.bundle}, licence: {origin.licence}"
        for name, origin in bundle.info.origins.items()
        if bundle.has(name) and bundle.component_hash(name) == origin.sha256
    ]
    return "\n".join(["## Taken from other bundles", "", *lines]) if lines else ""


def _training(bundle: ModelBundle) -> str:
    rows = []
    for path in sorted((bundle.folder / "training").glob("*.json")):
        try:
            record = json.loads(path.read_text())
            run = record.get("settings", {}).get("run", {})
            length = f"{run.get('steps', '?')} steps of {run.get('batch', '?')}"
            rows.append(
                f"| {record['stage']} | {length} | {record.get('images', '?')} | {record.get('software', '')} |"
            )
        except (OSError, ValueError, KeyError, AttributeError):
            continue
    head = ["## Training", "", "| stage | run | images | software |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) if rows else ""


def _scores(scores: dict[str, Any]) -> str:
    rows = [f"| {metric} | {data} | {value:g} |" for metric, data, value in _numbers(scores)]
    return "\n".join(["## Scores", "", "| metric | data | value |", "|---|---|---|", *rows]) if rows else ""


def _use(name: str) -> str:
    return f"## Use\n\n```sh\nssl-tilegen embed SLIDE.svs -o grid.zarr --model {name}\n" \
           f"ssl-tilegen generate --grid grid.zarr --model {name} -o painted.ome.tif\n```"  # fmt: skip
