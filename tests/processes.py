"""Processes of their own for tests, forked from a server that has torch and other libraries imported: doing that anew
would take most of their time. The server runs nothing, so it has no threads that a fork would lose."""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ssl_tilegen.cli import main

_SERVER = multiprocessing.get_context("forkserver")
LIBRARIES = ("diffusers.models.modeling_utils", "h5py", "openslide", "rasterio.features", "scipy.ndimage",
             "scipy.stats", "skimage.metrics", "tifffile", "timm", "zarr")  # fmt: skip
STAGES = ("encoder", "autoencoder", "denoiser")
_SERVER.set_forkserver_preload(["tests.processes", "tests.training.runs", "ssl_tilegen.workflows.train", *LIBRARIES,
                                *(f"ssl_tilegen.training.{stage}" for stage in STAGES)])  # fmt: skip


def forked(heard: Path, call: Callable[..., object], *words: Any, **variables: object) -> Any:
    """A process that calls ``call(*words)``, a function of a module, with more ``variables`` in its environment.

    What it says on stdout and stderr is kept in the file ``heard``; its exit code is that of a Python program.
    """
    facts = {name: str(value) for name, value in variables.items()}
    process = _SERVER.Process(target=_act, args=(facts, heard, call, words))
    process.start()
    return process


def command(heard: Path, words: Sequence[object], **variables: object) -> Any:
    """A process of the command line."""
    return forked(heard, main, [str(word) for word in words], **variables)


def _act(facts: dict[str, str], heard: Path, call: Callable[..., object], words: Sequence[Any]) -> None:
    with heard.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.update(facts)
    torch.set_num_threads(1)
    code: Any = 0
    try:
        call(*words)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def free_port() -> int:
    """A port that nobody listens on. The system gives those from 32768 on to connections as it likes, so that another
    test may have one by the time that a process wants it; none of those is taken."""
    for port in random.SystemRandom().sample(range(15_000, 32_000), 100):
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def wait_until(ready: Callable[[], bool], process: Any, heard: Path, limit_s: float = 120) -> None:
    """Until ``ready``; fails where the process ends before."""
    end = time.monotonic() + limit_s
    while not ready() and time.monotonic() < end:
        assert process.is_alive(), heard.read_text()
        time.sleep(0.01)
