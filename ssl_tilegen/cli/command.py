"""How a function becomes a command: its options from the settings of `ssl_tilegen.config`, errors as one line."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from ssl_tilegen import __version__
from ssl_tilegen.cli.console import Console, plain
from ssl_tilegen.cli.help import HelpCommand, HelpGroup, show_all
from ssl_tilegen.config import (
    Settings,
    load_settings,
)
from ssl_tilegen.config.options import ADVANCED, MAX_GIB_MEANING, MAX_GPX_MEANING
from ssl_tilegen.errors import SettingError
from ssl_tilegen.system.boundary import (
    explain,
)
from ssl_tilegen.system.budget import MAX_GPX, limits
from ssl_tilegen.system.signals import catching_signals

HELP = "Embed slides and aerial images into grids of vectors, and paint images of any size from such grids."
EPILOG = "Exit codes: 0 done, 1 an error you can mend, 2 wrong usage, 3 some inputs failed, 130/143 interrupted."

PLAIN: dict[str, Any] = {
    "add_completion": False, "pretty_exceptions_enable": False, "no_args_is_help": True, "cls": HelpGroup
}  # fmt: skip
app = typer.Typer(help=HELP, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}, **PLAIN)


def finite(value: float | None) -> float | None:
    """The value of an option; BadParameter where it is infinite or no number."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


MEASURE: dict[str, Any] = {"metavar": "X", "callback": finite}
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file with these options. Options given here win.",
        rich_help_panel="Common",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON summary on stdout.", rich_help_panel="Common")]
