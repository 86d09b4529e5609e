"""Fixtures for all tests, and how a run of the whole suite is spread over processes.

A run that names no test (`pytest`, also with -x, -k or -m) takes one worker of pytest-xdist per core, four at most; a
run that names a test or a folder takes one process. `-n` has the last word. A file's tests stay in one worker.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; the processes that tests start inherit it
MOST_WORKERS = 4
pytest_plugins = ["tests.faults.summary"]
_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: $SSL_TILEGEN_TEST_DATA, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("SSL_TILEGEN_TEST_DATA", _BESIDE))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (set SSL_TILEGEN_TEST_DATA)")
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Give a run of the whole suite its workers."""
    options = config.option
    if hasattr(config, "workerinput") or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    if workers > 1 and getattr(options, "numprocesses", 0) is None and not (options.usepdb or options.collectonly):
        options.numprocesses = workers
        options.dist, options.loadscopereorder = "loadfile", False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first, so that no worker is left alone with one of them."""
    weight: dict[Path, int] = {}
    for item in items:
        weight[item.path] = weight.get(item.path, 0) + (20 if item.get_closest_marker("slow") else 1)
    items.sort(key=lambda item: -weight[item.path])
