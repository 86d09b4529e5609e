"""Vectors that are kept while `evaluate` runs, so that the same command goes on after it was stopped.

Beside the report: ``NAME.html.part/KEY/N.npz``, one file per batch of windows, written under a temporary name. KEY says
which windows of which files were seen by which encoders; a changed file has another key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ssl_tilegen.errors import OutputError
from ssl_tilegen.system import atomic, work_folder

PART_NAMES = r"[0-9a-f]{32}"


class CachedArrays:
    """The vectors of one list of windows: ``last``, the index of the last window that is there (-1: none)."""

    def __init__(self, folder: Path | None, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names
        self._index: list[np.ndarray] = []
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        while folder and self._load(folder / f"{len(self._index)}.npz"):
            pass

    @property
    def last(self) -> int:
        """Index of the last item stored; -1 for none."""
        return int(self._index[-1][-1]) if self._index else -1

    def add(self, index: np.ndarray, vectors: Mapping[str, np.ndarray]) -> None:
        """Add the windows ``index`` (N,), which follow those that are there; vectors (N, D) by encoder."""
        if self._folder:
            path = self._folder / f"{len(self._index)}.npz"
            try:
                work_folder.open_work(self._folder.parent, PART_NAMES)
                arrays: dict[str, Any] = {f"v{i}": vectors[name] for i, name in enumerate(self._names)}
                with atomic.writing(path) as part:
                    np.savez(part, index=index, **arrays)
            except OSError as error:
                raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another --report") from error
        self._append(index, vectors)

    def read(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """All indices (N,) and the vectors (N, D) by encoder."""
        if not self._index:
            return np.zeros(0, int), {}
        return np.concatenate(self._index), {name: np.concatenate(x) for name, x in self._parts.items()}

    def _load(self, path: Path) -> bool:
        """Whether a batch is there and whole; one that is damaged is made again."""
        try:
            with np.load(path) as arrays:
                self._append(arrays["index"], {name: arrays[f"v{i}"] for i, name in enumerate(self._names)})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return False
        return True

    def _append(self, index: np.ndarray, vectors: Mapping[str, np.ndarray]) -> None:
        self._index.append(index)
        for name, own in vectors.items():
            self._parts[name].append(own)


class FeatureCache:
    """All feature caches of a run, in ``folder``; without one they are kept in memory alone."""

    def __init__(self, folder: Path | None = None, *, restart: bool = False) -> None:
        self.folder = folder
        self._used: list[Path] = []
        if restart:
            self.clear()

    def cached(self, key: str, names: Sequence[str]) -> CachedArrays:
        """The arrays of ``key``, with the vectors of an earlier run."""
        if self.folder is None:
            return CachedArrays(None, names)
        self._used.append(self.folder / key[:32])
        return CachedArrays(self._used[-1], names)

    @property
    def holds_some(self) -> bool:
        """Whether files hold any vectors of this run."""
        return any((folder / "0.npz").exists() for folder in self._used)

    def clear(self) -> None:
        """Nothing is needed any more."""
        if self.folder:
            work_folder.remove_work(self.folder, PART_NAMES)
