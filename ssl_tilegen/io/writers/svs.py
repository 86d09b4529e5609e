"""Aperio's SVS: the TIFF in which OpenSlide finds the power of an objective, and which some programs ask for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np

from ssl_tilegen.errors import OutputError
from ssl_tilegen.io.tiff.layout import Page, Tag, ascii_tag, long_tag, write_tiff
from ssl_tilegen.io.writers.format import ImageSpec
from ssl_tilegen.io.writers.ome_tiff import nominal_magnification
from ssl_tilegen.io.writers.tiled_tiff import TiledTiff, software, tile_encoder

_SUBFILE_TYPE, _DESCRIPTION, _SOFTWARE = 254, 270, 305


class Svs(TiledTiff):
    """``.svs``: levels as chained pages, a thumbnail as the second page, magnification and mpp in the description."""

    compressions = ("jpeg",)

    @classmethod
    def check(cls, path: Path, spec: ImageSpec) -> None:
        """Refuse an image that the format cannot hold: OutputError for a resolution without a nominal magnification."""
        super().check(path, spec)
        if nominal_magnification(spec.resolution) is None:
            raise OutputError(f"{path}: an SVS states a microscope's um/px, this has {spec.resolution or 'none'}; "
                              "use .ome.tif or .tif")  # fmt: skip

    def finish(self, target: Path) -> None:
        """Put the finest level, the thumbnail and the other levels into one file, in Aperio's order."""
        self._store()
        levels = [
            Page(self._page_tags(level), np.array(self._tile_bytes[level], np.int64), self._files[level])
            for level in range(len(self.sizes))
        ]
        write_tiff(target, [levels[0], self._thumbnail(levels[-1]), *levels[1:]], sub_ifds=False)

    def first_page_tags(self) -> list[Tag]:
        """The name of the software; Aperio's description holds the rest."""
        return [ascii_tag(_SOFTWARE, software())]

    def _page_tags(self, level: int) -> list[Tag]:
        """Reduced levels are whole images here: Aperio's readers take others for labels."""
        tags = [tag for tag in super()._page_tags(level) if tag.code != _SUBFILE_TYPE]
        return [*tags, long_tag(_SUBFILE_TYPE, 0), ascii_tag(_DESCRIPTION, self._description(level))]

    def _description(self, level: int) -> str:
        """A description in Aperio's form, with our provenance as a property."""
        full, size, side = self.sizes[0], self.sizes[level], self.spec.tile_px
        shape = f"{full.cols}x{full.rows} [0,0 {full.cols}x{full.rows}] ({side}x{side})"
        shrunk = f" -> {size.cols}x{size.rows}" if level else ""
        head = f"Aperio Image Library ({software()})\r\n{shape}{shrunk} JPEG/RGB Q={self.spec.quality}"
        if level:
            return head
        assert self.spec.resolution is not None
        facts = {
            "AppMag": f"{nominal_magnification(self.spec.resolution):g}",
            "MPP": f"{self.spec.resolution.value:.6g}",
            "Synthetic": "true",
            "Provenance": json.dumps(self.spec.record, sort_keys=True).replace("|", "\\u007c"),
        }
        return head + "".join(f"|{key} = {value}" for key, value in facts.items())

    def _thumbnail(self, coarsest: Page) -> Page:
        """The coarsest level as one strip."""
        size, side = self.sizes[-1], self.spec.tile_px
        across = -(-size.cols // side)
        data, ends = coarsest.tiles.read_bytes(), np.cumsum(coarsest.tile_bytes)
        whole = np.zeros((-(-size.rows // side) * side, across * side, 3), np.uint8)
        for index, (end, count) in enumerate(zip(ends, coarsest.tile_bytes, strict=True)):
            row, col = index // across * side, index % across * side
            whole[row : row + side, col : col + side] = imagecodecs.jpeg8_decode(data[end - count : end])
        strip = tile_encoder("jpeg", self.spec.quality)(np.ascontiguousarray(whole[: size.rows, : size.cols]))
        file = self.part / f"level{len(self.sizes)}.tiles"
        file.write_bytes(strip)
        dropped = {322, 323, _SUBFILE_TYPE, _DESCRIPTION, 256, 257}  # tiles, and what is written anew
        kept = [tag for tag in self._page_tags(len(self.sizes) - 1) if tag.code not in dropped | {_SOFTWARE}]
        full = self.sizes[0]
        text = f"Aperio Image Library ({software()})\r\n{full.cols}x{full.rows} -> {size.cols}x{size.rows} - |"
        tags = [*kept, long_tag(256, size.cols), long_tag(257, size.rows), long_tag(278, size.rows),
                long_tag(_SUBFILE_TYPE, 0), ascii_tag(_DESCRIPTION, text)]  # fmt: skip
        return replace(coarsest, tags=tags, tile_bytes=np.array([len(strip)], np.int64), tiles=file, is_strip=True)
