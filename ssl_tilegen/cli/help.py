"""How `--help` and `--help-all` look: options in groups, one line each, with the default in brackets.

`--help` shows the first sentence of an option's description, and the advanced options by name only. `--help-all`
shows everything.
"""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ssl_tilegen.config.options import ADVANCED, COMMON


class HelpCommand(TyperCommand):
    """A command whose help is written by this module."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the short help into click's formatter."""
        formatter.write(command_help(self, ctx))


class HelpGroup(TyperGroup):
    """A group of commands whose help is written by this module."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands into click's formatter."""
        formatter.write(_group_help(self, ctx))


def show_all(ctx: typer.Context, wanted: bool) -> None:
    """Print the full help and end the program: the callback of `--help-all`."""
    if wanted:
        typer.echo(command_help(ctx.command, ctx, full=True), nl=False)
        raise typer.Exit


def command_help(command: Any, ctx: Any, *, full: bool = False) -> str:
    """The help of one command.

    Args:
        command: The command of Typer.
        ctx: Its context.
        full: Whether to write whole descriptions and the advanced options too.

    Returns:
        The text, lines no wider than the terminal.
    """
    width = _width()
    lines = [*_usage(command, ctx), "", *_prose(command.help or "", width)]
    groups: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        groups.setdefault(_group_of(param), []).append((_names(param), getattr(param, "help", None) or ""))
    rows = [row for group in groups.values() for row in group]
    column = min(max(len(names) for names, _ in rows) + 4, 31)
    for group in sorted(groups, key=[*(g for g in groups if g not in (COMMON, ADVANCED)), ADVANCED, COMMON].index):
        if group == ADVANCED and not full:
            named = ", ".join(re.findall(r"(?<!\S)--?\w[\w-]*", " ".join(names for names, _ in groups[group])))
            lines += ["", _heading("Advanced (explained by --help-all)"), *_wrapped(named, width, "  ")]
        else:
            lines += ["", _heading(group), *_table(groups[group], column, width, full)]
    return "\n".join([*lines, ""])


def _group_help(group: Any, ctx: Any) -> str:
    width = _width()
    commands = [(name, group.get_command(ctx, name)) for name in group.list_commands(ctx)]
    rows = [(name, (command.help or "").partition("\n\n")[0]) for name, command in commands]
    options = [(_names(param), getattr(param, "help", None) or "") for param in group.get_params(ctx)]
    column = max(len(names) for names, _ in rows + options) + 4
    lines = [*_usage(group, ctx), "", *_prose(group.help or "", width)]
    lines += ["", _heading("Commands"), *_table(rows, column, width)]
    lines += ["", _heading("Options"), *_table(options, column, width)]
    return "\n".join([*lines, *(["", *_wrapped(group.epilog, width)] if group.epilog else []), ""])


def _usage(command: Any, ctx: Any) -> list[str]:
    return [f"Usage: {ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}".rstrip()]


def _prose(text: str, width: int) -> list[str]:
    """Paragraphs wrapped to the width; indented lines (examples) as they are."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if lines:
            lines.append("")
        head, _, indented = paragraph.partition("\n    ")
        lines += [_heading(head.rstrip(":"))] if indented else _wrapped(" ".join(head.split()), width)
        lines += [f"  {line.strip()}" for line in indented.splitlines()]
    return lines


def _table(rows: Iterable[tuple[str, str]], column: int, width: int, full: bool = True) -> list[str]:
    """Names on the left, descriptions on the right; a long name moves its description, not the column."""
    lines: list[str] = []
    for names, text in rows:
        left = f"  {names}".ljust(column) if len(names) + 4 <= column else f"  {names}  "
        shown = " ".join(text.split()) if full else short(text)
        if len(left) > column and len(left) + len(shown) > width:
            lines, left = [*lines, left.rstrip()], " " * column
        lines += _wrapped(shown, width, left, " " * column)
    return lines


def short(text: str) -> str:
    """The first sentence of an option's description, and its default."""
    text = " ".join(text.split())
    sentences, bracket, default = text.partition(" [") if text.endswith("]") else (text, "", "")
    first = re.split(r"(?<=[.;]) ", sentences, maxsplit=1)[0].rstrip(".;")
    return f"{first}{bracket}{default}"


def _group_of(param: Any) -> str:
    if param.param_type_name == "argument":
        return "Arguments"
    is_common = param.name in ("help", "help_all")
    return COMMON if is_common else getattr(param, "rich_help_panel", None) or "Options"


def _names(param: Any) -> str:
    """``-o, --out PATH`` of an option, the metavar of an argument."""
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper())
    names = sorted((*param.opts, *param.secondary_opts), key=len)
    metavar = param.metavar or ("" if getattr(param, "is_flag", False) else "TEXT")
    return f"{', '.join(names)} {metavar}".rstrip()


def _wrapped(text: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    rest = first if rest is None else rest
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False) or [first]


def _heading(text: str) -> str:
    return typer.style(f"{text}:", bold=True)


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((80, 24)).columns, 100))
