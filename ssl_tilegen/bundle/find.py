"""Where a bundle is: built in, a folder, or on the Hugging Face hub."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ssl_tilegen.bundle.hub import cached_or_fetched, is_hub_name
from ssl_tilegen.errors import InputError

BUILT_IN = ("tiny",)


def find_bundle(name: str | Path) -> Path:
    """The folder of a bundle: a built-in name, a path, or ``hf-hub:ORG/NAME[@REVISION]`` (cached, else fetched). Raises
    InputError where there is none."""
    if str(name) in BUILT_IN:
        packaged = Path(str(resources.files("ssl_tilegen"))) / "models" / str(name)
        checkout = Path(str(resources.files("ssl_tilegen"))).parent / "models" / str(name)
        return packaged if packaged.is_dir() else checkout
    if is_hub_name(name):
        return cached_or_fetched(str(name))
    folder = Path(name)
    if not (folder / "bundle.json").is_file():
        raise InputError(
            f"{name}: not a model bundle (no bundle.json); use a bundle's folder or {', '.join(BUILT_IN)}, or make one "
            "of a published model with `models import`"
        )
    return folder
