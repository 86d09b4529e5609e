"""A class name means one thing, and documents stay readable in a terminal."""

import ast
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST_LINE = 200


def test_no_two_classes_of_the_package_share_a_name():
    found = defaultdict(list)
    for path in sorted((ROOT / "ssl_tilegen").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].append(str(path.relative_to(ROOT)))
    assert len(found) > 100
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_lines_of_documents_are_short():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not listed:
        pytest.skip("no git checkout: the documents of the project are not known")
    long = []
    for name in listed:
        lines = (ROOT / name).read_text().splitlines()
        long += [f"{name}:{number}" for number, line in enumerate(lines, 1) if len(line) > LONGEST_LINE]
    assert long == []
