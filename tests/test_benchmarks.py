"""The scripts of benchmarks/ import: what they use of the package has the names that they use."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path for path in FOLDER.rglob("*.py") if not path.name.startswith("_"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_imports(path: Path) -> None:
    import_module(".".join(path.relative_to(FOLDER.parent).with_suffix("").parts))
