"""Settings from a TOML file and the command line, and the one line that is said of settings that do not fit.

All commands use this loader: the flat options of most of them, and the nested ones of the stages of `train`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ssl_tilegen.config.options import Strict, option_name
from ssl_tilegen.errors import InputError, SettingError
from ssl_tilegen.system.boundary import reason_of
from ssl_tilegen.system.outputs import require_plain

S = TypeVar("S", bound=Strict)


def load_settings(
    kind: type[S], file: Path | None, options: Mapping[str, Any] | None = None, overrides: Iterable[str] = ()
) -> S:
    """Read settings from a TOML file, with command-line values on top.

    Args:
        kind: The class of settings. Keys that it has ``renamed`` are read under their old names too.
        file: TOML file, or None.
        options: Values by field name; those that are None were not given.
        overrides: ``"a.b=value"`` pairs, where the value is TOML or plain text; items of lists are counted from 0.

    Raises:
        SettingError: An unknown key or a value out of range.
        InputError: The file cannot be read.
    """
    values = read_toml(file) if file else {}
    for old, new in kind.renamed.items():
        _rename(values, old.split("."), new.split("."), f"{file}: ")
    for override in overrides:
        _apply(values, override, kind.renamed)
    if file:
        _check_file(kind, values, file)
    values |= {name: value for name, value in (options or {}).items() if value is not None}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SettingError(_explain(kind, error, file)) from None


def _check_file(kind: type[S], values: Mapping[str, Any], file: Path) -> None:
    """SettingError for a value of the file that does not fit, even where an option takes its place; what is missing in
    the file, or does not fit other values of it, may come right with the options."""
    try:
        kind.model_validate(values)
    except ValidationError as error:
        wrong = next((first for first in error.errors() if _is_of_a_value(first)), None)
        if wrong:
            raise SettingError(_explained(kind, wrong, file)) from None


def _is_of_a_value(first: Any) -> bool:
    """Whether a complaint is about one value, not about several together."""
    together = first["type"] == "value_error" and isinstance(first["input"], Mapping)
    return bool(first["loc"]) and first["type"] != "missing" and not together


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a TOML file (UTF-8, with or without a byte order mark)."""
    require_plain(file, "--config")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{file}: cannot read the configuration ({error.strerror}); check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{file}: not valid TOML: {reason_of(error)}") from None


def _rename(tree: dict[str, Any], old: list[str], new: list[str], where: str) -> None:
    """Move a value to the name that its key has today."""
    inner: Any = tree
    for parent in old[:-1]:
        inner = inner.get(parent) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or old[-1] not in inner:
        return
    if new[-1] in inner:
        raise SettingError(f"{where}'{'.'.join(old)}' is the old name of '{'.'.join(new)}'; give one of the two")
    inner[new[-1]] = inner.pop(old[-1])


def _apply(tree: dict[str, Any], override: str, renamed: Mapping[str, str]) -> None:
    """Put one ``a.b=value`` into the tree."""
    given, equals, text = override.partition("=")
    if not equals:
        raise SettingError(f"--set {override}: expected key=value, such as run.steps=2000")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    key = renamed.get(given.strip(), given.strip())
    *parents, last = key.split(".")
    inner: Any = tree
    try:
        for parent in parents:
            inner = inner[int(parent)] if isinstance(inner, list) else inner.setdefault(parent, {})
        inner[int(last) if isinstance(inner, list) else last] = value
    except (AttributeError, IndexError, TypeError, ValueError):
        raise SettingError(
            f"--set {given}: no such key; items of a list are numbered from 0, as in data.sources.0.mpp"
        ) from None


def _explain(kind: type[Strict], error: ValidationError, file: Path | None) -> str:
    """The first complaint in one line: about an option of the command line, or about a key of a file."""
    return _explained(kind, error.errors()[0], file)


def _explained(kind: type[Strict], first: Any, file: Path | None) -> str:
    place, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    option = option_name(kind, str(first["loc"][0])) if first["loc"] else ""
    where = f"{file}: " if file and not option else ""
    if first["type"] == "extra_forbidden":
        return f"{where}unknown {'key' if file else 'option'} '{place}'; {_near(kind, first['loc'])}"
    if first["type"] == "missing":
        return f"{option} is missing; see --help" if option else (
            f"{where}'{place}' is missing; add it, or give --set {place}=VALUE"
        )  # fmt: skip
    if not place:
        return f"{where}{reason}"
    given = f"{option} {first['input']}".rstrip()  # which may be the empty text
    return f"{given}: {reason}" if option else f"{where}'{place}': {reason} (got {first['input']!r})"


def _near(kind: type[BaseModel], place: tuple[str | int, ...]) -> str:
    """The remedy for an unknown key: the most similar name, or all known names of its table."""
    *parents, last = place
    known = _keys(kind, parents)
    near = get_close_matches(str(last), known, 1)
    start = "".join(f"{parent}." for parent in parents)
    return f"do you mean '{start}{near[0]}'?" if near else f"known are {', '.join(sorted(known))}"


def _keys(kind: type[BaseModel], parents: list[str | int]) -> list[str]:
    """The keys of the settings that lie within ``kind`` under ``parents``."""
    for parent in parents:
        if isinstance(parent, int):
            continue  # an item of a list: its kind is that of the list's field
        field = kind.model_fields.get(parent)
        kinds = settings_within(field.annotation) if field else []
        if not kinds:
            return []
        kind = kinds[0]
    return list(kind.model_fields)


def settings_within(annotation: Any) -> list[type[Strict]]:
    """The classes of settings in an annotation such as ``list[SourceSettings]`` or ``ProbeSettings | None``."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, Strict) else []
    return [kind for part in get_args(annotation) for kind in settings_within(part)]
