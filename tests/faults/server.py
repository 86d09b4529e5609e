"""A server that forks one process per command, with every library loaded, and says how each of them ended.

Importing the libraries takes seconds, a fork of a process that has them takes milliseconds. The server only imports:
it runs no command itself, so that it has no threads that a fork would lose.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from tests.faults.inject import Fault, ended, inject

LIBRARIES = (
    "diffusers.models.autoencoders.autoencoder_kl",
    "h5py",
    "imagecodecs",
    "openslide",
    "rasterio.features",
    "rich.console",
    "scipy.ndimage",
    "skimage.metrics",
    "tifffile",
    "timm",
    "torch.utils.serialization.config",
    "zarr",
    "PIL.PngImagePlugin",
)
_PAGE = resource.getpagesize()
_LARGE_PAGE, _MADV_COLLAPSE = 2 << 20, 25
_kept: list[Any] = []


@dataclass(frozen=True)
class Job:
    """One process to fork: the command line with ``words``, or ``call(*words)``, in the folder ``cwd``.

    ``stdout`` and ``stderr`` are paths, or "closed". ``memory_mib`` is the address space that the process may add to
    that of the server, ``cpu_s`` the processor time after which it is killed, ``idle_s`` how long it may wait without
    computing: both are the same on a machine that is busy with other things. ``delay_s`` is how long after the first
    job of a request it starts, ``signal_s`` the processor time after which it is sent SIGTERM. ``sign``: it starts
    when that file is there, or the first job has ended, and its end is told by another (see `inject.ended`).
    """

    words: Sequence[Any]
    cwd: Path
    stdout: str
    stderr: str
    call: Callable[..., object] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    memory_mib: int = 6144
    cpu_s: int = 30
    idle_s: float = 60
    wall_s: float = 300
    delay_s: float = 0
    signal_s: float | None = None
    file_bytes: int | None = None
    sign: Path | None = None


@dataclass(frozen=True)
class End:
    """How a process ended: ``code`` is that of the shell, negative where a signal ended it; ``hung``: it was killed
    because its time was over; ``grown_mib``: most memory in use beyond that of the server."""

    code: int
    hung: bool
    seconds: float
    cpu_s: float
    grown_mib: float


def serve(address: str) -> None:
    """Answer requests (lists of jobs) on the socket ``address`` by lists of ends, until it is closed."""
    _load()
    atexit._clear()
    gc.collect()
    gc.freeze()
    _gather_pages()
    with Client(address) as line:
        line.send("ready")
        with suppress(EOFError, ConnectionError):
            while True:
                line.send(_answer(line.recv(), line))


def _load() -> None:
    import ssl_tilegen

    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    for module in pkgutil.walk_packages(ssl_tilegen.__path__, "ssl_tilegen."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    _warm()


def _warm() -> None:
    """What every command would do anew: formats of images, the tree of commands, models of settings."""
    import typer.main
    from PIL import Image
    from pydantic import BaseModel

    from ssl_tilegen.cli.app import app

    Image.init()
    typer.main.get_command = functools.cache(typer.main.get_command)
    _warm_options(typer.main.get_command(app))
    kinds = list(BaseModel.__subclasses__())
    for kind in kinds:
        kinds += kind.__subclasses__()
        if kind.__module__.startswith("ssl_tilegen"):
            kind.model_rebuild()


def _warm_options(command: Any) -> None:
    """The converters of the options of a command, or of all commands of a group."""
    for option in command.params:
        if hasattr(option, "get_runtime_param"):
            option.get_runtime_param()
    for own in getattr(command, "commands", {}).values():
        _warm_options(own)


def _gather_pages() -> None:
    """Let memory lie in pages of 2 MiB, where the system can: a fork copies the table of all pages, and its end drops
    them, which takes half the time of a short command."""
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, _, _, _, *name = line.split()
        if rights == "rw-p" and name in ([], ["[heap]"]):
            start, end = (int(place, 16) for place in span.split("-"))
            for at in range(-(-start // _LARGE_PAGE) * _LARGE_PAGE, end // _LARGE_PAGE * _LARGE_PAGE, _LARGE_PAGE):
                libc.madvise(at, _LARGE_PAGE, _MADV_COLLAPSE)  # an error changes nothing


def _answer(jobs: Sequence[Job], line: Connection) -> list[End]:
    begun, own_mib = time.monotonic(), _resident_mib()
    ends: list[End | None] = [None] * len(jobs)
    started: dict[int, tuple[int, float]] = {}
    computed: dict[int, tuple[float, float]] = {}
    killed, warned = set(), set()
    waiting = sorted(range(len(jobs)), key=lambda index: jobs[index].delay_s)
    while waiting or started:
        now = time.monotonic()
        while waiting and now - begun >= jobs[waiting[0]].delay_s and _may_start(jobs[waiting[0]], ends):
            index = waiting.pop(0)
            started[_fork(jobs[index], line)] = (index, time.monotonic())
        for pid, (index, since) in list(started.items()):
            job, seconds = jobs[index], time.monotonic() - since
            used, at = _cpu_s(pid), computed.get(pid, (-1.0, 0.0))
            if used > at[0]:
                computed[pid] = at = (used, time.monotonic())
            if job.signal_s is not None and used >= job.signal_s and pid not in warned:
                warned.add(pid)
                os.kill(pid, signal.SIGTERM)
            if (seconds > job.wall_s or time.monotonic() - at[1] > job.idle_s) and pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                hung = pid in killed or code == -signal.SIGXCPU
                grown = usage.ru_maxrss / 1024 - own_mib
                ends[index] = End(code, hung, seconds, usage.ru_utime + usage.ru_stime, grown)
                del started[pid]
                if (sign := job.sign) is not None:
                    ended(sign).touch()
        time.sleep(0.004)
    return [end for end in ends if end]


def _may_start(job: Job, ends: Sequence[End | None]) -> bool:
    return job.sign is None or job.sign.exists() or ends[0] is not None


def _fork(job: Job, line: Connection) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        line.close()
        _limit(job)
        _redirect(job)
        os.chdir(job.cwd)
        os.environ.update(job.env)
        os._exit(_run(job))
    finally:
        os._exit(70)


def _limit(job: Job) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    resource.setrlimit(resource.RLIMIT_AS, (size + (job.memory_mib << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (job.cpu_s, job.cpu_s + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if job.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_bytes,) * 2)


def _redirect(job: Job) -> None:
    """Give the process its own stdin, stdout and stderr, as a shell would."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name, path in ((1, "stdout", job.stdout), (2, "stderr", job.stderr)):
        if path == "closed":
            _kept.append(getattr(sys, name))
            os.close(number)
            setattr(sys, name, None)
            continue
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(file, number)
        os.close(file)
        _kept.append(getattr(sys, name))  # whose end would close the number
        setattr(
            sys, name, os.fdopen(number, "w", closefd=False, errors="strict" if number == 1 else "backslashreplace")
        )


def _run(job: Job) -> int:
    """The exit code that an interpreter would have: threads are waited for, what is left in buffers is written."""
    import torch

    from ssl_tilegen.cli import main

    torch.set_num_threads(1)
    if job.fault:
        inject(job.fault)
    code: Any = 0
    try:
        (job.call or (lambda *words: main([str(word) for word in words])))(*job.words)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored in: <stdout>\n{error!r}", file=sys.stderr)
        code = 120
    with suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.flush()
    return code if isinstance(code, int) else 1


def _cpu_s(pid: int) -> float:
    """Processor time of a process so far, of which it has used some at every look unless it waits."""
    with suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 2**20
