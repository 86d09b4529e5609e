"""Checkpoints are read without running anything that they name, and without copying them."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_tilegen.bundle.importers.checkpoint import read_checkpoint
from ssl_tilegen.errors import FormatError
from tests.bundle.importers.sources import lightning_checkpoint


def test_a_training_checkpoint_gives_its_weights_alone(tmp_path: Path) -> None:
    state = {
        "a.weight": torch.randn(3, 4),
        "a.half": torch.randn(5).half(),
        "b": torch.tensor(7),
        "c": torch.randn(2, 2).bfloat16(),
        "d.transposed": torch.randn(4, 6).t(),
    }
    read = read_checkpoint(lightning_checkpoint(tmp_path / "last.ckpt", state))
    assert read.keys() == state.keys()
    for name, value in state.items():
        assert read[name].dtype == value.dtype and torch.equal(read[name], value)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: OrderedDict(s), lambda s: {"model": s}, lambda s: {"teacher": s}]
)
def test_bare_and_wrapped_states(wrap: Any, tmp_path: Path) -> None:
    torch.save(wrap({"x": torch.nn.Parameter(torch.ones(3))}), tmp_path / "w.pth")
    assert torch.equal(read_checkpoint(tmp_path / "w.pth")["x"], torch.ones(3))


class Harmful:
    """Pickles as a call."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> Any:
        return self.call, self.args


@pytest.mark.parametrize(
    ("call", "args"),
    [
        (os.system, ("touch {}",)),
        (eval, ("open('{}', 'w')",)),
        (exec, ("open('{}', 'w')",)),
        (os.open, ("{}", 66)),
        (getattr, (os, "system")),
        (torch.load, ("{}",)),
        (pickle.loads, (b"",)),
        (__import__, ("os",)),
    ],
)
def test_a_hostile_file_is_refused_in_one_line(call: Any, args: tuple[Any, ...], tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "bad.ckpt"
    given = [a.format(trace) if isinstance(a, str) else a for a in args if a is not os]
    torch.save({"state_dict": {"w": torch.ones(2)}, "callback": Harmful(call, *given)}, path)
    with pytest.raises(FormatError, match="refused") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value) and not trace.exists()


def test_calls_of_swallowed_libraries_do_nothing(tmp_path: Path) -> None:
    import pathlib

    torch.save(
        {
            "state_dict": {"w": torch.ones(2)},
            "place": pathlib.PurePosixPath("/etc"),
            "rng": torch.Generator().get_state(),
            "set": {1, 2},
        },
        tmp_path / "a.ckpt",
    )
    assert list(read_checkpoint(tmp_path / "a.ckpt")) == ["w"]


def damaged(path: Path, how: str) -> Path:
    if how == "text":
        path.write_text("not a checkpoint")
        return path
    torch.save({"w": torch.randn(1000)}, path)
    if how == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    elif how == "legacy":
        torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    elif how == "no tensors":
        torch.save({"epoch": 3}, path)
    elif how == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/b", "c")
    elif how == "compressed":
        with zipfile.ZipFile(path) as old:
            entries = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
    elif how == "outside":
        rewrite_pickle(path, lambda data: data.replace(b"M\xe8\x03", b"M\xe9\x03"))
    return path


def rewrite_pickle(path: Path, change: Any) -> None:
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("how", ["text", "cut", "legacy", "no tensors", "other zip", "compressed", "outside"])
def test_damage_is_told_in_one_line(how: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        read_checkpoint(damaged(tmp_path / "w.ckpt", how))
    assert "w.ckpt" in str(caught.value) and "\n" not in str(caught.value)
