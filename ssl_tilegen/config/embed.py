"""Options of `embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from ssl_tilegen.config.options import Reading, Settings, exclusive, option
from ssl_tilegen.config.values import Bands, Pair, Shard

OUTPUT, MANY, ENCODER, PIXELS, FOREGROUND = "Output", "Many images", "Encoder", "Pixels", "Foreground"


class EmbedSettings(Reading, Settings):
    """Options of `embed`."""

    out: Path | None = option(
        None,
        "The grid to write (one input).",
        "--out",
        "-o",
        default_text="NAME.zarr beside the input",
        panel=OUTPUT,
    )
    out_dir: Path | None = option(
        None, "Folder for the grids of many inputs, and their summary.", "--out-dir", panel=OUTPUT
    )
    preview: bool = option(
        False, "Write a picture of the image beside its embedding as NAME.embed-preview.png.", "--preview", panel=OUTPUT
    )
    geojson: bool = option(
        False, "Write the outlines of the tissue as NAME.geojson beside the grid.", "--geojson", panel=OUTPUT
    )
    list: Path | None = option(
        None,
        "CSV of images with the columns path (from the CSV's folder on), and if wanted id (the grid's name), mpp, gsd.",
        "--list",
        panel=MANY,
    )
    shard: Shard | None = option(
        None,
        "This process's shard of the work as I/N, I from 0.",
        "--shard",
        default_text="a Slurm array's, for many images; or RANK/WORLD_SIZE; else all",
        panel=MANY,
    )
    skip_existing: bool = option(
        False,
        "Pass over inputs whose grid is complete; one that has lost parts is made again.",
        "--skip-existing",
        panel=MANY,
    )
    summary: Path | None = option(
        None,
        "Table of what became of each input, .csv or .json.",
        "--summary",
        default_text="embed-summary.csv in --out-dir",
        panel=MANY,
    )
    model: str = option("tiny", "Bundle whose encoder is used.", "--model", panel=ENCODER)
    encoder: str | None = option(
        None,
        "Another encoder: a name of `models list`, hf-hub:ORG/NAME, local-dir:PATH or any timm name.",
        "--encoder",
        default_text="the bundle's",
        panel=ENCODER,
    )
    weights: Path | None = option(
        None, "Weights of --encoder from a local file or folder (no network).", "--weights", panel=ENCODER
    )
    pooling: Literal["cls", "mean", "cls+mean", "pool"] | None = option(
        None,
        "How tokens become one vector.",
        "--pooling",
        default_text="the encoder's own",
        panel=ENCODER,
    )
    mpp: float | None = option(
        None,
        "Micrometres per pixel to read at; for an image that carries none: what its pixels measure.",
        "--mpp",
        default_text="the encoder's",
        panel=PIXELS,
        gt=0,
    )
    gsd: float | None = option(
        None,
        "Metres per pixel to read at; for an image that carries none: what its pixels measure.",
        "--gsd",
        default_text="the raster's own",
        panel=PIXELS,
        gt=0,
    )
    stride: int | None = option(
        None,
        "Pixels from one tile to the next; half a tile gives four times the cells.",
        "--stride",
        default_text="one tile",
        panel=PIXELS,
        gt=0,
    )
    bands: Bands | None = option(
        None,
        "Bands shown as red, green, blue (from 1).",
        "--bands",
        default_text="the first three",
        panel=PIXELS,
    )
    scale: Pair | None = option(
        None,
        "Values that become 0 and 255 (16-bit and float rasters), as LOW,HIGH.",
        "--scale",
        default_text="from the data",
        panel=PIXELS,
    )
    nodata_max: float = option(
        0.1,
        "Largest fraction of pixels without data in a usable cell.",
        "--nodata-max",
        panel=PIXELS,
        ge=0,
        le=1,
    )
    threads: int | None = option(
        None,
        "Threads that read and decode ahead of the encoder.",
        "--threads",
        default_text="one per core, at most 16",
        panel=PIXELS,
        gt=0,
    )
    tissue_only: bool = option(
        False, "Leave background cells of slides without an embedding.", "--tissue-only", panel=FOREGROUND
    )
    tissue_min: float = option(
        0.05,
        "Least fraction of foreground for a slide's cell not to be background.",
        "--tissue-min",
        panel=FOREGROUND,
        ge=0,
        le=1,
    )
    regions: Path | None = option(
        None,
        "GeoJSON of what counts as foreground instead of detected tissue, or a folder with one NAME.geojson per image.",
        "--regions",
        panel=FOREGROUND,
    )

    @model_validator(mode="after")
    def _fits(self) -> EmbedSettings:
        exclusive(self, "mpp", "gsd")
        exclusive(self, "out", "out_dir")
        if self.encoder is None and (self.weights or self.pooling):
            raise ValueError("weights and pooling go with an encoder; give --encoder too")
        return self
