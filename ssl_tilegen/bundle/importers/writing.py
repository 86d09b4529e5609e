"""A published model written as a bundle: weights streamed from file to file, and a card that says whose they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from ssl_tilegen.bundle.importers.base import Imported, ImportOptions
from ssl_tilegen.bundle.importers.weights import Component, write_safetensors
from ssl_tilegen.bundle.info import BundleInfo, write_info
from ssl_tilegen.errors import OutputError
from ssl_tilegen.system import marks
from ssl_tilegen.system.atomic import publish_folder, remove, sweep, temporary_beside
from ssl_tilegen.system.locks import lock, lock_file
from ssl_tilegen.system.outputs import Input, Output, check_output, check_paths, require_name

_SPARE_BYTES = 64 << 20


def write_bundle(
    imported: Imported,
    source: Path,
    out: Path,
    options: ImportOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[float, float], None] = lambda done, total: None,
    finish: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write the bundle ``out``; it gets its name when it is whole.

    Args:
        imported: The model.
        source: Where it was read from, which is never written to.
        out: The bundle's folder.
        options: What else was read: the autoencoder's folder, the training configuration.
        overwrite: Replace a bundle that is there; anything else is never replaced.
        progress: Told bytes done and bytes in all.
        finish: Called with the folder before it gets its name, to add to it.

    Raises:
        OutputError: ``out`` is the source, or one lies in the other; something is there already; another job writes
            it; the disk is full or cannot be written to.
    """
    check_place(source, out, options, overwrite=overwrite)
    with lock(out) as held:
        sweep(out.parent, out.name)
        check_output(Output(out, marks.bundle), overwrite=overwrite)
        part = temporary_beside(out)
        try:
            free = shutil.disk_usage(out.parent).free
            need = imported.nbytes + min(imported.nbytes // 8 + (1 << 20), _SPARE_BYTES)
            if free < need:
                raise OutputError(
                    f"{out}: needs {need >> 20} MiB, the disk has {free >> 20} MiB free; free some room or choose "
                    "another -o"
                )
            _write(imported, part, progress)
            finish(part)
            held.check()
            check_output(Output(out, marks.bundle), overwrite=overwrite)
            publish_folder(part, out, replace=overwrite, mark=marks.bundle)
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror or error}); choose another -o") from None
        finally:
            remove(part)


def check_place(source: Path, out: Path, options: ImportOptions | None = None, *, overwrite: bool) -> None:
    """The gate: OutputError where a bundle may not be written to ``out``, InputError where the source is no file."""
    require_name(out)
    read = [Input(source, "the source")]
    read += [Input(path, option) for path, option in _read_too(options)
             if path is not None] if options else []  # fmt: skip
    own_lock = Output(lock_file(out), marks.lock, role="work")
    check_paths(read, [Output(out, marks.bundle), own_lock], overwrite=overwrite)


def _read_too(options: ImportOptions) -> list[tuple[Path | None, str]]:
    """Inputs beside the source, by their options."""
    return [
        (options.vae, "--vae"), (options.config, "--config"), (options.encoder_weights, "--encoder-weights")
    ]  # fmt: skip


def _write(imported: Imported, folder: Path, progress: Callable[[float, float], None]) -> None:
    done = 0
    for name, component in imported.components.items():
        _write_component(component, folder / name)
        done += component.nbytes
        progress(done, imported.nbytes)
    licence, training = imported.licence, {"imported_from": imported.family, "left_out": imported.left_out}
    info = BundleInfo(**imported.info, locality="window", licence=licence, origin=imported.origin, training=training)
    write_info(folder, info, imported.scheduler)
    (folder / "CARD.md").write_text(marks.signed_markdown(card(imported, info)), encoding="utf-8")


def _write_component(component: Component, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(component.config, indent=2) + "\n", encoding="utf-8")
    write_safetensors(folder / "diffusion_pytorch_model.safetensors", component.weights)


def card(imported: Imported, info: BundleInfo) -> str:
    """The bundle's card: family, origin, licence, tensors left out."""
    at = ", ".join(f"{value:g} {unit}/px ({domain})" for domain, (value, unit) in info.resolutions.items())
    reasons = sorted(set(imported.left_out.values()))
    lines = [
        f"# {info.name}",
        "",
        f"{imported.family}, imported by ssl-tilegen. Windows of {info.window_px} px at {at or 'unknown resolution'}, "
        f"conditioned on embeddings of {info.encoder.id} ({info.encoder.dim} numbers).",
        "",
        f"- Origin: {imported.origin}",
        f"- Licence: {imported.licence}",
        f"- Recipes of its authors: {', '.join(info.recipes) or 'none'}",
    ]
    if reasons:
        lines.append(f"- Left out: {len(imported.left_out)} tensors ({'; '.join(reasons)})")
    return "\n".join([*lines, *(f"- Note: {note}" for note in imported.notes), ""])
