"""How the value of an option may be written on the command line or in a TOML file, and its type."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from ssl_tilegen.geometry import Size, Window


def parse_size(value: Any) -> Any:
    """Pixels from 4096, "4096" or "4096x2048" (width x height)."""
    if isinstance(value, int):
        return Size(value, value)
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", value.strip()) if isinstance(value, str) else None
    if isinstance(value, str):
        if not match:
            raise ValueError("expected 4096 or 4096x2048 (width x height)")
        return Size(int(match[2] or match[1]), int(match[1]))
    return value


def parse_region(value: Any) -> Any:
    """A window from "X,Y,W,H" or [x, y, w, h]."""
    if isinstance(value, Window):
        return value
    x, y, width, height = _numbers(value, int, 4, "expected X,Y,WIDTH,HEIGHT")
    return Window(y, x, height, width)


def parse_bands(value: Any) -> Any:
    """Band numbers, from 1, from "1,2,3" or a list."""
    return value if isinstance(value, tuple) else _numbers(value, int, 0, "expected band numbers such as 1,2,3")


def parse_pair(value: Any) -> Any:
    """Two numbers from "LOW,HIGH" or a list."""
    return value if isinstance(value, tuple) else _numbers(value, float, 2, "expected LOW,HIGH")


def parse_names(value: Any) -> Any:
    """Names from "a,b,c" or a list, at least one."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        return value
    names = tuple(name.strip() for name in given if name.strip())
    if not names:
        raise ValueError("is empty; give one or more names, with commas between them")
    return names


def parse_shard(value: Any) -> Any:
    """(index, count) from "I/N" or a list of two whole numbers, I from 0."""
    match = re.fullmatch(r"(\d+)/(\d+)", value.strip()) if isinstance(value, str) else None
    given = [int(number) for number in match.groups()] if match else value
    is_pair = isinstance(given, list | tuple) and len(given) == 2 and all(isinstance(part, int) for part in given)
    if not is_pair or not 0 <= given[0] < given[1]:
        raise ValueError("expected I/N with I from 0 to N - 1, such as 0/4")
    return tuple(given)


def _numbers(value: Any, kind: type, count: int, expected: str) -> tuple[Any, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        numbers = tuple(kind(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError(expected) from None
    if count and len(numbers) != count:
        raise ValueError(expected)
    return numbers


SizePx = Annotated[Size, BeforeValidator(parse_size)]
Region = Annotated[Window, BeforeValidator(parse_region)]
Bands = Annotated[tuple[int, ...], BeforeValidator(parse_bands)]
Pair = Annotated[tuple[float, float], BeforeValidator(parse_pair)]
Names = Annotated[tuple[str, ...], BeforeValidator(parse_names)]
Shard = Annotated[tuple[int, int], BeforeValidator(parse_shard)]
