"""Inheritance of components: a new bundle copies those that it lacks, with their facts, from another one."""

from __future__ import annotations

import shutil
from pathlib import Path

from ssl_tilegen.bundle import BundleInfo, ModelBundle, Origin, update_info
from ssl_tilegen.encoders.bundle_encoder import encoder_key, has_encoder
from ssl_tilegen.errors import InputError
from ssl_tilegen.system.atomic import publish_folder, sweep, temporary_beside

_COMPONENTS = ("encoder", "autoencoder", "denoiser", "conditioner", "scheduler", "prior")
_OF_ENCODER = {"encoder", "resolutions"}
_NOT_INHERITED = {"format", "name", "training", "scores", "licence", "datasets", "origins"}


def inherit(source: Path, target: Path, used: tuple[str, ...] = ()) -> list[str]:
    """Copy into ``target`` the components of ``source`` that it lacks; return their names. What it has stays.

    Name, card, licence, scores and training record of ``source`` are not taken: they are of its weights and its maker.
    ``origins`` says where each component is from. Raises InputError where ``target`` has another one of ``used``, the
    components that are trained against.
    """
    if source.resolve() == target.resolve():
        return []
    theirs = ModelBundle(source)
    _check_same(theirs, target, used)
    sweep(target)
    names_one = _lacks_encoder(target) and not theirs.has("encoder") and has_encoder(theirs)
    copied = [name for name in _COMPONENTS if (source / name).is_dir() and not (target / name).exists()]
    for name in copied:
        _copy(source / name, target / name)
    if copied or not (target / "bundle.json").is_file():
        _take_facts(theirs, target, copied, with_encoder=names_one or "encoder" in copied)
    return copied


def _check_same(theirs: ModelBundle, target: Path, used: tuple[str, ...]) -> None:
    if not (target / "bundle.json").is_file():
        return
    ours = ModelBundle(target)
    for name in used:
        if _is_another(ours, theirs, name):
            raise InputError(
                f"{target} has another {name} than {theirs.folder}; leave `bundle` out to use its own, "
                "or choose another --out"
            )


def _is_another(ours: ModelBundle, theirs: ModelBundle, component: str) -> bool:
    """Whether ``ours`` has the component and it is another one; of encoders, one that is only named counts, too."""
    if component == "encoder" and not theirs.has("encoder"):
        return has_encoder(ours) and encoder_key(ours) != encoder_key(theirs)
    return ours.has(component) and ours.component_hash(component) != theirs.component_hash(component)


def _lacks_encoder(target: Path) -> bool:
    return not ((target / "bundle.json").is_file() and has_encoder(ModelBundle(target)))


def _copy(source: Path, target: Path) -> None:
    part = temporary_beside(target)
    shutil.copytree(source, part)
    publish_folder(part, target)


def _take_facts(theirs: ModelBundle, target: Path, copied: list[str], *, with_encoder: bool) -> None:
    """Put facts and origins of the copied components into ``bundle.json``."""
    fresh = not (target / "bundle.json").is_file()
    taken = set(BundleInfo.model_fields) - _NOT_INHERITED
    if not fresh:
        taken &= (_OF_ENCODER if with_encoder else set()) | (taken - _OF_ENCODER if "denoiser" in copied else set())
    facts = {name: getattr(theirs.info, name) for name in taken}
    known = {} if fresh else ModelBundle(target).info.origins
    origins = {name: _origin(theirs, name) for name in copied if name != "scheduler"}
    scheduler = theirs.scheduler_config if "scheduler" in copied else None
    update_info(target, scheduler=scheduler, **facts, origins={**known, **origins})


def _origin(theirs: ModelBundle, name: str) -> Origin:
    """Where the component is from; of one that was itself copied, the first."""
    sha256 = theirs.component_hash(name)
    first = theirs.info.origins.get(name)
    if first is not None and first.sha256 == sha256:
        return first
    return Origin(bundle=theirs.info.name, licence=theirs.info.licence, sha256=sha256)
