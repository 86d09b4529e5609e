"""Options of `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from ssl_tilegen.config.options import Settings, exclusive, option
from ssl_tilegen.config.values import Pair, Region, SizePx

DRAWN = "Instead of a grid"


class GenerateSettings(Settings):
    """Options of `generate`."""

    grid: Path | None = option(None, "Grid of embeddings to paint, made by `embed`.", "--grid")
    text: str | None = option(None, "Words for what a sampled grid is to show.", "--text", panel=DRAWN)
    label: str | None = option(None, "Label of what it is to show; `models info` lists them.", "--label", panel=DRAWN)
    vector: str | None = option(
        None, "Vector that the prior was trained with: FILE.npy or FILE.npz:KEY.", "--vector", panel=DRAWN
    )
    scene: Path | None = option(
        None,
        "Map of labels or texts: PNG with NAME.csv beside it (colour, label, text), or GeoJSON in pixels of the "
        "picture with properties label or text.",
        "--scene",
        panel=DRAWN,
    )
    save_grid: Path | None = option(
        None, "Save the sampled grid, to be edited or painted again.", "--save-grid", panel=DRAWN
    )
    grid_guidance: float | None = option(
        None,
        "How strictly the grid follows what was asked for; 1 is plain sampling, more is stricter and less varied.",
        "--grid-guidance",
        default_text="the prior's",
        panel=DRAWN,
        ge=0,
    )
    out: Path | None = option(
        None,
        "Picture to write; its suffix says the format: .ome.tif, .tif, .png, .jpg, .zarr.",
        "--out",
        "-o",
        default_text="NAME-synthetic beside the grid (of a sampled one: here), .ome.tif or a georeferenced .tif",
    )
    model: str = option("tiny", "Bundle to paint with.", "--model")
    size: SizePx | None = option(
        None,
        "Pixels of the output, 4096 or 4096x2048 (width x height), at the grid's resolution.",
        "--size",
        default_text="the grid's; 1024 where it is sampled",
    )
    region: Region | None = option(
        None,
        "Part of the canvas to paint, X,Y,W,H in pixels; neighbours made in two runs meet without a seam.",
        "--region",
        default_text="all, or the crop with most foreground",
    )
    keep: str | None = option(
        None,
        "The image that the grid was made from: it is kept to the pixel, all but the --region, which is repainted.",
        "--keep",
    )
    fit: Literal["auto", "crop", "stretch"] = option(
        "auto",
        "How the grid meets --size: crop it, or stretch its layout over it; auto crops where the grid is large enough.",
        "--fit",
    )
    layout: Literal["auto", "exact", "loose", "free"] = option(
        "auto",
        "Where things lie within a cell: exact, as in the source, loose, roughly so, or free, wherever the model puts "
        "them; auto is exact, for grids that a prior sampled loose, and free where stretched beyond 1.25.",
        "--layout",
    )
    seed: int = option(0, "Same seed, same picture.", "--seed", ge=0)
    steps: int | None = option(None, "Sampling steps.", "--steps", default_text="the bundle's", gt=0)
    guidance: float | None = option(
        None, "W in uncond + W (cond - uncond); 1 is none.", "--guidance", default_text="the bundle's", ge=0
    )
    guidance_interval: Pair | None = option(
        None,
        "Part of the noise schedule that is guided, LOW,HIGH from clean (0) to noise (1).",
        "--guidance-interval",
        default_text="the bundle's",
    )
    update: Literal["ddim", "dpmpp_2m", "ancestral", "renoise"] | None = option(
        None, "Update rule of a step.", "--update", default_text="the bundle's"
    )
    merge: Literal["auto", "whole", "shift", "average"] = option(
        "auto", "How windows become one canvas: one convolution, shifted windows, or an average.", "--merge"
    )
    recipe: str | None = option(
        None,
        "How the authors of an imported model sample it, to the letter; `models info` lists a bundle's recipes.",
        "--recipe",
        default_text="our own fast sampling",
    )
    overlap: float = option(0.5, "Share of a window that the next repeats in an average.", "--overlap", ge=0, lt=1)
    canvas_mib: int = option(
        512, "Latents of more MiB than this lie in a file beside the output, not in memory.", "--canvas-mib", gt=0
    )
    unsharded: bool = option(
        False,
        "For .zarr: a file per chunk instead of shards, for readers without the sharding codec (GDAL before 3.13).",
        "--unsharded",
    )
    preview: bool = option(False, "Write a small picture beside the output, NAME.preview.png.", "--preview")
    dry_run: bool = option(False, "Say what would be done, and do nothing.", "--dry-run")

    @model_validator(mode="after")
    def _one_source(self) -> GenerateSettings:
        asked = [name for name in ("text", "label", "vector", "scene") if getattr(self, name) is not None]
        if self.grid is None and not asked:
            raise ValueError("nothing to paint: give --grid, or --text, --label, --vector or --scene")
        for name in asked:
            exclusive(self, "grid", name)
            if not str(getattr(self, name)).strip():
                raise ValueError(f"--{name} is empty; say what the image is to show")
        if self.grid is not None and self.save_grid is not None:
            raise ValueError("--save-grid saves a sampled grid; --grid is one already")
        return self

    @model_validator(mode="after")
    def _recipe_alone(self) -> GenerateSettings:
        fixed = ("steps", "guidance", "guidance_interval", "update")
        given = [name for name in fixed if getattr(self, name) is not None]
        given += ["merge"] if self.merge != "auto" else []
        if self.recipe is not None and given:
            raise ValueError(f"--recipe fixes how to sample; leave --{given[0].replace('_', '-')} out")
        return self

    @model_validator(mode="after")
    def _ordered(self) -> GenerateSettings:
        low, high = self.guidance_interval or (0.0, 1.0)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"--guidance-interval {low:g},{high:g}: expected 0 <= LOW <= HIGH <= 1")
        if self.unsharded and not str(self.out or "").lower().rstrip("/").endswith(".zarr"):
            raise ValueError("--unsharded is for a Zarr store; give -o NAME.zarr")
        if self.keep is not None and (self.region is None or self.size is not None or self.fit != "auto"):
            raise ValueError("--keep goes with --region X,Y,W,H, what to repaint of the image, and no --size or --fit")
        return self
