"""A small image of a large one, to look at now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from PIL import Image

from ssl_tilegen.errors import OutputError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.png_text import png_text
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.writers.registry import output_suffixes
from ssl_tilegen.system import atomic, marks
from ssl_tilegen.system.outputs import Output, check_output

LONGEST_PX = 1024


def preview_of(out: Path) -> Path:
    """NAME.preview.png beside NAME.ome.tif."""
    suffix = max((s for s in output_suffixes() if out.name.lower().endswith(s)), key=len, default="")
    return out.with_name(f"{out.name[: len(out.name) - len(suffix)]}.preview.png")


def preview_output(out: Path) -> Output:
    """The preview of an output, for the gate."""
    return Output(preview_of(out), marks.preview("generate", out.name), "--preview", "side")


def write_preview(out: Path) -> Path:
    """Write the preview of an output, at most 1024 px on its longer side; returns its path. OutputError where something
    foreign has its name."""
    target = preview_of(out)
    rgb = _small_zarr(out) if out.is_dir() else _small_raster(out)
    try:
        with atomic.writing(target, before=lambda: check_output(preview_output(out))) as part:
            Image.fromarray(rgb).save(part, "PNG", pnginfo=png_text(Title=marks.preview_title("generate", out.name)))
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror}); the image itself is whole") from error
    return target


def _small(size: Size) -> Size:
    return size.scaled(min(1.0, LONGEST_PX / max(size.rows, size.cols)))


def _small_raster(out: Path) -> np.ndarray:
    with open_raster(out) as raster:
        return raster.read(Window.of(raster.size), _small(raster.size)).rgb


def _small_zarr(out: Path) -> np.ndarray:
    """The coarsest level (3, H, W) that is large enough, averaged down by the image library."""
    group: Any = zarr.open_group(out, mode="r")
    levels = sorted(group.array_keys(), key=int)
    wanted = _small(Size(*group[levels[0]].shape[1:]))
    level = next(k for k in reversed(levels) if group[k].shape[1] >= wanted.rows or k == levels[0])
    image = Image.fromarray(np.ascontiguousarray(group[level][:].transpose(1, 2, 0)))
    return np.asarray(image.resize((wanted.cols, wanted.rows), Image.Resampling.BOX))
