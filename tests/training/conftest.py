"""What the tests of training share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training import runs


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, the configurations of three stages and what one process made of them, in ``run``."""
    folder = tmp_path_factory.mktemp("alone")
    runs.draw_images(folder)
    runs.main(folder / "run", [runs.write_config(folder, stage) for stage in runs.TEXTS])
    return folder


@pytest.fixture(scope="module")
def base(alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of ``alone`` that a module may write into: images, configurations, and a whole bundle in ``run``."""
    return Path(shutil.copytree(alone, tmp_path_factory.mktemp("base") / "base"))
