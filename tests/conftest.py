"""Fixtures for all tests, and how a run of the whole suite is spread over processes.

A run that names no test (`pytest`, also with -x, -k or -m) takes workers of pytest-xdist: three on two cores, since
tests wait for processes that they started, else one per core, four at most. A run that names a test or a folder takes
one process. `-n` has the last word. A file's tests stay in one worker. See also `temporary`.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.temporary import write_into_memory

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; the processes that tests start inherit it
MOST_WORKERS = 4
SECONDS = {
    "faults/test_faults.py": 120, "training/test_scale.py": 75, "training/test_imported.py": 60,
    "training/test_choices.py": 45, "bundle/importers/test_families.py": 40, "generate/test_generate.py": 38,
    "training/test_painter.py": 36, "test_end_to_end.py": 31, "generate/test_generate_ranks.py": 30,
    "io/test_foreign_readers.py": 29, "evaluate/test_evaluate_again.py": 28, "evaluate/test_evaluate.py": 27,
    "generate/test_imported.py": 25, "training/test_loop.py": 22, "io/test_writers.py": 21,
    "embed/test_embed_killed.py": 18, "prior/test_prior.py": 17, "training/test_data_faults.py": 17,
    "training/test_sharding.py": 16, "test_readme.py": 16, "io/test_readers.py": 16, "training/test_data.py": 14,
    "augment/test_augment.py": 14, "diffusion/test_tiled_denoise.py": 11, "encoders/test_encoders.py": 10,
    "generate/test_generate_killed.py": 10, "examples/test_study_tasks.py": 9, "training/test_replaces.py": 9,
    "bundle/test_hub_server.py": 9, "diffusion/test_synthesis.py": 9, "embed/test_embed.py": 9, "cli/test_cli.py": 8,
    "io/test_output_formats.py": 8, "diffusion/test_recipes.py": 8, "training/test_init.py": 7,
}  # fmt: skip
"""Processor time of the files that take longest."""
pytest_plugins = ["tests.faults.summary"]
write_into_memory()
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
    cores = len(os.sched_getaffinity(0))
    workers = 3 if cores == 2 else min(cores, MOST_WORKERS)
    if workers > 1 and getattr(options, "numprocesses", 0) is None and not (options.usepdb or options.collectonly):
        options.numprocesses = workers
        options.dist, options.loadscopereorder = "loadfile", False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first, so that no worker is left alone with one of them."""
    weight: dict[Path, float] = Counter()
    for item in items:
        weight[item.path] += 2 if item.get_closest_marker("slow") else 0.1
    weight |= {Path(__file__).parent / name: seconds for name, seconds in SECONDS.items()}
    items.sort(key=lambda item: -weight[item.path])
