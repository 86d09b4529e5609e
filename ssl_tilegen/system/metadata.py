"""What files and folders say of themselves: their software, texts, JSON, names. Of what cannot be read, nothing."""

from __future__ import annotations

import csv
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from ssl_tilegen.system.atomic import is_temporary

OURS = "ssl-tilegen"
"""How every output of this program names its software, before the version."""
MOST_JSON_BYTES, _MOST_TEXT_BYTES = 256 << 20, 16 << 20


def foreign_in(folder: Path, known: str) -> str | None:
    """The first name in a folder that is none of ``known`` (a regular expression), nor a temporary file of ours."""
    pattern = re.compile(known)
    names = sorted(entry.name for entry in os.scandir(folder))
    return next((name for name in names if not pattern.fullmatch(name) and not is_temporary(name)), None)


def odd_in(folder: Path) -> str | None:
    """The first name in a folder of what must not be opened: a link, a file that has a second name, a pipe."""
    for entry in sorted(folder.iterdir()):
        facts = entry.lstat()
        if not (stat.S_ISDIR(facts.st_mode) or (stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1)):
            return entry.name
    return None


def software_of(path: Path) -> str:
    """The program that made an image, by its metadata; empty where nothing can be read."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        return _tiff_software(path) if start[:2] in (b"II", b"MM") else _pillow_software(path)
    except Exception:  # whatever a foreign file does to a reader
        return ""


def _tiff_software(path: Path) -> str:
    import tifffile

    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags.get(305)
    return str(tag.value) if tag is not None else ""


def _pillow_software(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        facts = dict(image.info)
    if "Software" in facts:
        return str(facts["Software"])
    comment = facts.get("comment", b"")
    told = json.loads(comment if isinstance(comment, (bytes, str)) else b"")
    return OURS if isinstance(told, dict) and told.get("synthetic") is True else ""


def png_texts_of(path: Path) -> dict[Any, Any]:
    """The texts in a PNG, by keyword."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return dict(image.info)
    except Exception:  # whatever a foreign file does to a reader
        return {}


def json_of(path: Path) -> Any:
    """The content of a JSON file; None where there is none, or one too large to be ours."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_JSON_BYTES:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def text_of(path: Path) -> str:
    """A text file; empty where there is none, or one too large to be ours."""
    try:
        is_small = path.is_file() and path.stat().st_size <= _MOST_TEXT_BYTES
        return path.read_text(encoding="utf-8") if is_small else ""
    except (OSError, ValueError):
        return ""


def head_of(path: Path) -> bytes:
    """The first bytes of a file."""
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def csv_head_of(path: Path) -> list[str]:
    """The names of a CSV's columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        return []
