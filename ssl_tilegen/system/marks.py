"""Whether a file or folder was made by this program. A mark returns the missing sign, None where all are there.

A mark is looked for in the content, never in a name. Marks of folders also refuse what somebody else has put in.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ssl_tilegen import __version__
from ssl_tilegen.system.atomic import is_temporary
from ssl_tilegen.system.hashing import sha256, sha256_of_file, sha256_of_json
from ssl_tilegen.system.listing import LISTINGS, not_named_in
from ssl_tilegen.system.metadata import (
    MOST_JSON_BYTES,
    OURS,
    csv_head_of,
    foreign_in,
    head_of,
    json_of,
    png_texts_of,
    software_of,
    text_of,
)
from ssl_tilegen.system.names import recordable

Mark = Callable[[Path], str | None]
"""The missing mark of an existing path, in words that follow "it has"; None for an output of this program."""

SOFTWARE = f"ssl-tilegen {__version__}"
_ZARR_NAMES = re.compile(r"zarr\.json|c|\d+")
_SIGNATURE = re.compile(
    r"(# |<!-- )written by ssl-tilegen \S+: sha256 (?P<own>[0-9a-f]{64})"
    r"(, beside sha256 (?P<beside>[0-9a-f]{64}))?( -->)?"
)
PAGE_SHA256 = "0" * 64
"""What stands in a page until its hash is known."""
_PAGE_SHA256 = re.compile(r'name="content-sha256" content="([0-9a-f]{64})"')
_CONTENT, _OTHER_CONTENT = "content_sha256", "other content than was written"
_BUNDLE_NAMES = re.compile(
    r"bundle\.json|model_index\.json|CARD\.md|training/[a-z]+\.json|scheduler/scheduler_config\.json|"
    r"(encoder|autoencoder|denoiser|conditioner|prior)/((config|prior)\.json|[^/]+\.safetensors(\.index\.json)?)"
)


def image(path: Path) -> str | None:
    """A picture or pyramid: ``Software`` of its metadata, or the group's attribute ``ssl_tilegen``."""
    if path.is_dir():
        return _zarr(path, "ssl_tilegen", r"\d+")
    name = software_of(path)
    return None if name.startswith(OURS) else "no 'Software: ssl-tilegen' in its metadata"


def augmented(path: Path) -> str | None:
    """The folder that `augment` makes: its ``augment.json``, nothing that its ``manifest.csv`` does not name, and every
    file as it was written (of earlier versions: as large)."""
    facts = json_of(path / "augment.json") if path.is_dir() else None
    if not (isinstance(facts, dict) and facts.get("synthetic") is True and "key" in facts):
        return "no augment.json with 'synthetic: true'"
    try:
        with (path / "manifest.csv").open(newline="", encoding="utf-8-sig") as file:
            named = {str(row["path"]) for row in csv.DictReader(file) if row.get("path")}
    except (OSError, ValueError, KeyError, csv.Error):
        return "no manifest.csv"
    named |= {f"{name}.json" for name in named} | {"augment.json", "manifest.csv"}
    strange = not_named_in(path, named)
    if strange:
        return f"'{strange}' in it, which its manifest.csv does not name"
    as_written = all(facts[key] == known(path) for key, known in LISTINGS.items() if facts.get(key))
    return None if as_written else "other files than were written"


def preview(command: str, of: str) -> Mark:
    """A preview that ``command`` made of the output called ``of``."""

    def mark(path: Path) -> str | None:
        missing = image(path)
        if missing or png_texts_of(path).get("Title") == preview_title(command, of):
            return missing
        return f"another title than '{preview_title(command, of)}'"

    return mark


def preview_title(command: str, of: str) -> str:
    """The PNG text ``Title`` of a preview."""
    return recordable(f"preview of {of} by {command}")


def grid(path: Path) -> str | None:
    """A grid of embeddings, whole or not."""
    return _zarr(path, "kind", "embedding|valid|tissue|done", "ssl-tilegen/embedding-grid")


