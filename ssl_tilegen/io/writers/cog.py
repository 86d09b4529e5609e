"""Cloud-optimised GeoTIFF: directories first, coarse levels before fine ones, the CRS in GeoTIFF keys."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import rasterio
import tifffile
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine

from ssl_tilegen.errors import OutputError
from ssl_tilegen.io.tiff.layout import Tag, ascii_tag, double_tag, short_tag
from ssl_tilegen.io.writers.format import ImageSpec
from ssl_tilegen.io.writers.tiled_tiff import TiledTiff, software

_GDAL_METADATA = 42112
_GEO_DOUBLES, _GEO_SHORTS, _GEO_ASCII = (33550, 33922, 34264, 34736), (34735,), (34737,)


class Cog(TiledTiff):
    """``.tif`` with a CRS. Lossless by default, as maps are measured: "deflate"; provenance as GDAL metadata."""

    compressions = ("deflate", "zstd", "jpeg")

    @classmethod
    def check(cls, path: Path, spec: ImageSpec) -> None:
        """Refuse an image that the format cannot hold: OutputError for a CRS that GDAL cannot write."""
        super().check(path, spec)
        try:
            georeference_tags(spec)
        except (RasterioError, CRSError) as error:
            raise OutputError(
                f"{path}: its CRS {spec.crs!r} cannot be written to a GeoTIFF ({error}); give an EPSG code or WKT"
            ) from error

    def first_page_tags(self) -> list[Tag]:
        """Georeference and metadata as GDAL reads them."""
        metadata = ascii_tag(_GDAL_METADATA, gdal_metadata(self.spec))
        return [*georeference_tags(self.spec), metadata, ascii_tag(305, software())]


def georeference_tags(spec: ImageSpec) -> list[Tag]:
    """The GeoTIFF tags of the spec's CRS and transform, as GDAL itself writes them into a file of one pixel."""
    with rasterio.MemoryFile() as memory:
        profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8", "crs": spec.crs}
        with memory.open(**profile, transform=Affine(*(spec.transform or ()))) as dataset:
            dataset.write(np.zeros((1, 1, 1), np.uint8))
        content = memory.read()
    with tifffile.TiffFile(BytesIO(content)) as tiff:
        found = {tag.code: tag.value for tag in tiff.pages.first.tags}
    tags = [double_tag(code, *np.atleast_1d(found[code])) for code in _GEO_DOUBLES if code in found]
    tags += [short_tag(code, *np.atleast_1d(found[code])) for code in _GEO_SHORTS if code in found]
    return tags + [ascii_tag(code, found[code]) for code in _GEO_ASCII if code in found]


def gdal_metadata(spec: ImageSpec) -> str:
    """The provenance in GDAL's own XML: ``gdalinfo`` and ``dataset.tags()`` show it."""
    items = {"SYNTHETIC": "true", "PROVENANCE": json.dumps(spec.record, sort_keys=True)}
    lines = [f"<Item name={quoteattr(key)}>{escape(value)}</Item>" for key, value in items.items()]
    return f"<GDALMetadata>{''.join(lines)}</GDALMetadata>"
