"""Imports point strictly down, and what has to start fast or run anywhere never imports torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ssl_tilegen"
LAYERS = (
    {"__main__"},
    {"cli"},
    {"console"},
    {"workflows"},
    {"training"},
    {"synthesis", "drawing"},
    {"bundle"},
    {"io", "grids", "encoders", "nets", "diffusion", "metrics"},
    {"gridspec", "priorspec"},
    {"config", "launchers"},
    {"runtime", "folders", "locks", "scratch", "system"},
    {"geometry", "errors", "__init__"},
)
RANK = {name: rank for rank, layer in enumerate(reversed(LAYERS)) for name in layer}
NO_TORCH = {
    "cli",
    "__main__",
    "console",
    "config",
    "io",
    "geometry",
    "errors",
    "launchers",
    "runtime",
    "folders",
    "locks",
    "scratch",
    "system",
    "grids",
    "gridspec",
}
HEAVY = {"torch", "torchvision", "timm", "diffusers", "accelerate", "transformers"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path, *, at_import_time: bool = False) -> Iterator[str]:
    """Modules that a file imports, anywhere in it or only when it is imported itself."""
    tree = ast.parse(path.read_text())
    for node in _module_level(tree) if at_import_time else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes outside functions and ``if TYPE_CHECKING`` blocks."""
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not typing_only:
            yield node
            yield from _module_level(node)


def part(path: Path) -> str:
    """The part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = part(path)
    assert here in RANK, f"{here} is in no layer: add it to LAYERS"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "ssl_tilegen" or len(parts) < 2 or parts[1] not in RANK:
            continue
        same = parts[1] == here and (PACKAGE / here).is_dir()
        assert same or RANK[parts[1]] < RANK[here], f"{path.name} ({here}) imports {name}, which is not below it"


@pytest.mark.parametrize("path", [p for p in MODULES if part(p) in NO_TORCH], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_light_parts_import_no_torch(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path, at_import_time=True)} & HEAVY


def test_nothing_imports_click() -> None:
    assert not [path for path in MODULES if "click" in {name.split(".")[0] for name in imports(path)}]