def scene(path: Path) -> str | None:
    """A map of labels and texts that was written with its legend."""
    return image(path) or (None if "Legend" in png_texts_of(path) else "no text 'Legend' in it")


def sidecar(path: Path) -> str | None:
    """``NAME.json`` beside an image."""
    facts = json_of(path)
    is_ours = isinstance(facts, dict) and facts.get("synthetic") is True and {"file", "provenance"} <= facts.keys()
    return _edited(facts) if is_ours else "no 'synthetic: true' with file and provenance"


def report_json(path: Path) -> str | None:
    """The JSON of a report of `evaluate`."""
    facts = json_of(path)
    is_ours = isinstance(facts, dict) and str(facts.get("software", "")).startswith(OURS) and "figures" in facts
    return _edited(facts) if is_ours else "no 'software: ssl-tilegen' with figures"


def report_html(path: Path) -> str | None:
    """The page of a report of `evaluate`, not edited since."""
    head = head_of(path)
    if b'content="ssl-tilegen' not in head:
        return "no 'generator: ssl-tilegen' in its head"
    known = _PAGE_SHA256.search(head.decode(errors="replace"))
    if not known:
        return None  # of an earlier version
    return None if _page_sha256(path, known[1]) == known[1] else _OTHER_CONTENT


def signed_json(facts: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with the hash of all that is in it, by which a mark tells whether it was edited."""
    plain = json.loads(json.dumps(facts))
    return {**plain, _CONTENT: sha256_of_json(plain)}


def signed_html(page: str) -> str:
    """A page with its hash in the place of `PAGE_SHA256`."""
    return page.replace(PAGE_SHA256, sha256(page), 1)


def _edited(facts: dict[str, Any]) -> str | None:
    """Whether a `signed_json` has other content than it was written with; those of earlier versions are not signed."""
    rest = {key: value for key, value in facts.items() if key != _CONTENT}
    return None if facts.get(_CONTENT) in (None, sha256_of_json(rest)) else _OTHER_CONTENT


def _page_sha256(path: Path, known: str) -> str:
    """The hash of a page; empty where it cannot be read, or is too large to be ours."""
    try:
        content = path.read_bytes() if path.stat().st_size <= MOST_JSON_BYTES else b""
    except OSError:
        return ""
    return sha256(content.replace(known.encode(), PAGE_SHA256.encode(), 1))


def table(columns: Sequence[str]) -> Mark:
    """A CSV (or a JSON list) with just these columns."""

    def mark(path: Path) -> str | None:
        missing = f"no columns {', '.join(columns[:3])}, ..."
        if path.suffix.lower() == ".json":
            rows = json_of(path)
            rows = rows if isinstance(rows, list) else []
            is_ours = bool(rows) and all(isinstance(row, dict) and set(row) == set(columns) for row in rows)
        else:
            is_ours = csv_head_of(path) == list(columns)
        return None if is_ours else missing

    return mark


def geojson(path: Path) -> str | None:
    """Outlines as `embed` wrote them, not edited since."""
    tree = json_of(path)
    own = tree.get("ssl_tilegen") if isinstance(tree, dict) else None
    if not isinstance(own, dict):
        return "no 'ssl_tilegen' in it"
    return None if own.get("sha256") == sha256_of_json(tree.get("features")) else "other features than were written"


def geojson_mark(features: Any) -> dict[str, str]:
    """The member ``ssl_tilegen`` of a GeoJSON file of ours."""
    return {"software": SOFTWARE, "sha256": sha256_of_json(features)}


def features(path: Path) -> str | None:
    """A file of features as `grid export` writes it: ``software`` among its facts."""
    try:
        if path.suffix.lower() == ".npz":
            import numpy as np

            with np.load(path, allow_pickle=False) as file:
                facts = json.loads(str(file["attributes"]))
        else:
            import h5py

            with h5py.File(path, "r") as file:
                facts = dict(file["coords"].attrs)
        return None if str(facts.get("software", "")).startswith(OURS) else "no 'software: ssl-tilegen'"
    except Exception:  # whatever a foreign file does to a reader
        return "no features with 'software: ssl-tilegen'"


def bundle(path: Path) -> str | None:
    """A model bundle: its ``bundle.json``, its components and nothing else, its card as it was written; or an empty
    folder."""
    if path.is_dir() and not any(path.iterdir()):
        return None
    facts = json_of(path / "bundle.json") if path.is_dir() and not path.is_symlink() else None
    if not (isinstance(facts, dict) and {"name", "encoder"} <= facts.keys()):
        return "no bundle.json of a model bundle"
    for place, folders, files in os.walk(path):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in (*files, *links):
            within = Path(place, name).relative_to(path).as_posix()
            if not (_BUNDLE_NAMES.fullmatch(within) or is_temporary(name)):
                return f"'{within}' in it, which is no part of it"
    edited = signed_text(path / "CARD.md") if (path / "CARD.md").exists() else None
    return f"a CARD.md with {edited}" if edited else None


def signed_text(path: Path) -> str | None:
    """A text file that ends in the line of `text_signature`, not edited since."""
    body, _, last = text_of(path).rstrip("\n").rpartition("\n")
    match = _SIGNATURE.fullmatch(last)
    if not match:
        return "no signature of this program in its last line"
    return None if match["own"] == sha256(body) else _OTHER_CONTENT


def beside_signed(text: Path) -> Mark:
    """A file that was written together with a signed text, and not edited since."""

    def mark(path: Path) -> str | None:
        match = _SIGNATURE.fullmatch(text_of(text).rstrip("\n").rpartition("\n")[2])
        same = match is not None and match["beside"] == sha256_of_file(path) if path.is_file() else False
        return None if same else f"another content than was written with {text.name}"

    return mark


def text_signature(body: str, beside: Path | None = None) -> str:
    """The last line, a comment, of a text file of ours that a user may edit; ``beside``: a file that goes with it."""
    more = f", beside sha256 {sha256_of_file(beside)}" if beside else ""
    return f"# written by {SOFTWARE}: sha256 {sha256(body)}{more}"


def signed_markdown(body: str) -> str:
    """A page of ours that a user may edit, with its signature in a last line that is not shown."""
    body = body.rstrip("\n")
    return f"{body}\n<!-- written by {SOFTWARE}: sha256 {sha256(body)} -->\n"


def legend_of(picture: Path) -> Mark:
    """The legend of a map that was written with it: the picture has its hash, as the PNG text ``Legend``."""

    def mark(path: Path) -> str | None:
        try:
            same = png_texts_of(picture).get("Legend") == sha256_of_file(path)
        except OSError:
            same = False
        return None if same else f"another content than was written with {picture.name}"

    return mark


def lock(path: Path) -> str | None:
    """A lock: who holds it."""
    facts = json_of(path)
    is_ours = isinstance(facts, dict) and {"host", "pid", "since"} <= facts.keys()
    return None if is_ours or (path.is_file() and not path.stat().st_size) else "no holder of a lock"


def never(path: Path) -> str | None:
    """The mark of files that are never replaced."""
    return "no mark that lets it be replaced"


def _zarr(path: Path, key: str, members: str, value: str | None = None) -> str | None:
    """A Zarr v3 group with an attribute, which holds arrays called ``members`` and nothing else at all."""
    group = json_of(path / "zarr.json") if path.is_dir() else None
    attributes = group.get("attributes") if isinstance(group, dict) else None
    found = attributes.get(key) if isinstance(attributes, dict) else None
    if found is None or (value is not None and found != value):
        return f"no attribute '{key}{f': {value}' if value else ''}' in a zarr.json"
    strange = foreign_in(path, f"zarr\\.json|{members}")
    if strange:
        return f"'{strange}' in it, which is no part of it"
    for place, folders, files in os.walk(path):
        inner = place != str(path)
        for name in (*folders, *files) if inner else ():
            if not _ZARR_NAMES.fullmatch(name) and not is_temporary(name) and not name.endswith(".partial"):
                return f"'{Path(place, name).relative_to(path)}' in it, which is no part of it"
    return None
