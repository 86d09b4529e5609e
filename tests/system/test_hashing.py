"""Hashes are those of plain sha256, read once, and never of a file that has changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ssl_tilegen.system.hashing import sha256, sha256_of_file, sha256_of_folder, sha256_of_json


def plain(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_parts_follow_each_other() -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert sha256(b"a", "ü", array[:, ::-1]) == plain(b"a", "ü".encode(), array[:, ::-1].tobytes())


def test_json_is_sorted_and_knows_what_has_a_text() -> None:
    assert sha256_of_json({"b": 1, "a": Path("x")}, b"more") == plain(b'{"a": "x", "b": 1}', b"more")
    assert sha256_of_json({"b": 1, "a": 2}, sort_keys=False) == plain(json.dumps({"b": 1, "a": 2}).encode())


def test_a_folder_is_the_names_and_contents_of_its_files(tmp_path: Path) -> None:
    for name in ("b.json", "a.safetensors"):
        (tmp_path / name).write_bytes(name.encode() * 3)
    (tmp_path / "folder").mkdir()
    expected = plain(*(part for n in (b"a.safetensors", b"b.json") for part in (n, n * 3)))
    assert sha256_of_folder(tmp_path) == expected


def test_a_file_is_read_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "weights", []
    path.write_bytes(b"x" * 3_000_000)
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self) or real(self, *a, **k))
    assert sha256_of_file(path) == sha256_of_file(path) == plain(b"x" * 3_000_000)
    assert len(opened) == 1
    for content in (b"y" * 3_000_000, b"short"):
        path.write_bytes(content)
        assert sha256_of_file(path) == plain(content)
