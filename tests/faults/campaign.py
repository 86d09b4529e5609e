"""Runs cases and says what is wrong with what came of them."""

from __future__ import annotations

import fnmatch
import json
import pickle
import re
import select
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import ceil
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.faults.case import Case, words
from tests.faults.inject import CHANGES, USER_TEXT, Fault, appeared, steps_of, waiting
from tests.faults.pieces import Copy, State, came, put_all, state_of
from tests.faults.server import End, Job, serve
from tests.faults.world import COMMANDS, UNFINISHED, build_files, build_traps

GROWTH_MIB = 900
_QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
_TRACES = re.compile(
    r"Traceback \(most recent|^  File \"|unexpected|internal error|report (it|what)|Exception ignored|Fatal Python",
    re.M,
)
_NOISE = re.compile(r"\s|.*Warning\b|.*\bwarn\(|None$")
_LITTER = ("*.part", "*.partial", "*.lock", "*.tmp", "*.new", "*.bak")


class Campaign:
    """The server, the world of good files, and a folder for every case."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.world = folder, folder / "world"
        self._line: Any = None
        self._counts: dict[Any, int] = {}
        self._number = 0

    @contextmanager
    def running(self) -> Iterator[Campaign]:
        """The server is there for the body; the world is made first."""
        with tempfile.TemporaryDirectory() as short, Listener(f"{short}/line") as listener:
            process = processes.forked(self.folder / "server.log", serve, f"{short}/line")
            try:
                processes.wait_until(lambda: _is_called(listener), process, self.folder / "server.log", 300)
                self._line = listener.accept()
                assert self._line.recv() == "ready"
                self._build()
                yield self
            finally:
                if self._line is not None:
                    self._line.close()
                process.join(10)
                process.kill()

    def _build(self) -> None:
        self.world.mkdir()
        self._good(Job((self.world,), self.world, *self._heard(), call=build_files))
        for line in COMMANDS:
            self._good(Job(line.split(), self.world, *self._heard(), env=_QUIET))
        self._good(Job((self.world,), self.world, *self._heard(), call=build_traps))
        for name, line, before in UNFINISHED:
            self._stop(name, line, before)

    def _stop(self, name: str, line: str, before: Sequence[str]) -> None:
        """What a command leaves that was killed in the middle, as the folder ``unfinished/name`` of the world."""
        place = self.world / "unfinished" / name
        for piece in before:
            Copy(piece).put(place, self.world)
        case = Case("", "", words(line), tuple(Copy(piece) for piece in before), at=0.6, fault=Fault("", "SIGKILL"))
        self._ask([self._job(case, case.command, place, self.folder / "stopped", self._aimed(case, place))])
        for piece in before:
            shutil.rmtree(place / piece) if (place / piece).is_dir() else (place / piece).unlink()

    def _heard(self) -> tuple[str, str]:
        return str(self.folder / "world.out"), str(self.folder / "world.err")

    def _good(self, job: Job) -> None:
        (end,) = self._ask([job])
        assert end.code == 0, Path(job.stderr).read_text()

    def _ask(self, jobs: Sequence[Job]) -> list[End]:
        self._line.send(list(jobs))
        return self._line.recv()

    def faults_of(self, case: Case) -> list[str]:
        """All that is wrong with what a case came to; empty where it held."""
        self._number += 1
        root = self.folder / f"{self._number}"
        with self._place(root, case) as place:
            for piece in case.before:
                piece.put(place, self.world)
            for command in case.first:
                self._ask([self._job(replace(case, stdout="", disk_kib=None), command, place, root / "first", None)])
            for piece in case.then:
                piece.put(place, self.world)
            fault = self._aimed(case, place) if case.fault else None
            if fault and fault.number < 0:
                return []  # the command takes no such step
            before = state_of(place)
            jobs = [self._job(case, case.command, place, root / "0", fault)]
            if case.beside or case.meanwhile:
                jobs += [self._other(case, place, root / "1")]
                jobs[0] = replace(jobs[0], idle_s=150)
            ends = self._ask(jobs)
            found = [wrong for number, end in enumerate(ends) for wrong in wrongs_of_end(case, end, root / f"{number}")]
            if case.meanwhile:
                before |= pickle.loads(came(place).read_bytes())
            between = case.fault is not None and case.fault.what == "WAITS"  # the first may keep what it goes on with
            done = ends[0].code == 0 if between else any(end.code == 0 for end in ends)
            found += wrongs_of_files(case, before, state_of(place), done=done, place=place)
            if case.beside and all(end.code for end in ends):
                found.append("none of the two came to its end")
            if case.again:
                found += self._healed(case, place, root / "2", before)
        shutil.rmtree(root, ignore_errors=True)
        return found

    def _other(self, case: Case, place: Path, heard: Path) -> Job:
        """The second command, or what a user does meanwhile."""
        job = self._job(case, case.beside, place, heard, None)
        if case.meanwhile:
            job = replace(job, words=(case.meanwhile, place, self.world), call=put_all)
        between = case.fault is not None and case.fault.what == "WAITS"
        return replace(job, sign=waiting(place)) if between else job

    @contextmanager
    def _place(self, root: Path, case: Case) -> Iterator[Path]:
        """The folder of a case: on a small disk of its own where it is to fill up."""
        place = root / "here"
        place.mkdir(parents=True)
        if case.disk_kib is None:
            yield place
            return
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True)
        if mounted.returncode:
            pytest.skip(f"no disk of its own can be mounted: {mounted.stderr.decode().strip()}")
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", str(place)], check=False)

    def _job(self, case: Case, command: Sequence[str], place: Path, heard: Path, fault: Fault | None) -> Job:
        if case.disk_kib is not None and heard.name == "0":
            if case.disk_kib < 0:
                subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
            used = sum(-(-p.lstat().st_size // 4096) * 4096 for p in place.rglob("*") if p.is_file())
            size = f"size={-(-used // 1024) + case.disk_kib}k"
            if case.disk_kib >= 0:
                subprocess.run(["mount", "-o", f"remount,{size}", str(place)], check=True)
        words = tuple(word.replace("{world}", str(self.world)).replace("{here}", str(place)) for word in command)
        out = {"full": "/dev/full", "closed": "closed"}.get(case.stdout, f"{heard}.out")
        return Job(words, place, out, f"{heard}.err", env=_QUIET | dict(case.env), fault=fault, cpu_s=case.cpu_s,
                   signal_s=case.signal_s, file_bytes=case.file_bytes, memory_mib=case.memory_mib)  # fmt: skip

    def _aimed(self, case: Case, place: Path) -> Fault:
        """The fault at a share of the steps that the command takes, which are counted once."""
        assert case.fault
        key = (case.command, case.before, case.fault.step)
        if key not in self._counts:
            with tempfile.TemporaryDirectory(dir=self.folder) as aside:
                copy, log = Path(aside) / "here", Path(aside) / "log"
                copy.mkdir()
                for piece in case.before:
                    piece.put(copy, self.world)
                log.touch()
                job = self._job(replace(case, disk_kib=None), case.command, copy, Path(aside) / "0", None)
                (end,) = self._ask([replace(job, fault=Fault(str(copy), log=str(log)))])
                assert end.code == 0, Path(f"{aside}/0.err").read_text()
                steps = steps_of(log)
            kinds = set(steps)
            for kind in {*kinds, case.fault.step}:
                self._counts[case.command, case.before, kind] = steps.count(kind)
            self._counts[case.command, case.before, "any"] = sum(step in CHANGES for step in steps)
        return replace(case.fault, root=str(place), number=ceil(case.at * self._counts[key]) - 1)

    def _healed(self, case: Case, place: Path, heard: Path, before: State) -> list[str]:
        """What is wrong after the same command has been run once more without a fault."""
        if case.disk_kib is not None:
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        plain = replace(case, fault=None, allowed=frozenset({0}), signal_s=None, disk_kib=None, file_bytes=None,
                        stdout="", says="", never="", leaves=(), memory_mib=6144)  # fmt: skip
        job = self._job(plain, case.command, place, heard, None)
        (end,) = self._ask([job])
        if end.code == 1 and "exists" in Path(f"{heard}.err").read_text():  # the first run had come to its end
            (end,) = self._ask([replace(job, words=(*job.words, "--overwrite"))])
        found = wrongs_of_end(plain, end, heard)
        found += wrongs_of_files(plain, before, state_of(place), done=True, place=place)
        return [f"again: {wrong}" for wrong in found]


def _is_called(listener: Listener) -> bool:
    called, _, _ = select.select([listener._listener._socket], [], [], 0)  # type: ignore[attr-defined]
    return bool(called)


def wrongs_of_end(case: Case, end: End, heard: Path) -> list[str]:
    """What is wrong with how a command ended and with what it said."""
    said = Path(f"{heard}.err").read_bytes().decode(errors="replace") if Path(f"{heard}.err").exists() else ""
    printed = Path(f"{heard}.out").read_text(errors="replace") if Path(f"{heard}.out").exists() else ""
    killed = case.fault is not None and case.fault.what == "SIGKILL" and end.code == -9
    tests: list[tuple[bool, str]] = [
        (end.hung, f"hung: killed after {end.seconds:.0f} s"),
        (end.code not in case.allowed and not end.hung and not killed, f"exit code {end.code}"),
        (bool(_TRACES.search(said)), "says traceback or unexpected"),
        (end.grown_mib > GROWTH_MIB, f"memory: grew by {end.grown_mib:.0f} MiB"),
        (bool(case.says) and not re.search(case.says, said), f"does not say {case.says}"),
        (bool(case.never) and bool(re.search(case.never, said)), f"says {case.never}"),
        (bool(re.search("[\x00-\x08\x0b-\x1f\x7f]", said)), "says control characters"),
        (bool(printed) and end.code == 1 and "--json" not in case.command, "an error, and text on stdout"),
    ]
    if end.code in (1, 3) or end.code >= 128:
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        noise = [line for line in said.splitlines() if _NOISE.match(line)]
        tests += [(len(errors) != 1, f"{len(errors)} lines of error"), (bool(noise), "says other lines")]
    text = said.strip()[-600:]
    return [f"{wrong} [{text}]" for is_wrong, wrong in tests if is_wrong]


def wrongs_of_files(case: Case, before: State, after: State, *, done: bool, place: Path) -> list[str]:
    """What is wrong with the files: changed or gone, left unfinished, or half written."""
    found = []
    for path, was in before.items():
        if not _is_any(path, case.ours) and after.get(path) != was:
            found.append(f"{'destroyed' if path in after else 'deleted'}: {path!r}")
    fresh = [path for path in after if path not in before]
    came = case.fault.what.partition("APPEARS ")[2] if case.fault and appeared(place).exists() else ""
    if came and not ((place / came).is_file() and (place / came).read_bytes() == USER_TEXT.encode()):
        found.append(f"destroyed: {came!r}, which came during the run")
    if 0 < sum(name in after for name in case.whole) < len(case.whole):
        found.append(f"half: of {', '.join(case.whole)} some are there")
    for path in fresh:
        if case.lacks and path.endswith(".csv") and re.search(case.lacks, (place / path).read_text(), re.M):
            found.append(f"{path} holds {case.lacks}")
    for path in fresh:
        stuck = case.fault is not None and case.fault.step == "unlink"
        allowed = _is_any(path, case.leaves) and (not done or stuck)
        if not allowed and any(_is_litter(part) for part in path.split("/")):
            found.append(f"litter: {path!r}")
        elif (
            not allowed
            and not _is_any(path, case.leaves)
            and after[path][0] == "file"
            and (wrong := half(place / path))
        ):
            found.append(f"half: {path!r}: {wrong}")
    return found


def _is_litter(name: str) -> bool:
    return name.startswith(".") or any(fnmatch.fnmatch(name, pattern) for pattern in _LITTER)


def _is_any(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) or path.startswith(f"{pattern}/") for pattern in patterns)


def half(path: Path) -> str:
    """Why a file is not whole; empty where it is, or where its kind does not tell."""
    check: Callable[[Path], object] | None = next((c for end, c in _WHOLE.items() if path.name.endswith(end)), None)
    if check is None:
        return ""
    try:
        check(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _table(path: Path) -> None:
    text = path.read_text()
    if not text.endswith("\n") or text.count('"') % 2:
        raise ValueError("cut")


def _page(path: Path) -> None:
    if "</html>" not in path.read_text():
        raise ValueError("cut")


def _image(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def _tiff(path: Path) -> None:
    import tifffile

    tifffile.imread(path)


def _archive(path: Path) -> None:
    import numpy as np

    with np.load(path) as file:
        for name in file:
            file[name]


def _features(path: Path) -> None:
    import h5py

    with h5py.File(path) as file:
        file["features"][()], file["coords"][()]


_WHOLE: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".geojson": lambda path: json.loads(path.read_text()),
    ".csv": _table,
    ".html": _page,
    ".png": _image,
    ".jpg": _image,
    ".tif": _tiff,
    ".npz": _archive,
    ".h5": _features,
}
