"""Two jobs never hold one output: in one process, in many, after a kill, and where flock is not known."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ssl_tilegen.errors import OutputError
from ssl_tilegen.system import held_lock, locks
from ssl_tilegen.system.lock_owner import Owner
from ssl_tilegen.system.locks import STALE_S, Busy, lock, lock_file

GONE = 2**22 + 5
FOREIGN: dict[str, Any] = {"boot": "of another machine", "host": "elsewhere"}


@pytest.fixture(params=["flock", "no flock"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of locking: the second as on file systems that refuse flock."""
    if request.param == "no flock":
        monkeypatch.setattr(held_lock, "fcntl", Refusing)
    return str(request.param)


class Refusing:
    """What a file system says that knows no flock."""

    LOCK_EX = LOCK_NB = 0

    @staticmethod
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def signed(file: Path, **change: Any) -> Owner:
    owner = replace(Owner.me(), **change)
    file.write_text(json.dumps(asdict(owner)))
    return owner


def aged(file: Path) -> None:
    old = time.time() - STALE_S - 60
    os.utime(file, (old, old))


def program(body: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs ``body`` with ``lock`` at hand."""
    code = f"import sys, time\nfrom pathlib import Path\nfrom ssl_tilegen.system.locks import lock, Busy\n{body}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_at_a_time_and_nothing_left(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "g"
    with lock(path) as held:
        assert held.alone and held.is_mine()
        with pytest.raises(Busy, match=f"process {os.getpid()} on .* since") as caught, lock(path):
            pass
        assert "\n" not in str(caught.value)
    with lock(path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ((0, 1), (0, 1), True), ((0, 2), (1, 2), False), ((0, 2), (0, 2), True), ((0, 2), (0, 1), True),
        ((0, 1), (1, 2), True), ((0, 2), (1, 3), True),
    ],
)  # fmt: skip
def test_shares_of_one_count_do_not_clash(
    kind: str, first: tuple[int, int], second: tuple[int, int], clash: bool, tmp_path: Path
) -> None:
    with lock(tmp_path / "g", first) as held:
        assert held.alone
        if clash:
            with pytest.raises(Busy), lock(tmp_path / "g", second):
                pass
        else:
            with lock(tmp_path / "g", second) as other:
                assert not other.alone
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "stale"),
    [({"pid": GONE}, True), ({"began": "7"}, True), (FOREIGN, False), (FOREIGN | {"pid": GONE}, False)],
)
def test_a_lock_is_taken_over_when_its_holder_is_known_to_be_gone(
    kind: str, tmp_path: Path, change: dict[str, Any], stale: bool
) -> None:
    """At once where this machine can tell, else when it has not been touched for long."""
    file = lock_file(tmp_path / "g")
    signed(file, **change)
    if not stale:
        with pytest.raises(Busy), lock(tmp_path / "g"):
            pass
        aged(file)
    with lock(tmp_path / "g") as held:
        assert json.loads(file.read_text()) == asdict(held.owner)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["poetry's own\n", '{"host": "e', "[]", "[" * 100_000])
def test_a_file_of_another_kind_is_no_lock_and_stays(kind: str, content: str, tmp_path: Path) -> None:
    file = lock_file(tmp_path / "g")
    file.write_text(content)
    aged(file)
    with pytest.raises(OutputError, match="no lock of this program"), lock(tmp_path / "g"):
        pass
    assert file.read_text() == content


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: p.symlink_to("/dev/null")])
def test_what_is_no_file_is_refused_at_once(kind: str, make: Any, tmp_path: Path) -> None:
    make(lock_file(tmp_path / "g"))
    with pytest.raises(OutputError, match="no lock of this program"), lock(tmp_path / "g"):
        pass
    assert os.path.lexists(lock_file(tmp_path / "g"))


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems that know no hard links."""

    def refused(*paths: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)


def test_an_empty_file_is_a_user_s(kind: str, tmp_path: Path) -> None:
    lock_file(tmp_path / "g").touch()
    aged(lock_file(tmp_path / "g"))
    with pytest.raises(OutputError, match="no lock of this program"), lock(tmp_path / "g"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["g.lock"]


@pytest.mark.parametrize("content", [b"", b"\0" * 40])
def test_without_links_a_lock_that_was_never_signed_is_free(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch)
    lock_file(tmp_path / "g").write_bytes(content)
    with lock(tmp_path / "g"):
        pass
    assert not list(tmp_path.iterdir())


def test_without_links_one_at_a_time(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_links(monkeypatch)
    with lock(tmp_path / "g"):
        assert [path.name for path in tmp_path.iterdir()] == ["g.lock"]
        with pytest.raises(Busy), lock(tmp_path / "g"):
            pass
    assert not list(tmp_path.iterdir())


def test_a_lock_has_its_name_only_when_it_is_signed(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, plain = [], os.link

    def looking(source: Path, target: Path) -> None:
        seen.append((json.loads(Path(source).read_text())["pid"], Path(target).exists()))
        plain(source, target)

    monkeypatch.setattr(os, "link", looking)
    with lock(tmp_path / "g"):
        assert seen == [(os.getpid(), False)]
    monkeypatch.setattr(os, "pwrite", lambda *words: os.write(-1, b""))
    with pytest.raises(OutputError), lock(tmp_path / "h"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("taken_by", ["another", "nobody"])
def test_a_holder_that_lost_its_lock_stops_and_leaves_the_other_alone(kind: str, taken_by: str, tmp_path: Path) -> None:
    file = lock_file(tmp_path / "g")
    with lock(tmp_path / "g") as held:
        file.unlink()
        other = signed(file) if taken_by == "another" else None
        assert not held.beat()
        with pytest.raises(Busy, match="taken away"):
            held.check()
    assert file.exists() == (other is not None)
    if other:
        assert json.loads(file.read_text()) == asdict(other)


def test_the_beat_shows_other_machines_that_the_holder_lives(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "BEAT_S", 0.02)
    with lock(tmp_path / "g") as held:
        aged(held.file)
        before, until = held.file.stat().st_mtime, time.monotonic() + 10
        while held.file.stat().st_mtime == before and time.monotonic() < until:
            time.sleep(0.02)
        assert held.file.stat().st_mtime > before


def test_a_killed_holder_frees_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "g"
    body = "with lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
    job = program(body, path)
    assert job.stdout and job.stdout.readline() == "held\n"
    with pytest.raises(Busy, match=f"process {job.pid}"), lock(path):
        pass
    job.kill()
    job.wait()
    with lock(path) as held:
        assert held.alone
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/none")):
        with pytest.raises(OutputError, match="choose another --report"), lock(folder / "g", option="--report"):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_start_together_one_at_a_time_gets_in(kind: str, stale: bool, tmp_path: Path) -> None:
    """Each that is in makes a file that must not be there; with ``stale`` each leaves a lock of a process that is
    gone, which all others then want to clear."""
    refuse = (
        "import ssl_tilegen.system.held_lock as own\n"
        "own._flocked = lambda descriptor: None\n" if kind == "no flock" else ""
    )  # fmt: skip
    leave = (
        "import json, os\nfrom dataclasses import asdict, replace\n"
        "from ssl_tilegen.system.lock_owner import Owner\nfrom ssl_tilegen.system.locks import lock_file\n"
        "def leave(held):\n"
        "    left = held.file.with_name(f'left{os.getpid()}')\n"
        f"    left.write_text(json.dumps(asdict(replace(held.owner, pid={GONE}))))\n"
        "    os.replace(left, held.file)\n"  # at once: nobody may read half of it
        if stale else "def leave(held): pass\n"
    )  # fmt: skip
    body = refuse + leave + (
        "mark, me = Path(sys.argv[1]), Path(sys.argv[2])\nme.touch()\n"
        "while len(list(me.parent.glob('ready*'))) < 3: time.sleep(0.01)\n"
        "end = time.time() + 1\nn = 0\n"
        "while time.time() < end or n < 2:\n"
        "    try:\n"
        "        with lock(mark) as held:\n"
        "            mark.open('x').close(); time.sleep(0.002); mark.unlink(); n += 1; leave(held)\n"
        "    except Busy: pass\n"
        "print(n)"
    )  # fmt: skip
    jobs = [program(body, tmp_path / "g", tmp_path / f"ready{number}") for number in range(3)]
    results = [job.communicate() for job in jobs]
    assert all(job.returncode == 0 for job in jobs), results
    assert all(int(out) > 1 for out, _ in results)
