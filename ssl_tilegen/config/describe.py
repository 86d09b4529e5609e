"""The options of a TOML file: their names, kinds, defaults, units and meanings, as text."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ssl_tilegen.config.loading import settings_within
from ssl_tilegen.config.options import Strict

_WIDTH = 100
_UNITS = {
    "_px": "pixels",
    "_lat": "latents",
    "_cells": "cells",
    "_mib": "MiB",
    "_every": "steps",
    "_from": "steps",
    "steps": "steps",
    "warmup": "steps",
    "mpp": "um per pixel",
    "gsd": "m per pixel",
}
"""The unit of a number, by the end of its name."""
_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


class Option(NamedTuple):
    """One key of a table. ``default`` is TOML; empty where the key must be given, or stays unset if it is not."""

    name: str
    kind: str
    unit: str
    default: str
    required: bool
    meaning: str


class OptionTable(NamedTuple):
    """A table of a TOML file: its dotted name (empty for the top), whether it is one of a list, its options."""

    name: str
    is_list: bool
    meaning: str
    options: list[Option]


def tables_of(settings: type[Strict], name: str = "", *, is_list: bool = False) -> Iterator[OptionTable]:
    """The tables of a class of settings: its own options first, then the tables within."""
    fields = settings.model_fields
    inner = {key: found[0] for key, field in fields.items() if (found := settings_within(field.annotation))}
    own = [option_of(key, field) for key, field in fields.items() if key not in inner]
    yield OptionTable(name, is_list, (settings.__doc__ or "").strip(), own)
    for key, kind in inner.items():
        of_list = get_origin(fields[key].annotation) is list
        yield from tables_of(kind, f"{name}.{key}" if name else key, is_list=of_list)


def option_of(name: str, field: FieldInfo) -> Option:
    """A field as an option."""
    default = field.get_default(call_default_factory=True)
    shown = "" if default is None or default is PydanticUndefined else toml_value(default)
    kind = _kind(field)
    is_number = kind.startswith(("int", "float"))
    unit = next((unit for end, unit in _UNITS.items() if is_number and name.endswith(end)), "")
    meaning = " ".join((field.description or "").replace("``", "`").split())
    return Option(name, kind, unit, shown, field.is_required(), meaning)


def _kind(field: FieldInfo) -> str:
    """The type and range of a value, such as ``int > 0`` or ``none | bf16``."""
    limits = [f"{sign} {value:g}" for limit in field.metadata for name, sign in _LIMITS.items()
              if (value := getattr(limit, name, None)) is not None]  # fmt: skip
    return " ".join([_type(field.annotation), " and ".join(limits)]).strip()


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    parts = [part for part in get_args(annotation) if part not in (type(None), Ellipsis)]
    if get_origin(annotation) in (list, tuple):
        return f"list of {_type(parts[0])}"
    if get_origin(annotation) is dict:
        return "table"
    return " or ".join(_type(part) for part in parts) if parts else getattr(annotation, "__name__", str(annotation))


def toml_value(value: Any) -> str:
    """A number, text, list or table as TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)


def brief(settings: type[Strict]) -> list[str]:
    """A paragraph for each table: its name, and its options with their defaults."""
    lines = []
    for table in tables_of(settings):
        shown = [f"{o.name}={o.default}" if o.default and o.kind != "table" else o.name for o in table.options]
        lines.append(f"{_heading(table) or 'top'}: {', '.join(shown)}")
    return lines


def full(settings: type[Strict]) -> str:
    """Every option with its kind, unit, default and meaning, table by table."""
    lines: list[str] = []
    for table in tables_of(settings):
        lines += [*([f"[[{table.name}]]" if table.is_list else f"[{table.name}]"] if table.name else []),
                  *textwrap.wrap(f"# {table.meaning}", _WIDTH, subsequent_indent="# "), ""]  # fmt: skip
        for option in table.options:
            lines += [_signature(option), *textwrap.wrap(option.meaning, _WIDTH, initial_indent="    ",
                                                         subsequent_indent="    "), ""]  # fmt: skip
    return "\n".join(lines).rstrip()


def _signature(option: Option) -> str:
    unit = f", in {option.unit}" if option.unit else ""
    default = "required" if option.required else f"default: {option.default or 'unset'}"
    return f"{option.name}  ({option.kind}{unit}; {default})"


def _heading(table: OptionTable) -> str:
    return f"{table.name} (a list)" if table.is_list else table.name
