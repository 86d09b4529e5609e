"""Images to write to: rows in from top to bottom, a whole file out, or none.

    spec = ImageSpec(Size(100_000, 80_000), Resolution(0.5, "um"), provenance={"seed": 0})
    with open_writer("slide.ome.tif", spec) as writer:
        for band in bands_from(writer.rows_done):   # an interrupted run goes on where it stopped
            writer.write(band)                      # uint8 (rows, 80_000, 3)

What is written lies in ``<out>.part`` until all rows are there; then the file is put together, renamed to its name and
the folder removed.

Memory: the band, at most 24 MiB of rows that wait to be whole rows of tiles, and some tiles or shards that are being
compressed. More waiting rows lie in unnamed files there, which the system pages out where it needs the room. A PNG or
JPEG is in memory as a whole at its end.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ssl_tilegen.errors import OutputError
from ssl_tilegen.geometry import Size
from ssl_tilegen.io.pyramid_builder import Cascade
from ssl_tilegen.io.writers.format import Format, ImageSpec
from ssl_tilegen.io.writers.registry import check_format, mark_of
from ssl_tilegen.system import atomic, marks, work_folder
from ssl_tilegen.system.locks import Held, lock
from ssl_tilegen.system.outputs import Output, check_output, check_paths

__all__ = [
    "PART_NAMES",
    "ImageSpec",
    "PyramidWriter",
    "open_writer",
    "outputs_of",
    "sidecar_of",
    "unfinished_image",
]

PART_NAMES = (
    r"state\.npz|whole|arrays|rows\.raw|level\d+\.tiles|latents\.state\.\d+\.-?\d+|\d+-\d+\.rows\.npy|"
    r"lock|old|state\.new|sidecar\.json"
)
"""Names in the folder of an unfinished image (the last line: of earlier versions)."""

_NOT_IN_SIDECAR = ("provenance", "compression", "quality", "sharded")


def open_writer(
    path: str | Path, spec: ImageSpec, *, overwrite: bool = False, restart: bool = False, held: Held | None = None
) -> PyramidWriter:
    """A writer for ``path``, in the format its suffix names.

    Goes on with an interrupted run of the same ``spec`` unless ``restart``. Holds the lock of ``path`` until it is
    closed, unless the caller already does (``held``).

    Raises, before anything is written:
        OutputError: The output exists (without ``overwrite``, or not made by this program), or its folder cannot be
            written to. The suffix is unknown, the format cannot hold the image, or the interrupted run was another one.
        Busy: Another job writes the output.
    """
    path = Path(path)
    kind = check_format(path, spec)
    check_paths((), outputs_of(path), overwrite=overwrite)
    with ExitStack() as stack, _output_errors(path):
        held = held or stack.enter_context(lock(path))
        part = unfinished_image(path)
        atomic.sweep(path.parent, path.name)
        if restart:
            work_folder.remove_work(part, PART_NAMES)
        work_folder.open_work(part, PART_NAMES)
        atomic.sweep(part)
        return PyramidWriter(path, part, spec, kind(path, part, spec), held, stack.pop_all(), overwrite=overwrite)


def outputs_of(path: Path, option: str = "-o") -> list[Output]:
    """The image, the facts beside it, and its unfinished form, for the gate."""
    return [
        Output(path, mark_of(path), option),
        Output(sidecar_of(path), marks.sidecar, option, "side"),
        Output(unfinished_image(path), work_folder.work(PART_NAMES), option, "work"),
    ]


def sidecar_of(path: Path) -> Path:
    """``NAME.json`` beside an image: its facts."""
    return path.with_name(path.name + ".json")


def unfinished_image(path: Path) -> Path:
    """The folder of an unfinished output; whoever makes its pixels may keep a state of his own in it."""
    return path.with_name(path.name + ".part")


class PyramidWriter:
    """See ``open_writer``. A context manager: a clean exit makes the file, any other keeps ``.part`` for a resume."""

    def __init__(
        self, path: Path, part: Path, spec: ImageSpec, kind: Format, held: Held, lent: ExitStack, *, overwrite: bool
    ) -> None:
        self.path, self.spec = path, spec
        self.rows_done = 0
        self._part, self._format = part, kind
        self._digest = spec.digest(type(kind).__name__)
        self._cascade = Cascade(kind.sizes, spec.tile_px, kind.put, part)
        self._saved_rows = 0
        self._consistent = True
        self._held, self._lent, self._overwrite = held, lent, overwrite
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
        if not self._format.has_work():  # the last run was killed when its image had its name
            self._format.start()
            return
        self._format.resume(state)
        self._cascade.restore(state)
        self.rows_done = self._saved_rows = int(state["rows_done"])

    def _save(self) -> None:
        """Make all rows so far durable, in one atomic step. Where that fails, the state before it is the one to go on
        from: what could not be stored is not known any more."""
        self._consistent = False
        state = {**self._format.state(), **self._cascade.state()}
        state |= {"digest": np.array(self._digest), "rows_done": np.array(self.rows_done)}
        with atomic.writing(self._part / "state.npz") as fresh:
            np.savez(fresh, **state)  # type: ignore[arg-type]
        self._saved_rows, self._consistent = self.rows_done, True

    def _finish(self) -> None:
        if self.rows_done != self.spec.size.rows:
            raise OutputError(
                f"{self.path}: {self.rows_done} of {self.spec.size.rows} rows were written; run again to go on"
            )
        with _output_errors(self.path):
            target = self._part / "whole"
            atomic.remove(target)
            self._format.finish(target)
            self._format.close()
            self._publish(target)
        work_folder.remove_work(self._part, PART_NAMES)

    def _publish(self, target: Path) -> None:
        """Give the whole image its name, and the facts beside it theirs; both or none."""
        flush = atomic.flush_tree if target.is_dir() else atomic.flush
        flush(target)  # takes a while: before the look at what is there
        self._check()
        sidecar = sidecar_of(self.path)
        before = sidecar.read_bytes() if sidecar.exists() else None
        self._write_sidecar(sidecar)
        own = sidecar.read_bytes()
        try:
            if target.is_dir() or self.path.is_dir():
                atomic.publish_folder(target, self.path, replace=self._overwrite, mark=mark_of(self.path))
            else:
                atomic.publish_file(target, self.path, replace=self._overwrite, before=self._check)
        except BaseException:
            did_not_come = target.exists() and sidecar.exists() and sidecar.read_bytes() == own
            if did_not_come:
                _put_back(sidecar, before)
            raise

    def _check(self) -> None:
        """OutputError where the outputs may not be written any more."""
        self._held.check()
        for output in outputs_of(self.path):
            check_output(output, overwrite=self._overwrite)

    def _write_sidecar(self, path: Path) -> None:
        facts = {k: v for k, v in asdict(self.spec).items() if k not in _NOT_IN_SIDECAR}
        facts |= {"compression": self._format.compression, "levels": [[s.rows, s.cols] for s in self.level_sizes]}
        if self._format.compression == "jpeg":
            facts["quality"] = self.spec.quality
        tree = {"file": self.path.name, "synthetic": True, **facts, "provenance": self.spec.record}
        with atomic.writing(path, before=self._check) as part:
            part.write_text(json.dumps(marks.signed_json(tree), indent=2) + "\n", encoding="utf-8")

    def _release(self) -> None:
        self._format.close()
        self._lent.close()


def _put_back(file: Path, content: bytes | None) -> None:
    """Give a file the content that it had, or no file where there was none."""
    if content is None:
        return file.unlink(missing_ok=True)
    with atomic.writing(file) as part:
        part.write_bytes(content)


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """The system's refusals as one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); mend that or choose another place with -o") from error
    except (KeyError, ValueError) as error:
        part = unfinished_image(path)
        if not part.is_symlink() and work_folder.work(PART_NAMES)(part) is None:
            raise
        raise OutputError(f"{part}: was moved away or replaced while it was written; run it again") from error


def _load_state(file: Path, path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(file) as state:
            return dict(state)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise OutputError(f"{file}: the unfinished run cannot be read; give --restart to begin {path} anew") from error
