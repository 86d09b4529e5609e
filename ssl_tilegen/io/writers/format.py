"""The specification of an output image, and the interface of an output format."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ssl_tilegen.errors import OutputError
from ssl_tilegen.geometry import Resolution, Size
from ssl_tilegen.io.pyramid_builder import pyramid_sizes
from ssl_tilegen.system import marks

Affine6 = tuple[float, float, float, float, float, float]

_STATE_FORMAT = 1


@dataclass(frozen=True)
class ImageSpec:
    """The specification of an output image.

    ``size``: level-0 pixels; ``resolution`` of one, None where unknown; ``crs`` ("EPSG:n" or WKT) and ``transform``
    (a, b, c, d, e, f, as ``Raster.transform``) both or neither; ``provenance``: JSON-able facts on how the image was
    made, the same for every run that may continue it (no dates); ``compression`` "jpeg", "deflate" or "zstd", None
    for the format's default; ``quality`` of JPEG; ``tile_px`` a multiple of 16;
    ``sharded``: whether a Zarr store packs its chunks into shards.
    """

    size: Size
    resolution: Resolution | None = None
    crs: str | None = None
    transform: Affine6 | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    compression: str | None = None
    quality: int = 90
    tile_px: int = 512
    sharded: bool = True

    def __post_init__(self) -> None:
        if (self.crs is None) != (self.transform is None):
            raise ValueError("give crs and transform, or neither")
        if self.tile_px <= 0 or self.tile_px % 16:
            raise ValueError(f"tile_px must be a positive multiple of 16, got {self.tile_px}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be from 1 to 100, got {self.quality}")

    @property
    def record(self) -> dict[str, Any]:
        """The provenance as every output carries it."""
        return {**self.provenance, "synthetic": True}

    def digest(self, kind: str) -> str:
        """The same for the same image in the same kind of file, and for no other."""
        facts = {**asdict(self), "provenance": self.record, "kind": kind, "state": _STATE_FORMAT}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Format(ABC):
    """One kind of output file: keeps blocks of rows under ``part`` and puts the file together at the end.

    ``compressions``: those it can hold, its default first; ``pyramidal``: whether it wants levels.
    """

    compressions: ClassVar[tuple[str, ...]]
    pyramidal: ClassVar[bool] = True

    def __init__(self, path: Path, part: Path, spec: ImageSpec) -> None:
        self.path, self.part, self.spec = path, part, spec
        self.compression = spec.compression or self.compressions[0]
        self.sizes = pyramid_sizes(spec.size) if self.pyramidal else (spec.size,)

    @classmethod
    def check(cls, path: Path, spec: ImageSpec) -> None:
        """Raise OutputError where this kind of file cannot hold the image."""
        if spec.compression is not None and spec.compression not in cls.compressions:
            raise OutputError(
                f"{path}: cannot be compressed as {spec.compression!r}; choose from {', '.join(cls.compressions)}"
            )

    @classmethod
    def mark(cls, path: Path) -> str | None:
        """None where the file at ``path`` is one that this program made, else the sign of that which it lacks.

        Only such files are replaced by ``--overwrite``. By default the metadata must name the program.
        """
        return marks.image(path)

    @abstractmethod
    def start(self) -> None:
        """Prepare an empty ``part``."""

    @abstractmethod
    def put(self, level: int, first_row: int, rows: np.ndarray) -> None:
        """Store uint8 (tile_px or fewer at the end, level width, 3), in order within a level."""

    @abstractmethod
    def finish(self, target: Path) -> None:
        """Put the file (or folder) together at ``target``."""

    def state(self) -> dict[str, np.ndarray]:
        """Make stored rows durable; return the state for ``resume``."""
        return {}

    def has_work(self) -> bool:
        """Whether the files of a saved state are still there; not after a run that ended when its image had its
        name."""
        return True

    def resume(self, state: Mapping[str, np.ndarray]) -> None:  # noqa: B027 (optional)
        """Continue from ``state``; rows that were stored after it are dropped."""

    def close(self) -> None:  # noqa: B027 (optional)
        """Release files and threads."""
