"""Images to write to: rows in from top to bottom, a whole file out, or none.

    spec = ImageSpec(Size(100_000, 80_000), Resolution(0.5, "um"), provenance={"seed": 0})
    with open_writer("slide.ome.tif", spec) as writer:
        for band in bands_from(writer.rows_done):   # an interrupted run goes on where it stopped
            writer.write(band)                      # uint8 (rows, 80_000, 3)

What is written lies in ``<out>.part`` until all rows are there; then the file is put together, renamed to its name and
the folder removed. Memory: the band, at most 24 MiB of rows that wait to be whole rows of tiles (more of them lie in
unnamed files there, which the system pages out where it needs the room), and some tiles or shards that are being
compressed; a PNG or JPEG is in memory as a whole at its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.errors import OutputError
from ssl_tilegen.geometry import Size
from ssl_tilegen.io.pyramid_builder import Cascade
from ssl_tilegen.io.writers.format import Format, ImageSpec

__all__ = ["FORMATS", "ImageSpec", "PyramidWriter", "check_output", "open_writer", "output_suffixes", "part_of"]

_NOT_IN_SIDECAR = ("provenance", "compression", "quality", "sharded")

# Suffix -> the format of images without and with a CRS. A new format is one file and one line.
_OME_TIFF = ("ssl_tilegen.io.writers.ome_tiff", "OmeTiff")
_PLAIN_TIFF, _COG = ("ssl_tilegen.io.writers.tiled_tiff", "PlainTiff"), ("ssl_tilegen.io.writers.cog", "Cog")
_OME_ZARR = ("ssl_tilegen.io.writers.ome_zarr", "OmeZarr")
_PNG, _JPEG = ("ssl_tilegen.io.writers.flat_image", "Png"), ("ssl_tilegen.io.writers.flat_image", "Jpeg")
FORMATS = {
    ".ome.tif": (_OME_TIFF, _OME_TIFF),
    ".ome.tiff": (_OME_TIFF, _OME_TIFF),
    ".tif": (_PLAIN_TIFF, _COG),
    ".tiff": (_PLAIN_TIFF, _COG),
    ".zarr": (_OME_ZARR, _OME_ZARR),
    ".png": (_PNG, _PNG),
    ".jpg": (_JPEG, _JPEG),
    ".jpeg": (_JPEG, _JPEG),
}


def output_suffixes() -> tuple[str, ...]:
    """The suffixes an output may have."""
    return tuple(FORMATS)


def open_writer(path: str | Path, spec: ImageSpec, *, overwrite: bool = False, restart: bool = False) -> PyramidWriter:
    """A writer for ``path``, in the format its suffix names.

    Goes on with an interrupted run of the same ``spec`` unless ``restart``. Raises OutputError, before anything is
    written, where the output exists (unless ``overwrite``), its folder cannot be written to, its suffix is unknown,
    the format cannot hold the image, or the interrupted run was another one.
    """
    path = Path(path)
    kind = check_output(path, spec, overwrite=overwrite)
    part = part_of(path)
    with _output_errors(path):
        if restart and part.exists():
            shutil.rmtree(part)
        part.mkdir(parents=True, exist_ok=True)
        return PyramidWriter(path, part, spec, kind(path, part, spec))


def check_output(path: Path, spec: ImageSpec, *, overwrite: bool = False) -> type[Format]:
    """The format that ``path`` names; OutputError where ``spec`` cannot be written there. Writes nothing."""
    kind = _format_of(path, spec)
    kind.check(path, spec)
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; give --overwrite or another name")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise OutputError(f"{path}: cannot be written ({there} is no folder to write to); choose another place with -o")
    return kind


def part_of(path: Path) -> Path:
    """The folder of an unfinished output; whoever makes its pixels may keep a state of his own in it."""
    return path.with_name(path.name + ".part")


def _format_of(path: Path, spec: ImageSpec) -> type[Format]:
    suffix = max((s for s in FORMATS if path.name.lower().endswith(s)), key=len, default=None)
    if suffix is None:
        raise OutputError(f"{path}: unknown kind of output; end its name in one of {' '.join(FORMATS)}")
    module, name = FORMATS[suffix][spec.crs is not None]
    return getattr(import_module(module), name)


class PyramidWriter:
    """See ``open_writer``. A context manager: a clean exit makes the file, any other keeps ``.part`` for a resume."""

    def __init__(self, path: Path, part: Path, spec: ImageSpec, kind: Format) -> None:
        self.path, self.spec = path, spec
        self.rows_done = 0
        self._part, self._format = part, kind
        self._digest = spec.digest(type(kind).__name__)
        self._cascade = Cascade(kind.sizes, spec.tile_px, kind.put, part)
        self._saved_rows = 0
        self._consistent = True
        self._lock = _locked(part, path)
        try:
            self._resume_or_start()
        except BaseException:
            self._release()
            raise

    @property
    def level_sizes(self) -> tuple[Size, ...]:
        """Sizes of the levels that are written, finest first."""
        return self._format.sizes

    def write(self, band: np.ndarray) -> None:
        """Append the next rows: uint8 (rows, width, 3). Raises OutputError where they cannot be stored."""
        size = self.spec.size
        if band.dtype != np.uint8 or band.ndim != 3 or band.shape[1:] != (size.cols, 3):
            raise ValueError(f"a band must be uint8 (rows, {size.cols}, 3), got {band.dtype} {band.shape}")
        if self.rows_done + len(band) > size.rows:
            raise ValueError(f"{self.rows_done} + {len(band)} rows are more than the image's {size.rows}")
        self._consistent = False
        with _output_errors(self.path):
            self._cascade.add(band)
            self.rows_done += len(band)
            self._consistent = True
            if self.rows_done - self._saved_rows >= self.spec.tile_px:
                self._save()

    def __enter__(self) -> PyramidWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with _output_errors(self.path) if kind is None else contextlib.suppress(OSError):
                if self._consistent and self.rows_done > self._saved_rows:
                    self._save()
            if kind is None:
                self._finish()
        finally:
            self._release()

    def _resume_or_start(self) -> None:
        state = _load_state(self._part / "state.npz", self.path)
        if state is None:
            self._format.start()
            return
        if str(state["digest"]) != self._digest:
            raise OutputError(
                f"{self._part}: holds an unfinished run with other settings; give --restart to drop it, or another name"
            )
        self._format.resume(state)
        self._cascade.restore(state)
        self.rows_done = self._saved_rows = int(state["rows_done"])

    def _save(self) -> None:
        """Make all rows so far durable, in one atomic step. Where that fails, the state before it is the one to go on
        from: what could not be stored is not known any more."""
        self._consistent = False
        state = {**self._format.state(), **self._cascade.state()}
        state |= {"digest": np.array(self._digest), "rows_done": np.array(self.rows_done)}
        fresh = self._part / "state.new"
        with fresh.open("wb") as file:
            np.savez(file, **state)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._part / "state.npz")
        self._saved_rows, self._consistent = self.rows_done, True

    def _finish(self) -> None:
        if self.rows_done != self.spec.size.rows:
            raise OutputError(
                f"{self.path}: {self.rows_done} of {self.spec.size.rows} rows were written; run again to go on"
            )
        with _output_errors(self.path):
            target = self._part / "whole"
            _remove(target)
            self._format.finish(target)
            self._format.close()
            self._write_sidecar()
            if self.path.is_dir():
                self.path.rename(self._part / "old")
            target.replace(self.path)
        self._lock.close()
        shutil.rmtree(self._part, ignore_errors=True)

    def _write_sidecar(self) -> None:
        facts = {k: v for k, v in asdict(self.spec).items() if k not in _NOT_IN_SIDECAR}
        facts |= {"compression": self._format.compression, "levels": [[s.rows, s.cols] for s in self.level_sizes]}
        if self._format.compression == "jpeg":
            facts["quality"] = self.spec.quality
        fresh = self._part / "sidecar.json"
        text = json.dumps(
            {"file": self.path.name, "synthetic": True, **facts, "provenance": self.spec.record}, indent=2
        )
        fresh.write_text(text + "\n")
        fresh.replace(self.path.with_name(self.path.name + ".json"))

    def _release(self) -> None:
        self._format.close()
        self._lock.close()


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """The system's refusals as one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); mend that or choose another place with -o") from error


def _locked(part: Path, path: Path) -> Any:
    """An open file that bars a second process from ``part`` until it is closed, where the system can."""
    lock = (part / "lock").open("w")
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise OutputError(f"{path}: another process is writing it; wait for it or choose another name") from None
    except (ImportError, OSError):
        pass
    return lock


def _load_state(file: Path, path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(file) as state:
            return dict(state)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise OutputError(f"{file}: the unfinished run cannot be read; give --restart to begin {path} anew") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
