"""Help that fits on a screen: options in groups, one line each, one style of defaults, examples that parse."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from ssl_tilegen.cli import main
from ssl_tilegen.cli.app import app
from ssl_tilegen.cli.help import short


def commands(group: Any = None, path: str = "") -> dict[str, Any]:
    """Every command that does something, by its words."""
    found = {}
    for name, command in (group or typer.main.get_command(app)).commands.items():
        words = f"{path} {name}".strip()
        found |= commands(command, words) if hasattr(command, "commands") else {words: command}
    return found


COMMANDS = commands()


@pytest.fixture
def help_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command with --help or --help-all on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(command: str, flag: str = "--help") -> str:
        with pytest.raises(SystemExit) as caught:
            main([*command.split(), flag])
        assert not caught.value.code
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_on_a_screen(command: str, help_of: Any) -> None:
    lines = help_of(command).splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 80
    assert lines[0].startswith("Usage: ssl-tilegen")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_named_and_every_description_can_be_read(command: str, help_of: Any) -> None:
    brief, full = help_of(command), " ".join(help_of(command, "--help-all").split())
    for param in COMMANDS[command].params:
        if param.param_type_name == "option":
            assert param.opts[0] in brief and " ".join(param.help.split()) in full


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_stand_in_brackets(command: str) -> None:
    for param in COMMANDS[command].params:
        assert "(default" not in (getattr(param, "help", None) or "")


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_name_the_command_and_its_options(command: str, help_of: Any) -> None:
    examples = re.findall(r"^  (ssl-tilegen .*)$", help_of(command), re.MULTILINE)
    assert 1 <= len(examples) <= 3
    known = {name for param in COMMANDS[command].params for name in param.opts}
    for example in examples:
        words = shlex.split(example)
        assert example.startswith(f"ssl-tilegen {command}")
        assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Sampling steps. [the bundle's]", "Sampling steps [the bundle's]"),
        ("Same seed. Same image; always. [0]", "Same seed [0]"),
        ("Read at 0.5 um/px.", "Read at 0.5 um/px"),
        ("A format: .tif, .png or .zarr. And more.", "A format: .tif, .png or .zarr"),
        ("", ""),
    ],
)
def test_the_short_form_is_the_first_sentence_and_the_default(text: str, shown: str) -> None:
    assert short(text) == shown
