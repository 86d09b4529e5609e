"""The gate lets nothing through that would cost a file which this program did not make, or one that is being read."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_tilegen.errors import InputError, OutputError, TilegenError
from ssl_tilegen.system import marks, work_folder
from ssl_tilegen.system.outputs import Input, Output, check_paths


def ours(path: Path) -> str | None:
    """A mark for these tests: the word is in the file."""
    return None if path.is_file() and b"ours" in path.read_bytes() else "no word"


def out(path: Path, role: str = "main", option: str = "-o") -> Output:
    return Output(path, ours, option, role)  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a source, a store, links to both, and outputs of ours and of others; it is the working folder."""
    (tmp_path / "in.tif").write_text("source")
    (tmp_path / "in.zarr" / "0").mkdir(parents=True)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "x.tif").write_text("source")
    (tmp_path / "link.tif").symlink_to("in.tif")
    (tmp_path / "linked").symlink_to("deep", target_is_directory=True)
    os.link(tmp_path / "in.tif", tmp_path / "hard.tif")
    (tmp_path / "ours.png").write_text("ours")
    (tmp_path / "theirs.png").write_text("theirs")
    (tmp_path / "broken.png").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


INPUTS = ("in.tif", "in.zarr", "deep/er/x.tif")


@pytest.mark.parametrize(
    "target",
    [
        "in.tif", "./in.tif", "deep/../in.tif", "{absolute}/in.tif", "link.tif", "hard.tif", "in.zarr", "in.zarr/",
        "in.zarr/x.png", "in.zarr/new/x.png", "deep", "deep/er", "linked", "linked/er/x.tif", ".", "{absolute}",
        "{absolute}/..",
    ],
)  # fmt: skip
@pytest.mark.parametrize("role", ["main", "side", "work"])
def test_an_output_never_meets_an_input(target: str, role: str, place: Path) -> None:
    path = Path(target.format(absolute=place))
    with pytest.raises(OutputError) as caught:
        check_paths([Input(Path(name)) for name in INPUTS], [out(path, role)], overwrite=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("mounted", "target"), [("in.zarr", "x.png"), ("in.zarr", "new/x.png"), ("deep", "er")])
def test_a_folder_that_is_mounted_twice_is_one_folder(mounted: str, target: str, place: Path) -> None:
    again = place / "again"
    again.mkdir()
    made = subprocess.run(["mount", "--bind", mounted, str(again)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"nothing can be mounted here: {made.stderr.decode().strip()}")
    try:
        with pytest.raises(OutputError):
            check_paths([Input(Path(name)) for name in INPUTS], [out(again / target)], overwrite=True)
        check_paths([Input(Path("in.tif"))], [out(again / "new.png")])
    finally:
        subprocess.run(["umount", "-l", str(again)], check=True)


@pytest.mark.parametrize("target", ["new.png", "deep/new.png", "deep/er/new.png", "new/er/x.png", "in.zarr.png"])
def test_beside_the_inputs_there_is_room(target: str, place: Path) -> None:
    check_paths([Input(Path(name)) for name in INPUTS], [out(Path(target))])
    check_paths([Input(Path("deep"), whole=False)], [out(Path("deep/new.png"))])


@pytest.mark.parametrize("paths", ["a a", "a ./a", "a a/b", "a/b a"])
def test_outputs_do_not_meet(paths: str, place: Path) -> None:
    first, second = paths.split()
    with pytest.raises(OutputError, match="--preview"):
        check_paths([], [out(Path(first)), out(Path(second), "side", "--preview")], overwrite=True)


@pytest.mark.parametrize(
    ("name", "role", "overwrite", "says"),
    [
        ("ours.png", "main", False, "give --overwrite"),
        ("ours.png", "main", True, None),
        ("ours.png", "side", False, None),
        ("ours.png", "work", False, None),
        ("theirs.png", "main", False, "give --overwrite"),
        ("theirs.png", "main", True, "not made by this program .it has no word"),
        ("theirs.png", "side", True, "not made by this program"),
        ("theirs.png", "work", True, "not made by this program"),
        ("deep", "main", True, "not made by this program"),
        ("broken.png", "main", True, "link to nothing"),
        ("theirs.png/x.png", "main", True, "no folder"),
        ("n" * 250, "main", False, "250 bytes"),
        ("/dev/null/x.png", "main", False, "cannot be written"),
    ],
)
def test_only_what_is_ours_is_replaced(name: str, role: str, overwrite: bool, says: str | None, place: Path) -> None:
    output = [out(place / name, role)]
    if says is None:
        check_paths([], output, overwrite=overwrite)
        return
    with pytest.raises(OutputError, match=says) as caught:
        check_paths([], output, overwrite=overwrite)
    assert "\n" not in str(caught.value)


def a_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(path.name)


@pytest.mark.parametrize(
    "make", [os.mkfifo, a_socket, lambda path: path.symlink_to("/dev/full")], ids=["fifo", "socket", "device"]
)
def test_what_is_no_file_is_refused_at_once(make: Callable[[Path], None], place: Path) -> None:
    make(place / "x")
    for inputs, outputs, kind in (([Input(Path("x"))], [], InputError), ([], [out(Path("x"))], OutputError)):
        with pytest.raises(kind, match=r"is a (pipe|socket|device)"):
            check_paths(inputs, outputs, overwrite=True)


@pytest.mark.parametrize(
    "mark",
    [marks.image, marks.grid, marks.sidecar, marks.report_json, marks.report_html, marks.geojson, marks.features,
     work_folder.work(), marks.table(("a", "b", "c"))],
)  # fmt: skip
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"[" * 10**6, b"II*\0garbage", b"\x89PNG\r\n\x1a\n", b"\xff"])
@pytest.mark.parametrize("suffix", [".png", ".json", ".h5", ".npz", ".csv"])
def test_a_foreign_file_lacks_every_mark(mark: marks.Mark, content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    missing = mark(path)
    assert missing is not None and "\n" not in missing


SIDECAR = {"file": "x.png", "synthetic": True, "provenance": {"seed": 1, "guidance": 1.5, "of": "\u00b5"}}
SCORES = {"software": "ssl-tilegen 1", "figures": [0.1, None]}
PAGE = f'<meta content="ssl-tilegen 1">\n<meta name="content-sha256" content="{marks.PAGE_SHA256}">\na\r\n\u00b5'


@pytest.mark.parametrize(
    ("mark", "text", "old"),
    [
        (marks.sidecar, json.dumps(marks.signed_json(SIDECAR), indent=2), SIDECAR),
        (marks.report_json, json.dumps(marks.signed_json(SCORES)), SCORES),
        (marks.report_html, marks.signed_html(PAGE), '<meta content="ssl-tilegen 1">'),
    ],
)
def test_a_text_that_was_edited_lacks_its_mark(mark: marks.Mark, text: str, old: object, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(text.encode())
    assert mark(path) is None
    path.write_bytes(text.replace("1", "2", 1).replace("ssl-tilegen 2", "ssl-tilegen 1x").encode())
    assert mark(path) == "other content than was written"
    path.write_text(old if isinstance(old, str) else json.dumps(old))  # of an earlier version
    assert mark(path) is None


@pytest.mark.parametrize("mark", [marks.image, marks.grid, work_folder.work()])
def test_a_foreign_folder_lacks_every_mark(mark: marks.Mark, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    assert mark(tmp_path) is not None


def test_errors_of_the_gate_are_errors_of_the_program() -> None:
    assert issubclass(OutputError, TilegenError) and issubclass(InputError, TilegenError)
