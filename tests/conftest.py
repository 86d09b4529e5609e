"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: $SSL_TILEGEN_TEST_DATA, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("SSL_TILEGEN_TEST_DATA", _BESIDE))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (set SSL_TILEGEN_TEST_DATA)")
    return folder
