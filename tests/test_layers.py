"""Imports point strictly down, and what has to start fast or run anywhere never imports torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ssl_tilegen"
LAYERS = (
    {"__main__"},
    {"cli", "api"},
    {"workflows"},
    {"training"},
    {"prior"},
    {"bundle"},
    {"io", "grids", "encoders", "diffusion", "metrics"},
    {"nets"},
    {"prior.spec"},
    {"config"},
    {"system"},
    {"geometry", "errors", "__init__"},
)
RANK = {name: rank for rank, layer in enumerate(reversed(LAYERS)) for name in layer}
NO_TORCH = {"cli", "api", "__main__", "config", "io", "geometry", "errors", "system", "grids", "prior.spec"}
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


def room(parts: Sequence[str]) -> str:
    """The layer's name for a module given as the parts of its name below the package: `prior.spec`, else `prior`."""
    longest = ".".join(parts[:2])
    return longest if longest in RANK else parts[0]


def room_of(path: Path) -> str:
    """The room that a file belongs to."""
    return room(path.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = room_of(path)
    assert here in RANK, f"{here} is in no layer: add it to LAYERS"
    for name in imports(path) if here != "__init__" else imports(path, at_import_time=True):
        parts = name.split(".")
        if parts[0] != "ssl_tilegen" or len(parts) < 2 or room(parts[1:]) not in RANK:
            continue
        there = room(parts[1:])
        same = there == here and (PACKAGE / here).is_dir()
        assert same or RANK[there] < RANK[here], f"{path.name} ({here}) imports {name}, which is not below it"


LIGHT = [path for path in MODULES if room_of(path) in NO_TORCH]


@pytest.mark.parametrize("path", LIGHT, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_light_parts_import_no_torch(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path, at_import_time=True)} & HEAVY


def test_nothing_imports_click() -> None:
    assert not [path for path in MODULES if "click" in {name.split(".")[0] for name in imports(path)}]
