"""Names appear when what they name is whole, in a running system and after a power loss."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_tilegen.errors import OutputError
from ssl_tilegen.system import atomic
from tests.system.power import watched

WRITERS: dict[str, Callable[[Path], None]] = {
    "bytes": lambda path: atomic.write_bytes(path, b"new"),
    "text": lambda path: atomic.write_text(path, "new"),
    "json": lambda path: atomic.write_json(path, {"new": 1}),
}


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def in_the_middle(path: Path) -> None:
    """A writer that fails when half of the file is there."""
    with atomic.writing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("in the middle")


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_power_loss_leaves_the_old_or_the_new(
    writer: str, old: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    if old is not None:
        path.write_bytes(old)
    states: list[dict[str, bytes]] = []
    with watched(tmp_path, monkeypatch) as disk:
        rename = Path.replace

        def renamed(self: Path, target: Path) -> Path:
            made = rename(self, target)
            states.append(disk.names_now())
            return made

        monkeypatch.setattr(Path, "replace", renamed)
        WRITERS[writer](path)
        states += [disk.names_now(), disk.names_flushed()]
    assert states and all(state.get("a.bin") == path.read_bytes() for state in states)
    assert names(tmp_path) == ["a.bin"]


def test_the_disk_forgets_what_was_not_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated power loss itself: a plain write and rename would be lost."""
    with watched(tmp_path, monkeypatch) as disk:
        (tmp_path / "part").write_bytes(b"new")
        (tmp_path / "part").replace(tmp_path / "a.bin")
        assert disk.names_now() == {"a.bin": b""} and disk.names_flushed() == {}


def test_a_failed_write_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError):
        in_the_middle(path)
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


def test_a_name_that_is_taken_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists"), atomic.writing(path, replace=False) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, ".hidden", "no suffix", "a.ome.tif", "a.b c"])
def test_any_name_that_fits_has_a_temporary_one(name: str, tmp_path: Path) -> None:
    atomic.write_text(tmp_path / name, "x")
    assert names(tmp_path) == [name]
    temporary = atomic.temporary_beside(tmp_path / name)
    temporary.touch()
    assert atomic.is_temporary(temporary.name) and not atomic.is_temporary(name)


def test_files_are_published_together_or_not_at_all(tmp_path: Path) -> None:
    """The second name is a folder: the first file is taken back."""
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "page.html").mkdir()
    for first in ("old.json", "fresh.json"):
        before = names(tmp_path)
        pairs = [(tmp_path / "t1", tmp_path / first), (tmp_path / "t2", tmp_path / "page.html")]
        for temporary, _ in pairs:
            temporary.write_text("new")
        with pytest.raises(OSError):
            atomic.publish_files(pairs)
        for name in ("t1", "t2"):
            (tmp_path / name).unlink(missing_ok=True)
        assert names(tmp_path) == before
    assert (tmp_path / "old.json").read_text() == "old"


def test_a_folder_is_on_the_disk_when_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, path = tmp_path / "g.part", tmp_path / "g"
    (path / "old").mkdir(parents=True)
    with watched(tmp_path, monkeypatch) as disk:
        (part / "inner").mkdir(parents=True)
        (part / "inner" / "a").write_bytes(b"new")
        atomic.publish_folder(part, path, replace=True)
        assert disk.names_now() == disk.names_flushed() == {"g/inner/a": b"new"}
    assert names(tmp_path) == ["g"]


def test_a_folder_is_not_replaced_unasked(tmp_path: Path) -> None:
    for name in ("g", "g.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    with pytest.raises(OutputError, match="exists"):
        atomic.publish_folder(tmp_path / "g.part", tmp_path / "g")
    assert (tmp_path / "g" / "g").exists() and (tmp_path / "g.part").exists()


def litter(folder: Path, *names: str) -> None:
    """Temporary files of these outputs, left by a process that is gone; and one that was put aside."""
    code = (
        "import sys; from pathlib import Path; from ssl_tilegen.system.atomic import temporary_beside\n"
        "for n in sys.argv[2:]:\n    for k in ('tmp', 'old'): temporary_beside(Path(sys.argv[1]) / n, k).touch()"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), *names], check=True)


def test_only_litter_is_swept(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    litter(tmp_path, "a.png", "a.png.json", "b.png", "only.png")
    own = [atomic.temporary_beside(tmp_path / "a.png"), tmp_path / ".a.png.part", tmp_path / "x.tmp"]
    for path in own:
        path.touch()
    atomic.sweep(tmp_path, "a.png")
    left = names(tmp_path)
    assert not [n for n in left if n.startswith(".a.png.") and n not in {p.name for p in own} and ".tmp" in n]
    assert {path.name for path in own} <= set(left)
    assert len([n for n in left if n.startswith(".b.png.")]) == 2, "of another output"
    atomic.sweep(tmp_path)
    left = names(tmp_path)
    assert [n for n in left if n.startswith(".only.png.") and ".old" in n], "what was put aside is the only one"
    assert not [n for n in left if n.startswith(".b.png.") and ".tmp" in n]
