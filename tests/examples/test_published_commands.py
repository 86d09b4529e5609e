"""Every command line of docs/published.md, and of README's part about it, is one that the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from ssl_tilegen.bundle.hub import is_hub_name
from ssl_tilegen.cli import app as cli
from ssl_tilegen.encoders.registry import ENCODERS

ROOT = Path(__file__).parents[2]


def lines_of(text: str) -> list[str]:
    fences = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    return [line for line in fences.splitlines() if line and not line.startswith("#")]


LINES = lines_of((ROOT / "docs" / "published.md").read_text())
SHORT = lines_of((ROOT / "README.md").read_text().partition("## Use a published model")[2])


@pytest.mark.parametrize("line", sorted({*LINES, *SHORT}))
def test_the_program_takes_the_line(line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    assert program == "ssl-tilegen"
    command = get_command(cli.app)
    rest = list(words)
    while commands := getattr(command, "commands", None):
        command = commands[rest.pop(0)]
    assert command.make_context(program, list(rest)).params
    if "--encoder" in words:
        assert words[words.index("--encoder") + 1] in ENCODERS


def test_each_family_has_its_lines_and_sources_of_the_hub_are_names() -> None:
    assert sum(" models import " in line for line in SHORT) >= 4
    imports = [shlex.split(line, comments=True)[3] for line in LINES if " models import " in line]
    assert len(imports) >= 4 and sum(map(is_hub_name, imports)) >= 2
    for command in ("embed", "generate", "train init", "train denoiser", "train painter"):
        assert any(f"ssl-tilegen {command}" in line for line in LINES), command
