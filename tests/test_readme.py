"""What the README says is true: its commands run, its tree exists, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
FENCES = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)


def environment() -> dict[str, str]:
    """This interpreter's commands first on the path."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def session_commands() -> list[str]:
    """Lines of the terminal session that a user types."""
    console = [body for kind, body in FENCES if kind == "console"]
    return [line[2:] for body in console for line in body.splitlines() if line.startswith("$ ")]


def test_the_two_command_lines_install_what_they_need():
    shell = [body.strip() for kind, body in FENCES if kind == "sh"]
    assert any("pip install . " in line and "examples/quickstart.sh" in line for line in shell)
    assert any('".[test]"' in line and "pytest" in line for line in shell)
    ci = (ROOT / ".ci" / "run").read_text()
    assert "examples/quickstart.sh" in ci and "pytest" in ci


@pytest.mark.slow
def test_the_session_runs_as_it_is_printed(tmp_path):
    commands = session_commands()
    assert any("embed" in c for c in commands) and any("generate" in c for c in commands)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for command in commands:
        done = subprocess.run(
            shlex.split(command), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


TREE = next((body for _, body in FENCES if body.startswith("ssl_tilegen/")), "")


@pytest.mark.parametrize("name", re.findall(r"^(?:  )?([\w/.]+)", TREE, re.MULTILINE))
def test_the_tree_names_what_exists(name):
    assert (ROOT / "ssl_tilegen" / name).exists() or (ROOT / name).exists()


@pytest.mark.parametrize("target", sorted({t for t in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in t}))
def test_links_lead_to_files_of_the_repository(target):
    assert (ROOT / target).exists()
