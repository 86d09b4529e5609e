"""Plain images (PNG, JPEG, WebP, BMP), by Pillow; decoded whole at the first read."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.readers.base import Options, Raster
from ssl_tilegen.io.uri import Source

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")  # the deeper modes go to GDAL
LARGEST_PX = 2 * 89_478_485  # Pillow's own limit: larger ones would be decoded whole into memory

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PillowImage(Raster):
    """An image without a place on Earth or on a slide.

    ``resolution`` is that of ``--mpp`` or ``--gsd``, else None: print resolutions are not trusted. Pixels with less
    than half opacity are not valid. The EXIF orientation is ignored: pixels are taken as stored. Bands and scale do
    not apply.
    """

    kind = "picture"

    def __init__(self, path: Path, options: Options) -> None:
        super().__init__(path)
        with Image.open(path) as image:
            self.size = Size(image.height, image.width)
        self.levels = (self.size,)
        self.resolution = options.resolution()
        self._decoded: tuple[np.ndarray, np.ndarray] | None = None
        self._lock = threading.Lock()

    @classmethod
    def can_read(cls, path: Source) -> bool:
        """Whether Pillow knows the file as an 8-bit image."""
        try:
            with Image.open(path, formats=_FORMATS) as image:
                return image.mode in _EIGHT_BIT
        except (UnidentifiedImageError, OSError, SyntaxError):
            return False
        except Image.DecompressionBombError as error:
            raise InputError(
                f"{path}: has more than {LARGEST_PX} pixels, too many for its format; convert it to a tiled TIFF"
            ) from error

    def close(self) -> None:
        """Release the decoded pixels."""
        self._decoded = None

    def _read_level(self, level: int, window: Window) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if self._decoded is None:
                self._decoded = self._decode()
            rgb, valid = self._decoded
        return rgb[window.slices], valid[window.slices]

    def _decode(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            with Image.open(self.path, formats=_FORMATS) as image:
                if not image.has_transparency_data:
                    rgb = np.asarray(image.convert("RGB"))
                    return rgb, np.ones(rgb.shape[:2], bool)
                rgba = np.asarray(image.convert("RGBA"))
                return np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] >= 128
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{self.path}: cannot be decoded ({error}); copy or download it again") from error
