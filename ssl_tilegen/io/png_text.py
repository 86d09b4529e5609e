"""Text chunks of PNG files: the maker and the title of an image."""

from __future__ import annotations

from PIL.PngImagePlugin import PngInfo

from ssl_tilegen.system.marks import SOFTWARE


def png_text(**texts: str) -> PngInfo:
    """``Software``, and ``texts`` (Title, Description ...) as they are named."""
    info = PngInfo()
    info.add_text("Software", SOFTWARE)
    for key, text in texts.items():
        info.add_text(key, text)
    return info
