"""Options of `embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from ssl_tilegen.config.options import ADVANCED, Reading, Settings, exclusive, option
from ssl_tilegen.config.shared_options import gsd_option, model_option, mpp_option, shard_option, threads_option
from ssl_tilegen.config.values import Bands, Pair, Shard

OUTPUT, MANY, ENCODER, PIXELS, FOREGROUND = "Output", "Many images", "Encoder", "Pixels", "Foreground"


class EmbedSettings(Reading, Settings):
    """Options of `embed`."""

    out: Path | None = option(
        None,
        "Grid to write, for one input. Beside the input by default.",
        "--out",
        "-o",
        default_text="NAME.zarr",
        metavar="GRID",
        panel=OUTPUT,
    )
    out_dir: Path | None = option(
        None,
        "Folder for the grids of many inputs. Their summary is written there too.",
        "--out-dir",
        metavar="DIR",
        panel=OUTPUT,
    )
    preview: bool = option(False, "Write NAME.embed-preview.png: image and grid.", "--preview", panel=OUTPUT)
    geojson: bool = option(False, "Write the outlines of tissue as NAME.geojson.", "--geojson", panel=OUTPUT)
    list: Path | None = option(
        None,
        "CSV of images, with a column path. Paths start from the CSV's folder. Optional columns: id (the "
        "grid's name), mpp, gsd.",
        "--list",
        metavar="CSV",
        panel=MANY,
    )
    shard: Shard | None = shard_option(
        "Part of the work for this process. I from 0. By default the task of a Slurm array, or "
        "RANK/WORLD_SIZE, else all. Whole images, or shards of a grid where there are fewer images than "
        "processes.",
        MANY,
    )
    skip_existing: bool = option(
        False,
        "Skip inputs whose grid is complete. A grid that has lost parts is made again.",
        "--skip-existing",
        panel=MANY,
    )
    summary: Path | None = option(
        None,
        "Table of results, .csv or .json. One row per input; rows of other grids in it stay.",
        "--summary",
        default_text="in --out-dir",
        metavar="FILE",
        panel=MANY,
    )
    model: str = model_option("Bundle whose encoder is used.", ENCODER)
    encoder: str | None = option(
        None,
        "Encoder to use instead. A name of `models list`, hf-hub:ORG/NAME, local-dir:PATH or any timm name.",
        "--encoder",
        default_text="the bundle's",
        metavar="NAME",
        panel=ENCODER,
    )
    weights: Path | None = option(
        None,
        "File or folder with the weights of the encoder. Of --encoder, or of the encoder that the bundle names.",
        "--weights",
        panel=ENCODER,
    )
    pooling: (
        Literal["cls", "mean", "cls+mean", "pool", "patches2x2", "patches4x4", "cls+patches2x2", "cls+patches4x4"]
        | None
    ) = option(
        None,
        "How tokens become one vector. cls, mean, cls+mean or pool; patches2x2 and patches4x4 keep 4 and 16 tokens of "
        "a cell side by side, and go with cls too (cls+patches2x2).",
        "--pooling",
        default_text="the encoder's",
        metavar="HOW",
        panel=ENCODER,
    )
    mpp: float | None = mpp_option(
        "to read at. For an image that states none: the size of its pixels.", PIXELS, default_text="the encoder's"
    )
    gsd: float | None = gsd_option(
        "to read at. For an image that states none: the size of its pixels.", PIXELS, default_text="the raster's own"
    )
    stride: int | None = option(
        None,
        "Pixels from one tile to the next. Half a tile gives four times the cells.",
        "--stride",
        default_text="one tile",
        metavar="PX",
        panel=PIXELS,
        gt=0,
        le=1 << 16,
    )
    bands: Bands | None = option(
        None,
        "Bands of red, green and blue, counted from 1.",
        "--bands",
        default_text="1,2,3",
        metavar="R,G,B",
        panel=PIXELS,
    )
    scale: Pair | None = option(
        None,
        "Values that become 0 and 255. For 16-bit and float rasters.",
        "--scale",
        default_text="from the data",
        metavar="LOW,HIGH",
        panel=PIXELS,
    )
    nodata_max: float = option(
        0.1, "Largest part without data in a usable cell, 0 to 1.", "--nodata-max", panel=ADVANCED, ge=0, le=1
    )
    threads: int | None = threads_option("Threads that read and decode ahead of the encoder.", ADVANCED)
    tissue_only: bool = option(
        False, "Leave background cells without a vector. Of slides only.", "--tissue-only", panel=FOREGROUND
    )
    tissue_min: float = option(
        0.05,
        "Least part of foreground in a cell, 0 to 1. Cells of slides below it count as background.",
        "--tissue-min",
        panel=FOREGROUND,
        ge=0,
        le=1,
    )
    regions: Path | None = option(
        None,
        "GeoJSON of the foreground. Instead of detected tissue; or a folder with one NAME.geojson per image.",
        "--regions",
        panel=FOREGROUND,
    )

    @model_validator(mode="after")
    def _fits(self) -> EmbedSettings:
        exclusive(self, "mpp", "gsd")
        exclusive(self, "out", "out_dir")
        if self.encoder is None and self.pooling:
            raise ValueError("pooling goes with an encoder; give --encoder too")
        return self
