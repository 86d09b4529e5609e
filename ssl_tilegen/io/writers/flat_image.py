"""PNG and JPEG outputs: one level, held in memory when they are put together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from ssl_tilegen.errors import OutputError
from ssl_tilegen.io.writers.format import Format, ImageSpec
from ssl_tilegen.io.writers.tiled_tiff import software
from ssl_tilegen.system import atomic

LARGEST_PX = 100_000_000
_JPEG_SIDE_PX = 65_500  # libjpeg's own limit
_JPEG_COMMENT_BYTES = 65_533


class _FlatImage(Format):
    """Rows are kept as they are in one file, in place; the image is encoded once, at the end."""

    pyramidal = False
    largest_side_px = LARGEST_PX

    @classmethod
    def check(cls, path: Path, spec: ImageSpec) -> None:
        super().check(path, spec)
        if spec.size.area > LARGEST_PX or max(spec.size.rows, spec.size.cols) > cls.largest_side_px:
            raise OutputError(
                f"{path}: {spec.size} px is too large for this format (limit {LARGEST_PX // 1_000_000} megapixels); "
                "write .ome.tif, .tif or .zarr"
            )

    def start(self) -> None:
        with self._rows_file.open("wb") as file:
            file.truncate(self.spec.size.area * 3)

    @property
    def _rows_file(self) -> Path:
        return self.part / "rows.raw"

    def put(self, level: int, first_row: int, rows: np.ndarray) -> None:
        with self._rows_file.open("r+b") as file:
            file.seek(first_row * self.spec.size.cols * 3)
            file.write(rows.tobytes())

    def state(self) -> dict[str, np.ndarray]:
        atomic.flush(self._rows_file)
        return {}

    def _image(self) -> Image.Image:
        rows = np.fromfile(self._rows_file, np.uint8)
        return Image.fromarray(rows.reshape(self.spec.size.rows, self.spec.size.cols, 3))


class Png(_FlatImage):
    """``.png``: provenance as the text chunk ``Description``."""

    compressions = ("deflate",)

    def finish(self, target: Path) -> None:
        """Encode the rows as PNG, with the provenance as text chunks."""
        text = PngImagePlugin.PngInfo()
        text.add_text("Software", software())
        text.add_text("Description", json.dumps(self.spec.record, sort_keys=True))
        self._image().save(target, format="PNG", pnginfo=text)


class Jpeg(_FlatImage):
    """``.jpg`` without chroma subsampling: provenance as the comment (whole in the ``.json`` beside)."""

    compressions = ("jpeg",)
    largest_side_px = _JPEG_SIDE_PX

    def finish(self, target: Path) -> None:
        """Encode the rows as JPEG, with the provenance as its comment."""
        comment = json.dumps(self.spec.record, sort_keys=True).encode()
        if len(comment) > _JPEG_COMMENT_BYTES:
            comment = b'{"synthetic": true}'
        self._image().save(target, format="JPEG", quality=self.spec.quality, subsampling=0, comment=comment)
