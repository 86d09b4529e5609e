"""Bundles on the Hugging Face hub: ``hf-hub:ORG/NAME`` or ``hf-hub:ORG/NAME@REVISION`` wherever a bundle is named.

A bundle that is in the cache is used from there, without a network; ``models pull`` asks the hub for the newest one.
Only files that hold data are fetched: JSON, safetensors, texts and images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from ssl_tilegen.errors import InputError
from ssl_tilegen.system.atomic import is_temporary
from ssl_tilegen.system.boundary import first_line

PREFIX = "hf-hub:"
FILES = ("*.json", "*.safetensors", "*.md", "*.png", "*.jpg", "*.jpeg", "*.txt", "LICENSE*")
COMPONENTS = ("encoder", "autoencoder", "denoiser", "conditioner", "scheduler", "prior")
SOURCE_FILES = ("*.json", "*.safetensors", "*.ckpt", "*.bin", "*.yaml")
"""Files that an importer reads of a published model."""
_NAME = re.compile(r"hf-hub:(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
_SOURCE = re.compile(r"hf-hub:(?P<repo>[\w.-]+/[\w.-]+)(?P<folder>(?:/[\w-][\w.-]*)*)/?(?:@(?P<revision>[\w./-]+))?")


class HubName(NamedTuple):
    """A repository of the hub, and the branch, tag or commit that is meant; None is the newest."""

    repo: str
    revision: str | None

    @classmethod
    def parse(cls, name: str) -> HubName:
        """From ``hf-hub:ORG/NAME[@REVISION]``. InputError where it is none."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise InputError(f"{name}: expected hf-hub:ORG/NAME or hf-hub:ORG/NAME@REVISION")
        return cls(match["repo"], match["revision"])

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_hub_name(name: object) -> bool:
    """Whether a bundle's name is one of the hub."""
    return str(name).startswith(PREFIX)


def cached_or_fetched(name: str) -> Path:
    """The folder of a bundle of the hub: from the cache where it is whole there, else fetched. InputError, in one
    line, where it cannot be had or is no bundle."""
    hub = HubName.parse(name)
    return _in_cache(hub) or fetch(name)


def fetch(name: str) -> Path:
    """Ask the hub for a bundle, fetch its new files, and return its folder in the cache."""
    hub = HubName.parse(name)
    try:
        folder = _snapshot(hub, local_files_only=False)
    except Exception as error:
        raise InputError(f"{hub}: {_remedy(hub, error)}") from None
    if not (folder / "bundle.json").is_file():
        raise InputError(f"{hub}: has no bundle.json, so it is no bundle of ssl-tilegen; `models import` may know it")
    if not is_whole(folder):
        raise InputError(f"{hub}: its copy in the cache is not whole; pull it again where there is a network")
    return folder


def fetch_source(name: str) -> Path:
    """The folder of a published model of the hub, ``hf-hub:ORG/NAME[/FOLDER][@REVISION]``, fetched into the cache.

    Raises InputError, in one line, where it cannot be had.
    """
    match = _SOURCE.fullmatch(name)
    if match is None:
        raise InputError(f"{name}: expected hf-hub:ORG/NAME, hf-hub:ORG/NAME/FOLDER, or one of them with @REVISION")
    hub, inside = HubName(match["repo"], match["revision"]), (match["folder"] or "").strip("/")
    patterns = [f"{inside}/{pattern}" if inside else pattern for pattern in SOURCE_FILES]
    try:
        folder = _snapshot(hub, patterns, local_files_only=False) / inside
    except Exception as error:
        raise InputError(f"{hub}: {_remedy(hub, error)}") from None
    if not folder.is_dir():
        raise InputError(f"{name}: has no folder {inside}")
    return folder


def push(folder: Path, name: str, texts: dict[str, str], *, private: bool = False) -> str:
    """Upload the bundle in ``folder``, with ``texts`` (name -> content) in place of its own files; its address.

    All files are one commit, so nobody fetches half a bundle. Files of components that the bundle no longer has are
    removed from the repository; other files stay.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.set_verbosity_error()
    disable_progress_bars()
    hub, api = HubName.parse(name), HfApi()
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if _is_data(path)}
    contents: dict[str, Any] = {**files, **{file: text.encode() for file, text in texts.items()}}
    try:
        page = api.create_repo(hub.repo, private=private, exist_ok=True)
        if hub.revision:
            api.create_branch(hub.repo, branch=hub.revision, exist_ok=True)
        there = api.list_repo_files(hub.repo, revision=hub.revision)
        gone = [file for file in there if file.partition("/")[0] in COMPONENTS and file not in contents]
        adding = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=content) for file, content in contents.items()]
        api.create_commit(hub.repo, [*(CommitOperationDelete(path_in_repo=file) for file in gone), *adding],
                          commit_message="Upload bundle", revision=hub.revision)  # fmt: skip
    except Exception as error:
        raise InputError(f"{hub}: {_remedy(hub, error)}") from None
    return str(page)


def _is_data(path: Path) -> bool:
    """Whether a file of a bundle is one that is fetched again."""
    return path.is_file() and not is_temporary(path.name) and any(fnmatch(path.name, pattern) for pattern in FILES)


def _in_cache(hub: HubName) -> Path | None:
    """The bundle's folder in the cache; None where it is not there, or not whole."""
    try:
        folder = _snapshot(hub, local_files_only=True)
    except Exception:
        return None
    return folder if is_whole(folder) else None


def is_whole(folder: Path) -> bool:
    """Whether every component that ``model_index.json`` names is there with all of its weights."""
    from ssl_tilegen.bundle.components import weight_files
    from ssl_tilegen.bundle.info import read_json
    from ssl_tilegen.errors import FormatError

    try:
        read_json(folder / "bundle.json")
        parts = [name for name, value in read_json(folder / "model_index.json").items() if isinstance(value, list)]
        for part in parts:
            if part == "scheduler":
                read_json(folder / part / "scheduler_config.json")
            else:
                read_json(folder / part / "config.json")
                weight_files(folder / part)
    except FormatError:
        return False
    return True


def _snapshot(hub: HubName, files: Sequence[str] = FILES, **how: Any) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.set_verbosity_error()
    disable_progress_bars()
    return Path(snapshot_download(hub.repo, revision=hub.revision, allow_patterns=list(files), **how))


def _remedy(hub: HubName, error: Exception) -> str:
    """The reason and the remedy, in one line."""
    kinds, text = {kind.__name__ for kind in type(error).__mro__}, str(error)
    page = f"https://huggingface.co/{hub.repo}"
    if "GatedRepoError" in kinds or "403" in text:
        return f"is gated; accept its licence at {page} and run `hf auth login`"
    if "RevisionNotFoundError" in kinds:
        return f"has no revision {hub.revision}; see {page}"
    if "RepositoryNotFoundError" in kinds or "401" in text:
        return f"no such model at {page}, or it is private; check the name, or run `hf auth login`"
    if "OfflineModeIsEnabled" in kinds or "LocalEntryNotFoundError" in kinds:
        return "is not in the cache and there is no network (or HF_HUB_OFFLINE is set); pull it where there is one"
    return f"cannot be reached ({first_line(error)[:150]}); try again where there is a network"
