"""The error boundary: whatever is raised becomes one line and an exit code, and no name can break the line."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

from ssl_tilegen.errors import Interrupted, TilegenError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some room or write elsewhere, then run it again",
    errno.EDQUOT: "the disk quota is used up; free some room or write elsewhere, then run it again",
    errno.EFBIG: "the file is larger than is allowed here (see `ulimit -f`); write elsewhere",
    errno.ENAMETOOLONG: "the name is too long for this file system; give a shorter one",
    errno.EACCES: "permission denied; check the rights of the file and its folder",
    errno.EPERM: "not permitted; check the rights of the file and its folder",
    errno.EROFS: "the file system is read-only; write elsewhere",
    errno.ENOENT: "no such file or folder; check the path",
    errno.EISDIR: "is a folder; give a file",
    errno.ENOTDIR: "a part of the path is no folder; check the path",
    errno.EEXIST: "exists; give another name",
    errno.ELOOP: "links in a circle; check the path",
    errno.EMFILE: "too many open files; raise `ulimit -n`",
    errno.ENFILE: "too many open files on this machine; try again later",
    errno.EIO: "the disk reports an error; check it, then run it again",
    errno.ENOMEM: "not enough memory; make the work smaller or use a larger machine",
    errno.ESTALE: "the network file system lost the file; check the mount, then run it again",
    errno.ETIMEDOUT: "timed out; check the network or the mount, then run it again",
}
_BIDIRECTIONAL = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF}
_MOST_CHARACTERS = 2000
_REFUSED = ("can't allocate memory", "can't start new thread")  # of torch, of Python


def explain(error: BaseException) -> tuple[str, int]:
    """(one line, exit code) of any error: what, which value, what to do."""
    text, code = _explained(error)
    return printable(text), code


def printable(text: str) -> str:
    """One line that a terminal shows as it is: control characters, line ends, characters that turn the direction of
    writing and bytes of no character are escaped; texts longer than 2,000 characters are cut in the middle."""
    shown = "".join(character if _is_plain(character) else _escaped(character) for character in text)
    if len(shown) > _MOST_CHARACTERS:
        half = _MOST_CHARACTERS // 2
        shown = f"{shown[:half]} ... {shown[-half:]}"
    return shown


def _is_plain(character: str) -> bool:
    point = ord(character)
    return not (point < 32 or 127 <= point < 160 or 0xD800 <= point < 0xE000 or point in _BIDIRECTIONAL)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def reason_of(error: BaseException) -> str:
    """Why a file could not be read, in a few words: what the system says, where a text is no UTF-8, or the first line
    of a library's error."""
    if isinstance(error, UnicodeDecodeError):
        return f"not {error.encoding}: byte {error.object[error.start]:#04x} at {error.start}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)


def _explained(error: BaseException) -> tuple[str, int]:
    stopped = next((cause for cause in _causes(error) if isinstance(cause, Interrupted)), None)
    if stopped:  # a library that was being imported wraps what is raised in it
        return str(stopped), stopped.exit_code
    refused = next((cause for cause in _causes(error) if is_out_of_memory(cause)), None)
    if isinstance(error, TilegenError) and not (refused and error.exit_code == 1):
        return str(error), error.exit_code
    if refused:
        return f"not enough memory ({first_line(refused)}); make the work smaller (--size, --batch), or free some", 1
    if isinstance(error, RecursionError):
        return "a file that was given is nested too deeply to be read; check where it comes from", 1
    if isinstance(error, UnicodeError):
        return _of_text(error), 1
    if isinstance(error, OSError):
        return _of_system(error), 1
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command continues", 130
    kind = type(error).__name__
    number = re.search(r"\(os error (\d+)\)", str(error)) if kind == "SafetensorError" else None
    if number:  # a library in Rust speaks of the system in words
        return _of_system(OSError(int(number[1]), os.strerror(int(number[1])))), 1
    return f"internal error, {kind}: {first_line(error)}; run it again with --debug and report what that shows", 1


def _of_system(error: OSError) -> str:
    place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    reason = _REMEDIES.get(error.errno or 0) or f"{error.strerror or first_line(error)}; check the file and its folder"
    return f"{place}: {reason}" if place else reason


def _of_text(error: UnicodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        where = f"byte {error.object[error.start]:#04x} at {error.start}"
        return f"a text that was given is not {error.encoding} ({where}); save it as UTF-8"
    return f"a text cannot be written here ({first_line(error)}); use plain letters in names"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was refused: also by torch on a full card, and to a new thread, which are no MemoryError."""
    kind, text = type(error).__name__, str(error)
    refused = any(part in text for part in _REFUSED) or text.strip() == "could not create a primitive"  # of oneDNN
    return isinstance(error, MemoryError) or kind == "OutOfMemoryError" or (isinstance(error, RuntimeError) and refused)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def write_line(text: str, stream: IO[str] | None) -> None:
    """Print and flush. OSError where the stream takes no more. It is then silenced for the rest of the process: the
    interpreter would complain of it again at its end."""
    if stream is None or stream.closed:
        raise OSError(errno.EBADF, "is closed")
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError:
        silence(stream)
        raise


def silence(stream: IO[str]) -> None:
    """Discard all further output."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def hold_standard_files() -> None:
    """Where a shell closed input, output or errors, open nowhere in their place: a file that is opened later would get
    their number, and with it whatever a library prints."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest free number
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115


def make_safe(stream: IO[str] | None) -> None:
    """Have a text stream escape characters that its encoding lacks instead of raising."""
    with suppress(OSError, ValueError, AttributeError):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
