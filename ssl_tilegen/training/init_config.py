"""A configuration of a stage that works as it is, from a bundle and a folder of images.

The resolutions, the network, the windows and the statistics come from the bundle; every other option of the stage is
listed with its default, commented out.
"""

from __future__ import annotations

import csv
import json
import os
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ssl_tilegen.bundle import BUILT_IN, ModelBundle
from ssl_tilegen.bundle.hub import is_hub_name
from ssl_tilegen.config.describe import Option, OptionTable, tables_of, toml_value
from ssl_tilegen.config.train import STAGES
from ssl_tilegen.encoders.bundle_encoder import has_encoder
from ssl_tilegen.errors import InputError, SettingError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.io.image_files import PLAIN_SUFFIXES, images_among
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.system.atomic import publish_files, remove, temporary_beside
from ssl_tilegen.system.csv_table import defused_row
from ssl_tilegen.system.marks import text_signature

_LOOKED_AT = 20
_STEPS, _SAVE_EVERY = 2000, 200
_LR, _IMPORTED_LR = 3e-4, 2e-5
"""Rates at which a denoiser is trained on: ours, and a published one of hundreds of millions of weights."""
_WIDTH = 110
Values = dict[str, dict[str, Any]]
"""Table of the TOML file (empty for the top) -> its keys and values."""


class SourceTable(NamedTuple):
    """Images of one unit of resolution. ``said`` is the resolution of those that do not say theirs, or None."""

    paths: list[Path]
    unit: str
    said: Resolution | None


class InitialValues(NamedTuple):
    """The inputs of a configuration."""

    bundle: ModelBundle
    name: str
    """The bundle as the configuration names it."""
    sources: list[SourceTable]
    images: Path
    out: Path


def init_config(
    stage: str,
    bundle: str,
    images: Path,
    out: Path,
    said: Resolution | None = None,
    before: Callable[[], object] = lambda: None,
) -> list[Path]:
    """Write a commented TOML file for ``stage``, and for a prior the table it needs beside it.

    Args:
        stage: A stage of `train`.
        bundle: A built-in bundle by name, or a folder.
        images: Folder of images; for a prior of folders of images, one per label.
        out: The TOML file.
        said: The resolution of images that do not say theirs; None: the bundle's, where it has only one.
        before: Asked, before the files get their names, whether they still may.

    Returns:
        The files written.

    Raises:
        SettingError: The stage is unknown, or the bundle lacks a part that the stage needs.
        InputError: There are no images, or their resolution cannot be known.
    """
    if stage not in STAGES:
        raise SettingError(f"unknown stage '{stage}': use one of {', '.join(STAGES)}")
    loaded = ModelBundle.load(bundle)
    name = bundle if bundle in BUILT_IN or is_hub_name(bundle) else _path_from(out.parent, loaded.folder)
    start = InitialValues(loaded, name, _sources(images, loaded, said), images, out)
    values: Values = {"run": {"steps": _STEPS, "save_every": _SAVE_EVERY, "sample_every": _SAVE_EVERY}}
    for table, own in _VALUES[stage](start).items():
        values[table] = values.get(table, {}) | own
    lists = {"data.sources": [_source_values(start, source) for source in start.sources]} if stage != "prior" else {}
    text = "\n".join([f"# Stage {stage}, from the bundle {name}. Options that are commented out have their defaults.",
                      f"# ssl-tilegen train {stage} --config {out.name}", "",
                      *_lines(list(tables_of(STAGES[stage].settings)), values, lists)])  # fmt: skip
    return _publish(text, _table_rows(start) if stage == "prior" else None, out, before)


def table_of(out: Path) -> Path:
    """The table beside the configuration of a prior."""
    return out.with_suffix(".csv")


