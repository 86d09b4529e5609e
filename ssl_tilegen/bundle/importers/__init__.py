"""Published models taken into bundles: which family a source is of, and its weights under our names.

A family is one module here that recognises its sources by content, one entry in ``recognise``, and a conditioning
(``diffusion.conditioning``). Importers never build a network: they map names, check shapes on the meta device and
stream the weights from the files that they lie in to those of the bundle. Every tensor is used or left out by name.
"""

from __future__ import annotations

from pathlib import Path

from ssl_tilegen.bundle.importers import diffusers_folder, large_image_diffusion, pixcell, zoomldm
from ssl_tilegen.bundle.importers.base import NO_LICENCE, Imported, ImportOptions
from ssl_tilegen.bundle.importers.checkpoint import read_checkpoint
from ssl_tilegen.errors import FormatError, InputError

__all__ = ["FAMILIES", "NO_LICENCE", "ImportOptions", "Imported", "recognise"]

FAMILIES = (large_image_diffusion.FAMILY, pixcell.FAMILY, zoomldm.FAMILY, diffusers_folder.FAMILY)
_CHECKPOINTS = ("checkpoints/last.ckpt", "last.ckpt", "weights.ckpt")
_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")


def recognise(source: Path, options: ImportOptions | None = None) -> Imported:
    """The published model at ``source``, a folder or a checkpoint, in our terms; its weights are not read yet.

    Raises:
        InputError: there is nothing there, or a part of it is missing.
        FormatError: it is of no known family, damaged, or a pickle that names code.
        SettingError: an option does not fit the family.
    """
    options = options or ImportOptions()
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if source.is_dir() and pixcell.matches(source):
        return pixcell.convert(source, options).checked()
    if source.is_dir() and diffusers_folder.matches(source):
        return diffusers_folder.convert(source, options).checked()
    checkpoint = _checkpoint(source)
    tensors = read_checkpoint(checkpoint)
    for family in (zoomldm, large_image_diffusion):
        if family.matches(set(tensors)):
            return family.convert(source, checkpoint, tensors, options).checked()
    raise FormatError(
        f"{checkpoint}: none of the models that can be imported ({', '.join(FAMILIES)}); its first tensor "
        f"is {next(iter(tensors))}"
    )


def _checkpoint(source: Path) -> Path:
    if source.is_file():
        return source
    known = [source / name for name in _CHECKPOINTS if (source / name).is_file()]
    found = known or sorted(path for path in source.iterdir() if path.suffix in _SUFFIXES)
    if not found:
        raise InputError(
            f"{source}: no model here; expected a folder of {', '.join(FAMILIES)} or a checkpoint "
            f"({', '.join(_SUFFIXES)})"
        )
    return found[0]