LogFormat = Annotated[
    Literal["text", "json"],
    typer.Option(
        "--log-format",
        metavar="text|json",
        help="Form of the lines on stderr. [text]",
        show_default=False,
        rich_help_panel="Common",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Common")]
HelpAll = Annotated[
    bool,
    typer.Option("--help-all", help="Explain every option in full.", is_eager=True, callback=show_all),
]
MaxGpx = Annotated[
    float | None,
    typer.Option(
        "--max-gpx", metavar="X", help=f"{MAX_GPX_MEANING} [{MAX_GPX:g}]", show_default=False, rich_help_panel=ADVANCED
    ),
]
MaxGib = Annotated[
    float | None,
    typer.Option(
        "--max-gib", metavar="X", help=f"{MAX_GIB_MEANING} [most of what is free]", show_default=False,
        rich_help_panel=ADVANCED,
    ),
]  # fmt: skip
Body = Callable[..., tuple[Any, str]]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a finished output.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        console = Console()
        _run(console, False, lambda: console.summary(None, f"ssl-tilegen {__version__}"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def command(settings: type[Settings] | None = None, group: typer.Typer = app) -> Callable[[Body], Body]:
    """Make ``body(console, [settings,] own parameters...) -> (summary, text)`` a command.

    The options of ``settings`` and the common ones are added, and errors become one line and an exit code.
    """

    def register(body: Body) -> Body:
        def run(**given: Any) -> None:
            console = Console(as_json=given.pop("json"), log_format=given.pop("log_format"))
            debug, _ = given.pop("debug"), given.pop("help_all")
            given_limits = {} if settings else {name: given.pop(name) for name in ("max_gpx", "max_gib")}
            with catching_signals():
                own = _run(console, debug, lambda: _arguments(settings, given), usage=given.get("config") is None)
                with _limits_of(own.get("settings"), given_limits):
                    result = _run(console, debug, lambda: body(console, **own))
                _run(console, debug, lambda: console.summary(*result))

        run.__signature__ = _signature(body, settings)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
        group.command(body.__name__.rstrip("_"), help=inspect.getdoc(body), cls=HelpCommand)(run)
        return body

    return register


def _limits_of(settings: Settings | None, given: dict[str, float | None]) -> AbstractContextManager[None]:
    """The limits on sizes that the options (and the configuration file) say."""
    gpx, gib = (settings.max_gpx, settings.max_gib) if settings else (given["max_gpx"], given["max_gib"])
    return limits(gpx, gib)


def _arguments(settings: type[Settings] | None, given: dict[str, Any]) -> dict[str, Any]:
    """The body's own parameters, and the options among ``given`` folded into one settings object."""
    if settings is None:
        return given
    options = {name: given.pop(name) for name in settings.model_fields}
    return given | {"settings": load_settings(settings, given.pop("config"), options)}


def _signature(body: Callable[..., Any], settings: type[Settings] | None) -> inspect.Signature:
    """Parameters for Typer: the body's own, one per option, the common ones. None means that an option was not
    given."""
    own = inspect.signature(body, eval_str=True).parameters.values()
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name not in ("console", "settings")]
    common: dict[str, tuple[Any, Any]] = {
        "json": (Json, False),
        "log_format": (LogFormat, "text"),
        "debug": (Debug, False),
        "help_all": (HelpAll, False),
    }
    if settings is not None:
        options = [_option(settings, name) for name in settings.model_fields]
        parameters += sorted(options, key=lambda option: option.name in Settings.model_fields)  # common ones last
        common = {"config": (Config, None)} | common
    else:
        common |= {"max_gpx": (MaxGpx, None), "max_gib": (MaxGib, None)}
    for name, (annotation, default) in common.items():
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    return inspect.Signature(parameters)


_AS_TYPED = (bool, int, float, str, Path)


def _option(settings: type[Settings], name: str) -> inspect.Parameter:
    """A setting as a Typer option; types that Typer does not know are given as text and parsed by the settings."""
    field = settings.model_fields[name]
    extra: Any = field.json_schema_extra
    required = field.is_required()
    unset = required or field.default is None or field.default is False
    shown = extra["default_text"] or ("" if unset else str(field.default))
    option = typer.Option(
        *extra["options"],
        help=f"{field.description}{' [required]' if required else f' [{shown}]' if shown else ''}",
        metavar=extra.get("metavar") or _metavar(field.annotation),
        show_default=False,
        rich_help_panel=extra["panel"] or None,
    )
    kind = _kind(field.annotation)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _kind(annotation: Any) -> Any:
    """The type to give Typer for a field's annotation, without its None."""
    if get_origin(annotation) is Literal:
        return annotation
    members = [member for member in get_args(annotation) if member is not type(None)] or [annotation]
    return members[0] if members[0] in _AS_TYPED or get_origin(members[0]) is Literal else str


def _metavar(annotation: Any) -> str | None:
    """How the value of an option is written in the help: the choices of a Literal, or a word for the type."""
    members = [member for member in get_args(annotation) if member is not type(None)]
    inner = annotation if get_origin(annotation) is Literal or not members else members[0]
    if get_origin(inner) is Literal:
        return "|".join(get_args(inner))
    return {bool: None, int: "N", float: "X", Path: "PATH"}.get(inner, "TEXT")


def _run(console: Console, debug: bool, call: Callable[[], Any], *, usage: bool = False) -> Any:
    """The result of ``call``, with errors turned into one line and an exit code: 2 where the options are wrong."""
    try:
        return call()
    except (typer.Exit, typer.BadParameter, typer.Abort):
        raise
    except Exception as error:
        text, code = explain(error)
        _fail(console, error, text, 2 if usage and isinstance(error, SettingError) else code, debug)


def _fail(console: Console, error: Exception, text: str, code: int, debug: bool) -> None:
    if debug:
        import traceback

        console.close()
        traceback.print_exception(error, file=sys.stderr)
    console.error(text)
    if console.as_json:
        reports = getattr(error, "reports", [])
        with suppress(OSError):  # of a stdout that takes nothing: the line above stands
            console.summary({"error": text, "exit_code": code} | ({"reports": plain(reports)} if reports else {}), "")
    raise typer.Exit(code)
