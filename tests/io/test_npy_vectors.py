"""Vectors from .npy and .npz files; files that hold none are one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl_tilegen.errors import InputError
from ssl_tilegen.io.npy_vectors import load_vector


def test_a_vector_of_a_file_and_of_a_key(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    np.savez(tmp_path / "b.npz", x=np.zeros(2), y=np.ones((1, 4)))
    assert load_vector("a.npy", tmp_path).tolist() == [0, 1, 2] and load_vector("a.npy", tmp_path).dtype == np.float32
    assert load_vector("b.npz:y", tmp_path).shape == (4,) and not load_vector("b.npz", tmp_path).any()


def damaged(path: Path) -> Path:
    """A compressed .npz with bytes changed in the middle of its data."""
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=4000))
    content = bytearray(path.read_bytes())
    content[2000:2040] = b"\xff" * 40
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["text.npy", "short.npz", "damaged.npz", "empty.npz", "none.npy", "pairs.npy"])
def test_files_without_a_vector_are_one_line(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    np.save(tmp_path / "pairs.npy", np.zeros(2, [("x", "f4"), ("y", "f4")]))
    whole = damaged(tmp_path / "damaged.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[:1000])
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"no vector can be read .*; give \.npy") as caught:
        load_vector(name, tmp_path)
    assert "\n" not in str(caught.value)
