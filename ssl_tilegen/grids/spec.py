"""The cells of a grid in memory, and its specification as JSON attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssl_tilegen import __version__
from ssl_tilegen.geometry import Lattice, Resolution, Size

FORMAT = 1
KIND = "ssl-tilegen/embedding-grid"
PRIOR_SAMPLED = "drawn"  # the word that grids store
"""The kind of source of a grid that a prior sampled; its size is that of the image that was asked for."""


class Validity(IntEnum):
    """Why a cell may or may not be used; the codes of the ``valid`` array."""

    OK = 0
    BACKGROUND = 1
    OUTSIDE = 2
    READ_ERROR = 3
    NODATA = 4


@dataclass(frozen=True)
class SourceFacts:
    """The image a grid was made from: its file name, kind ('slide', 'georaster', 'picture', 'drawn'), level-0 size and
    content fingerprint; ``scale`` are the (low, high) values per band that became 0 and 255."""

    name: str
    kind: str
    size_px: Size
    fingerprint: str
    bands: tuple[int, ...] | None = None
    scale: tuple[tuple[float, float], ...] | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderFacts:
    """The encoder a grid was made with: two grids are comparable when id, weights, statistics and pooling agree."""

    id: str
    weights_sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pooling: str
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class GridSpec:
    """All that is known about a grid before its first cell is computed.

    ``lattice`` lies on the source seen at ``resolution`` (None where the source has none); ``factor`` is level-0
    pixels per pixel of that view; ``transform`` (a, b, c, d, e, f) maps (col, row) of the view to ``crs``.
    """

    source: SourceFacts
    lattice: Lattice
    dim: int
    encoder: EncoderFacts
    resolution: Resolution | None = None
    factor: float = 1.0
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    bundle: Mapping[str, str] | None = None

    @property
    def shape(self) -> Size:
        """Rows and columns of cells."""
        return self.lattice.shape

    @property
    def cell_transform(self) -> tuple[float, ...] | None:
        """Affine transform of the cells: each is ``stride`` wide and sits at its tile's centre."""
        if self.transform is None:
            return None
        a, b, c, d, e, f = self.transform
        step, lead = self.lattice.stride, (self.lattice.tile - self.lattice.stride) / 2
        return (a * step, b * step, c + lead * (a + b), d * step, e * step, f + lead * (d + e))

    def attributes(self) -> dict[str, Any]:
        """This specification as the JSON attributes of the Zarr group."""
        source = asdict(self.source) | {"size_px": [self.source.size_px.rows, self.source.size_px.cols]}
        attributes: dict[str, Any] = {
            "format": FORMAT,
            "kind": KIND,
            "software": f"ssl-tilegen {__version__}",
            "source": source,
            "size_px": [self.lattice.size.rows, self.lattice.size.cols],
            "tile_px": self.lattice.tile,
            "stride_px": self.lattice.stride,
            "factor": self.factor,
            "level0_px_per_cell": self.factor * self.lattice.stride,
            "resolution": asdict(self.resolution) if self.resolution else None,
            "background": list(self.background),
            "encoder": asdict(self.encoder) | {"versions": dict(self.encoder.versions)},
            "bundle": dict(self.bundle) if self.bundle else None,
        }
        if self.lattice.partial:
            attributes["partial_cells"] = True
        if self.resolution and self.resolution.unit == "um":
            attributes["mpp"] = self.resolution.value
        return attributes | georeference(self.crs, self.transform)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], dim: int) -> GridSpec:
        """The specification stored by `attributes`; ValueError, in one line, where it is broken."""
        try:
            known = _Attributes.model_validate(dict(attributes))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        return cls(
            source=SourceFacts(**dict(known.source) | {"size_px": Size(*known.source.size_px)}),
            lattice=Lattice(Size(*known.size_px), known.tile_px, known.stride_px, known.partial_cells),
            dim=dim,
            encoder=EncoderFacts(**dict(known.encoder)),
            resolution=Resolution(known.resolution.value, known.resolution.unit) if known.resolution else None,
            factor=known.factor,
            crs=known.code or known.wkt,
            transform=known.transform,
            background=known.background,
            bundle=known.bundle,
        )


_Text = Annotated[str, Field(max_length=10_000)]
_Pixels = Annotated[int, Field(gt=0, lt=1 << 31, strict=True)]
_Side = Annotated[int, Field(gt=0, le=1 << 16, strict=True)]
_Positive = Annotated[float, Field(gt=0)]
_Byte = Annotated[int, Field(ge=0, le=255)]


class _Known(BaseModel):
    """Part of a grid's attributes as they are read: complete, of the right types, finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class _SourceAttributes(_Known):
    name: _Text
    kind: Literal["slide", "georaster", "picture", "drawn"]
    size_px: tuple[_Pixels, _Pixels]
    fingerprint: _Text
    bands: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    scale: tuple[tuple[float, float], ...] | None = None
    remarks: tuple[_Text, ...] = ()


class _EncoderAttributes(_Known):
    id: _Text
    weights_sha256: _Text
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pooling: _Text
    versions: dict[str, _Text] = {}


class _Measure(_Known):
    value: _Positive
    unit: Literal["um", "m"]


class _Attributes(_Known):
    """See `GridSpec.attributes`; other attributes are of another version or program, and left alone."""

    source: _SourceAttributes
    size_px: tuple[_Pixels, _Pixels]
    tile_px: _Side
    stride_px: _Side
    partial_cells: bool = False
    """Whether the last tiles reach beyond the image and are mirrored there."""
    factor: _Positive
    resolution: _Measure | None
    background: tuple[_Byte, _Byte, _Byte]
    encoder: _EncoderAttributes
    bundle: dict[str, _Text] | None
    code: _Text | None = Field(default=None, alias="proj:code")
    wkt: _Text | None = Field(default=None, alias="proj:wkt2")
    transform: tuple[float, float, float, float, float, float] | None = Field(default=None, alias="spatial:transform")


@dataclass(frozen=True)
class GridData:
    """Cells in memory: ``embedding`` (R, K, D) float16, ``valid`` (R, K) uint8, ``tissue`` (R, K) float16."""

    embedding: np.ndarray
    valid: np.ndarray
    tissue: np.ndarray

    @classmethod
    def empty(cls, cells: Size, dim: int) -> GridData:
        """Cells of which nothing is known yet: zeros, marked as outside."""
        shape = (cells.rows, cells.cols)
        valid = np.full(shape, Validity.OUTSIDE, np.uint8)
        return cls(np.zeros((*shape, dim), np.float16), valid, np.zeros(shape, np.float16))

    @property
    def usable(self) -> np.ndarray:
        """(R, K) bool: cells that hold an embedding of real pixels, tissue or background."""
        return (self.valid == Validity.OK) | ((self.valid == Validity.BACKGROUND) & self.embedding.any(axis=-1))


def georeference(crs: str | None, transform: tuple[float, ...] | None) -> dict[str, Any]:
    """CRS and affine transform by the names of the GeoZarr conventions; empty without either."""
    key = "proj:wkt2" if crs and not _is_code(crs) else "proj:code"
    named = {key: crs} if crs else {}
    return named | ({"spatial:transform": list(transform)} if transform else {})


def _is_code(crs: str) -> bool:
    return len(crs) < 32 and ":" in crs
