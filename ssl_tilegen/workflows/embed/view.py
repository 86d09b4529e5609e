"""An image as the encoder is to see it, and all that its grid records about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.errors import InputError, TilegenError
from ssl_tilegen.geometry import Lattice, Resolution
from ssl_tilegen.grids import EncoderFacts, GridSpec, SourceFacts
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.readers.base import Raster
from ssl_tilegen.io.uri import Source
from ssl_tilegen.io.view import RasterView, view_at
from ssl_tilegen.system.names import recordable
from ssl_tilegen.system.resources import versions


@contextmanager
def open_view(
    image: str | Source,
    encoder: Encoder,
    *,
    asked: Resolution | None = None,
    mpp: float | None = None,
    gsd: float | None = None,
    bands: tuple[int, ...] | None = None,
    scale: tuple[float, float] | None = None,
) -> Iterator[RasterView]:
    """The image as the encoder is to see it; closed at the end.

    An image of known resolution is read at the one ``asked`` for, else microscopy at the encoder's um/px and anything
    else at its own sampling. ``mpp`` and ``gsd`` overrule the resolution that an image states. For one that states
    none, ``asked`` is the size of its pixels; without that it is a ResolutionError. ``bands`` and ``scale``: see
    `open_raster`.
    """
    before = _identity(image)
    with open_raster(image, mpp=mpp, gsd=gsd, bands=bands, scale=scale, if_unknown=asked) as raster:
        try:
            yield view_at(raster, (not raster.assumed and asked) or _preferred(raster.resolution, encoder))
        except (TilegenError, MemoryError):
            raise
        except Exception as error:
            if _identity(image) == before:
                raise
            raise InputError(f"{image}: was changed while it was read; run the same command again") from error


def _identity(image: str | Source) -> tuple[int, ...]:
    """By which a file is known from another one of its name; () of what is none."""
    try:
        facts = Path(str(image)).stat()
    except (OSError, ValueError):
        return ()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _preferred(own: Resolution | None, encoder: Encoder) -> Resolution:
    """Where the user asks for nothing; an image of unknown resolution is refused by ``at``, whatever is asked of it."""
    own = own or Resolution(1.0, "um")
    return encoder.resolution if encoder.resolution and own.unit == encoder.resolution.unit else own


def spec_of(
    view: RasterView,
    encoder: Encoder,
    background: tuple[int, int, int],
    *,
    stride_px: int | None = None,
    bands: tuple[int, ...] | None = None,
) -> GridSpec:
    """Everything the grid records about its source and its encoder; cells lie a tile apart unless ``stride_px`` says
    otherwise."""
    return GridSpec(
        source=source_facts(view.raster, bands),
        lattice=Lattice.covering(view.size, encoder.tile_px, stride_px or encoder.tile_px),
        dim=encoder.dim,
        encoder=EncoderFacts(
            encoder.id,
            encoder.weights_sha256,
            tuple(encoder.normalisation.mean),
            tuple(encoder.normalisation.std),
            encoder.pooling,
            versions("ssl-tilegen", "torch", "timm", "numpy"),
        ),
        resolution=view.resolution,
        factor=view.factor,
        crs=view.raster.crs,
        transform=view.transform,
        background=background,
        bundle=getattr(encoder, "bundle", None),
    )


def source_facts(raster: Raster, bands: tuple[int, ...] | None = None) -> SourceFacts:
    """The facts of the source that a grid records."""
    return SourceFacts(
        recordable(raster.path.name),
        raster.kind,
        raster.size,
        raster.fingerprint,
        bands=bands,
        scale=raster.scaling,
        remarks=tuple(raster.remarks),
    )