def _publish(text: str, rows: list[dict[str, Any]] | None, out: Path, before: Callable[[], object]) -> list[Path]:
    """Write the configuration, signed, and the table: both or none."""
    out.parent.mkdir(parents=True, exist_ok=True)
    config, table = (temporary_beside(path) for path in (out, table_of(out)))
    try:
        if rows is not None:
            with table.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ("path", "label", "mpp", "gsd"))
                writer.writeheader()
                writer.writerows(map(defused_row, rows))
        signature = text_signature(text, table if rows is not None else None)
        config.write_text(f"{text}\n{signature}\n", encoding="utf-8")
        publish_files([*([(table, table_of(out))] if rows is not None else []), (config, out)], before)
    finally:
        remove(config)
        remove(table)
    return [out, *([table_of(out)] if rows is not None else [])]


def _sources(images: Path, bundle: ModelBundle, said: Resolution | None) -> list[SourceTable]:
    """The images of a folder by suffix, grouped by the unit of their resolution."""
    found = [images] if images.is_file() else list(images_among(images.rglob("*.*")))
    found = [path for path in found if not any(parent.suffix == ".zarr" for parent in path.parents)]
    if not found:
        raise InputError(f"{images}: has no images; give a folder of slides, rasters or other images")
    of_suffix: dict[str, list[Path]] = defaultdict(list)
    for path in found:
        of_suffix[path.suffix.lower()].append(path)
    groups: dict[tuple[str, Resolution | None], list[Path]] = defaultdict(list)
    for suffix, paths in of_suffix.items():
        own = None if suffix in PLAIN_SUFFIXES else _resolution(paths[:: max(1, len(paths) // _LOOKED_AT)])
        missing = None if own else said or _only(bundle, paths[0])
        groups[(own or missing).unit, missing] += paths  # type: ignore[union-attr]
    return [SourceTable(paths, unit, missing) for (unit, missing), paths in groups.items()]


def _resolution(paths: list[Path]) -> Resolution | None:
    """The resolution of the first of the images that says one."""
    for path in paths:
        with open_raster(path) as raster:
            if raster.resolution:
                return raster.resolution
    return None


def _only(bundle: ModelBundle, path: Path) -> Resolution:
    known = [Resolution(*value) for value in bundle.info.resolutions.values()]
    if len(known) != 1:
        domains = ", ".join(f"{name} {Resolution(*value)}" for name, value in bundle.info.resolutions.items())
        raise InputError(f"{path}: its resolution is unknown; give --mpp or --gsd (the bundle's: {domains or 'none'})")
    return known[0]


def _source_values(start: InitialValues, source: SourceTable) -> dict[str, Any]:
    base, folder = start.out.parent, start.images
    suffixes = sorted({path.suffix for path in source.paths})
    whole = len(start.sources) == 1 and folder.is_dir()
    globs = [str(folder / "**" / f"*{suffix}") for suffix in suffixes] if folder.is_dir() else [str(folder)]
    domains = [name for name, (_, unit) in start.bundle.info.resolutions.items() if unit == source.unit]
    values: dict[str, Any] = {"paths": [_path_from(base, Path(p)) for p in ([str(folder)] if whole else globs)],
                              "domain": domains[0] if domains else "image"}  # fmt: skip
    if source.said:
        values["mpp" if source.unit == "um" else "gsd"] = source.said.value
    return values


def _path_from(base: Path, path: Path) -> str:
    """A path from the folder ``base`` on."""
    return Path(os.path.relpath(path.absolute(), base.absolute())).as_posix()


def _config_of(start: InitialValues, component: str) -> dict[str, Any]:
    """The configuration of a network of the bundle."""
    if not start.bundle.has(component):
        return {}
    found = json.loads((start.bundle.folder / component / "config.json").read_text())
    return {key: value for key, value in found.items() if key != "_diffusers_version" and value is not None}


def _needed(start: InitialValues, *components: str) -> None:
    for component in components:
        if not start.bundle.has(component) and not (component == "encoder" and has_encoder(start.bundle)):
            raise SettingError(f"{start.name}: has no {component}, which this stage needs")


def _of_encoder(start: InitialValues) -> Values:
    config, info = _config_of(start, "encoder"), start.bundle.info.encoder
    _needed(start, "encoder")
    if config.get("pretrained") or not config:
        return {"": {"pretrained": config.get("pretrained", info.id)}}
    layout = {"layout_dim": info.layout_dim, "dim": info.dim} | (
        {"layout_px": config["layout_px"]} if info.layout_dim else {})  # fmt: skip
    own = {"start_from": start.name, "tile_px": info.tile_px, "arch": config["arch"],
           "features": config.get("features", info.dim), **layout}  # fmt: skip
    if min(own["tile_px"] // 2, 32) != 32:
        own["local_px"] = own["tile_px"] // 2
    return {"": own, "arch_args": config.get("arch_args", {})}


def _of_autoencoder(start: InitialValues) -> Values:
    _needed(start, "autoencoder")
    step = max(start.bundle.factor, 8)
    return {"": {"start_from": start.name, "train_only": "decoder", "window_px": max(step, 128 // step * step)}}


def _of_denoiser(start: InitialValues) -> Values:
    _needed(start, "encoder", "autoencoder", "denoiser")
    own = {"bundle": start.name, "start_from": start.name, "window_lat": start.bundle.window_lat}
    return {"": own, "run": {"lr": _IMPORTED_LR if start.bundle.info.origin else _LR}}


def _of_painter(start: InitialValues) -> Values:
    _needed(start, "encoder", "autoencoder", "denoiser")
    own = {"bundle": start.name, "window_lat": start.bundle.window_lat}
    tile_lat = start.bundle.info.encoder.tile_px // start.bundle.factor
    values: Values = {"": own | ({"consistency_weight": 0.0} if tile_lat > start.bundle.window_lat else {})}
    return values | ({"run": {"lr": _IMPORTED_LR}} if start.bundle.info.origin else {})


def _of_prior(start: InitialValues) -> Values:
    _needed(start, "encoder")
    config = _config_of(start, "prior")
    net = {key: value for key, value in config.items() if key not in ("dim", "condition_dim", "labels")}
    window = {"window_cells": config["window"]} if config.get("window") else {}
    return {"": {"table": start.out.with_suffix(".csv").name, "bundle": start.name} | window, "net": net}


_VALUES: dict[str, Callable[[InitialValues], Values]] = {
    "encoder": _of_encoder,
    "autoencoder": _of_autoencoder,
    "denoiser": _of_denoiser,
    "painter": _of_painter,
    "prior": _of_prior,
}
"""Stage -> its options by the bundle."""


def _table_rows(start: InitialValues) -> list[dict[str, Any]]:
    """The table of a prior: every image, with the name of its folder as the label."""
    path = table_of(start.out)
    rows: list[dict[str, Any]] = []
    for source in start.sources:
        own: dict[str, Any] = {"mpp": "", "gsd": ""}
        if source.said:
            own["mpp" if source.unit == "um" else "gsd"] = source.said.value
        rows += [{"path": _path_from(path.parent, image), "label": image.parent.name} | own for image in source.paths]
    return rows


def _lines(tables: list[OptionTable], values: Values, lists: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """The file, table by table."""
    free = {table.name for table in tables}
    for table in tables:
        for number, own in enumerate(lists.get(table.name, []) if table.is_list else [values.get(table.name, {})]):
            if table.name:
                heading = f"[[{table.name}]]" if table.is_list else f"[{table.name}]"
                wanted = own or not any(option.required for option in table.options)
                yield heading if wanted else f"# {heading}"
            for option in table.options:
                yield from _option_lines(option, own, explained=not number)
            yield ""
        if not table.name:  # tables that a stage passes on, such as [net]
            for option in table.options:
                if option.kind == "table" and option.name not in free and values.get(option.name):
                    yield from [f"[{option.name}]", *(f"{key} = {toml_value(value)}"
                                                      for key, value in values[option.name].items()), ""]  # fmt: skip


def _option_lines(option: Option, own: dict[str, Any], *, explained: bool) -> Iterator[str]:
    if option.kind == "table":
        return
    if explained:
        yield from textwrap.wrap(option.meaning, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    if option.name in own:
        yield f"{option.name} = {toml_value(own[option.name])}"
    elif explained:
        yield f"# {option.name} = {option.default or '(unset)'}"
