"""Names of files and folders: which of those that a table gives can be used on every system, and how those that the
system gives are written down. Linux has names that are not UTF-8; Python holds their bytes as lone surrogates, which no
UTF-8 file can hold."""

from __future__ import annotations

import os

_RESERVED = frozenset('/\\:*?"<>|')
_MOST_BYTES = 200
"""A length that leaves room for the suffixes of outputs, locks and temporary files."""


def recordable(text: str) -> str:
    """A text that a UTF-8 file can hold: bytes of a name that are of no character are escaped (``\\udcff``)."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def unfit_name(name: str) -> str | None:
    """Why ``name`` cannot be that of a file or folder, in words that follow it; None where it can."""
    if not name or name.startswith("."):
        return "is no name of a file or folder"
    if _RESERVED & set(name) or any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "holds characters that no file name has"
    if len(os.fsencode(name)) > _MOST_BYTES:
        return f"is longer than {_MOST_BYTES} bytes"
    return None
