"""Every error is one line that says what to do; no name can break it or hide in it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from ssl_tilegen.errors import InputError, Interrupted, PartialFailure
from ssl_tilegen.system.boundary import explain, first_line, printable


def raised(call: object) -> BaseException:
    try:
        call()  # type: ignore[operator]
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def deep() -> None:
    deep()


def because(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (InputError("a.tif: is empty"), 1, "a.tif: is empty"),
        (PartialFailure("2 of 3"), 3, "2 of 3"),
        (because(RuntimeError("Failed to import a library"), Interrupted("stopped", 15)), 143, "stopped"),
        (Interrupted("stopped", 15), 143, "stopped"),
        (OSError(errno.ENOSPC, "No space", "out.tif"), 1, "out.tif: the disk is full"),
        (OSError(errno.ENAMETOOLONG, "x", b"out.tif"), 1, "out.tif: the name is too long"),
        (OSError(errno.EXDEV, "Invalid cross-device link"), 1, "Invalid cross-device link"),
        (OSError("no number"), 1, "no number"),
        (MemoryError(), 1, "not enough memory"),
        (raised(lambda: np.zeros(1 << 60, np.uint8)), 1, "not enough memory"),
        (raised(lambda: torch.zeros(1 << 58)), 1, "not enough memory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), 1, "not enough memory"),
        (RuntimeError("could not create a primitive"), 1, "not enough memory"),
        (RuntimeError("can't start new thread"), 1, "not enough memory"),
        (because(InputError("a.tif: cannot be read"), MemoryError()), 1, "not enough memory"),
        (because(PartialFailure("2 of 3"), MemoryError()), 3, "2 of 3"),
        (raised(deep), 1, "nested too deeply"),
        (raised(lambda: b"\xff".decode()), 1, "not utf-8 (byte 0xff at 0)"),
        (raised(lambda: "\ud800".encode()), 1, "plain letters"),
        (SafetensorError("I/O error: File too large (os error 27)"), 1, "larger than is allowed"),
        (SafetensorError("invalid header"), 1, "internal error, SafetensorError"),
        (KeyError("a\nb"), 1, "internal error, KeyError"),
    ],
)
def test_every_error_is_one_line(error: BaseException, code: int, says: str) -> None:
    line, found = explain(error)
    assert found == code and says in line and "\n" not in line and "unexpected" not in line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Präparat 3 µm.tif", "Präparat 3 µm.tif"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\x85b\x7f", "a\\x85b\\x7f"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        (os.fsdecode(b"\xff.tif"), "\\udcff.tif"),
    ],
)
def test_names_are_shown_as_they_are_or_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_an_error_without_text_is_named_by_its_class() -> None:
    assert [first_line(error) for error in (OSError(" \na\nb"), EOFError(), OSError(" \n"))] == [
        "a",
        "EOFError",
        "OSError",
    ]


def test_long_lines_are_cut() -> None:
    assert len(printable("x" * 10**6)) < 2100


@pytest.mark.parametrize("target", ["/dev/full", "closed", "pipe"])
def test_a_stream_that_takes_no_more_is_one_error(target: str) -> None:
    """As the program is run: the error is raised once, and the end of the process adds nothing to it."""
    code = (
        "import sys\nfrom ssl_tilegen.system.boundary import write_line, explain\n"
        "try: write_line('x' * 100_000, sys.stdout)\n"
        "except OSError as error: print(explain(error)[0], file=sys.stderr); raise SystemExit(1)"
    )
    redirect = {"/dev/full": "> /dev/full", "closed": ">&-", "pipe": "| true"}[target]
    command = f'{sys.executable} -c "$CODE" {redirect}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], env=os.environ | {"CODE": code}, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done
