"""Which component of the bundle a run of `train` may replace: none that was trained, but by this run, or to begin anew.

``replaces.json`` in the run's folder says which weights were in the bundle when the run began.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ssl_tilegen.bundle import find_bundle
from ssl_tilegen.bundle.components import weights_sha256
from ssl_tilegen.bundle.info import read_info, read_json
from ssl_tilegen.errors import OutputError
from ssl_tilegen.system.atomic import write_json
from ssl_tilegen.system.hashing import sha256_of_folder
from ssl_tilegen.training.checkpoint import has_checkpoint
from ssl_tilegen.training.run_metadata import component_of, trained_sha256

REPLACES_FILE = "replaces.json"
_KEY = "weights_sha256"


class BundlePart(NamedTuple):
    """A run of ``stage``, and the bundle that its result goes into."""

    stage: str
    run_folder: Path
    bundle_folder: Path

    @property
    def component(self) -> Path:
        """The folder of the component that the stage trains."""
        return self.bundle_folder / component_of(self.stage)


def keep_replaced(place: BundlePart) -> None:
    """Write into the run's folder which weights the bundle has as the run begins."""
    write_json(place.run_folder / REPLACES_FILE, {_KEY: weights_sha256(place.component)})


def check_replaced(place: BundlePart, settings: Any) -> Literal["export", "keep"]:
    """Whether the run may put its result into the bundle; ``keep``: a painter was trained from it since, which stays.

    Raises:
        OutputError: The bundle has a trained component that this run does not go on from.
    """
    there = weights_sha256(place.component)
    own, began_with = trained_sha256(place.stage, place.bundle_folder), _began_with(place.run_folder)
    if there in (None, began_with) or _is_inherited(place) or _is_pretrained(place, settings):
        return "export"
    if not has_checkpoint(place.run_folder):
        if place.stage != "painter" or there == own or not _starts_from_it(place, settings):
            raise _refusal(place, "it was trained, and this run has no checkpoint to go on from")
    elif place.stage == "denoiser" and there == trained_sha256("painter", place.bundle_folder):
        return "keep"
    elif place.stage == "painter" and began_with and there == trained_sha256("denoiser", place.bundle_folder):
        raise _refusal(place, "it was trained after this painter was begun from another")
    return "export"


def _refusal(place: BundlePart, why: str) -> OutputError:
    return OutputError(
        f"{place.component}: {why}; give --restart to train anew and replace it, move it away, or choose another --out"
    )


def _began_with(run_folder: Path) -> str | None:
    try:
        return json.loads((run_folder / REPLACES_FILE).read_bytes()).get(_KEY)
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _is_inherited(place: BundlePart) -> bool:
    """Whether the component still is the copy of another bundle's."""
    if not (place.bundle_folder / "bundle.json").is_file():
        return False
    origin = read_info(place.bundle_folder).origins.get(place.component.name)
    return origin is not None and origin.sha256 == sha256_of_folder(place.component)


def _is_pretrained(place: BundlePart, settings: Any) -> bool:
    """Whether the component is the published encoder that the run takes."""
    name = getattr(settings, "pretrained", None)
    return bool(name) and _pretrained_name(place.component) in (name, Path(str(name).removeprefix("local-dir:")).name)


def _pretrained_name(component: Path) -> object:
    return read_json(component / "config.json").get("pretrained")


def _starts_from_it(place: BundlePart, settings: Any) -> bool:
    """Whether a painter starts from the very denoiser that it is to replace."""
    name = settings.start_from or settings.bundle
    source = find_bundle(name) if name else place.bundle_folder
    return weights_sha256(source / place.component.name) == weights_sha256(place.component)
