"""Settings from a TOML file and the command line, and what is said of one that does not fit."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ssl_tilegen.config.knobs import Settings, option_name
from ssl_tilegen.errors import InputError, SettingError

S = TypeVar("S", bound=Settings)


def load_settings(kind: type[S], file: Path | None, options: Mapping[str, Any]) -> S:
    """Settings from a TOML file with ``options`` (those that are not None) on top.

    SettingError for an unknown key or a value out of range, InputError for a file that cannot be read.
    """
    values = _read_toml(file) if file else {}
    values |= {name: value for name, value in options.items() if value is not None}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SettingError(_explain(kind, error, file)) from None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise InputError(f"{file}: cannot read the configuration ({error.strerror}); check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{file}: not valid TOML: {error}") from None


def _explain(kind: type[Settings], error: ValidationError, file: Path | None) -> str:
    """The first complaint, in the user's words."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"{file}: unknown key '{name}'; known are {', '.join(sorted(kind.model_fields))}"
    if first["type"] == "missing":
        return f"{option_name(kind, name)} is missing; see --help"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{option_name(kind, name)} {first['input']}: {reason}" if name else reason
