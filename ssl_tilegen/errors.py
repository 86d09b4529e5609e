"""Errors a user can mend: every message names the thing, the value and the remedy, on one line."""

from __future__ import annotations

from collections.abc import Sequence


class TilegenError(Exception):
    """Base of all errors that are reported as one line, without a traceback.

    ``exit_code`` is that of the command line (see the README's table of exit codes).
    """

    exit_code = 1


class InputError(TilegenError):
    """A file, folder or array given by the user cannot be used as it is."""


class ResolutionError(InputError):
    """The resolution of an image is unknown or does not fit; it is never guessed."""


class FormatError(TilegenError):
    """A file of ours is broken, of a newer format, or does not fit the other files given with it."""


class OutputError(TilegenError):
    """An output cannot be written: it exists, its folder cannot be written to, its suffix is unknown."""


class SettingError(TilegenError):
    """An option or a key of a configuration file is unknown or out of range."""


class BudgetError(TilegenError):
    """More memory or more pixels than are allowed; the message gives the number and the option that allows it."""


class ChoiceError(SettingError):
    """An option names none of the things that are known: wrong usage, found when the table of them is loaded."""

    exit_code = 2


class PartialFailure(TilegenError):
    """Some of many inputs failed; the message says how many, how many are done, and each cause once."""

    exit_code = 3


class Interrupted(TilegenError):
    """Stopped by a signal after the state was saved; the same command continues.

    ``signum`` is the signal's number; the exit code is 128 + ``signum`` as in a shell.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


_CAUSES, _NAMES = 10, 3  # shown in the one line


def failures_line(failed: Sequence[tuple[str, str]], total: int, done: int, noun: str) -> str:
    """One line for (name, error) of each that failed of ``total``: how many are ``done``, and every cause once.

    An error that begins with its name, or with a path that ends in it, is shown without that. Names with the
    same cause are listed together.
    """
    causes: dict[str, list[str]] = {}
    for name, error in failed:
        causes.setdefault(_cause(name, error), []).append(name)
    lines = []
    for cause, names in list(causes.items())[:_CAUSES]:
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        lines.append(f"{', '.join(names[:_NAMES])}{more}: {cause}")
    if len(causes) > _CAUSES:
        lines.append(f"and {len(causes) - _CAUSES} other causes (see --summary or --json)")
    return f"{len(failed)} of {total} {noun} failed, {done or 'none'} done: {'; '.join(lines)}"


def _cause(name: str, error: str) -> str:
    """An error without the name, or the path that ends in it, with which it begins."""
    path, _, cause = error.partition(": ")
    is_named = path.replace("\\", "/").endswith(f"/{name}") and cause
    return cause if is_named else error.removeprefix(f"{name}: ")
