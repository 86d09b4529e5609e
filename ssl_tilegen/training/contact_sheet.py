"""Rows of small images as one PNG, to see how a run goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_tilegen.system.atomic import writing


def save_contact_sheet(path: Path, rows: Sequence[np.ndarray]) -> None:
    """Write rows of images (N, H, W, 3) uint8, one under the other, whole or not at all."""
    sheet = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
    with writing(path) as fresh:
        Image.fromarray(sheet).save(fresh)
