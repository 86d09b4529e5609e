"""Where an image is: a path on this machine, or an address that GDAL reads from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

_ADDRESS = re.compile(r"/vsi\w+/|[A-Za-z][A-Za-z0-9+.-]+://")


class Uri(str):
    """An address such as ``s3://bucket/a.tif``, ``https://host/a.tif``, ``/vsicurl/...`` or ``zip://a.zip!b.tif``."""

    @property
    def name(self) -> str:
        """The last part of the address."""
        return PurePosixPath(re.split(r"[?#]", self, maxsplit=1)[0].replace("!", "/")).name

    @property
    def suffix(self) -> str:
        """Suffix of the last part of the path, with its dot."""
        return PurePosixPath(self.name).suffix


Source = Path | Uri


def source_of(text: str | Path) -> Source:
    """A path, or the address that ``text`` is. (A Path would join the slashes of an address.)"""
    if isinstance(text, (Path, Uri)):
        return text
    return Uri(text) if _ADDRESS.match(text) else Path(text)
