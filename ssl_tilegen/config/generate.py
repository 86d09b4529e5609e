"""Options of `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from ssl_tilegen.config.options import ADVANCED, Settings, exclusive, option
from ssl_tilegen.config.shared_options import guidance_option, model_option, seed_option, steps_option
from ssl_tilegen.config.values import Pair, Region, SizePx
from ssl_tilegen.system.names import recordable

WHAT, OUTPUT, SAMPLING = "What to paint: a grid, or one of", "Output", "Sampling"


class GenerateSettings(Settings):
    """Options of `generate`."""

    grid: Path | None = option(None, "Grid of embeddings, made by `embed`.", "--grid", metavar="GRID", panel=WHAT)
    text: str | None = option(None, "Description of the image in words.", "--text", metavar="TEXT", panel=WHAT)
    label: str | None = option(
        None, "Label of the prior. `models info` lists the known ones.", "--label", metavar="NAME", panel=WHAT
    )
    vector: str | None = option(
        None,
        "Vector that conditions the prior. FILE.npy or FILE.npz:KEY.",
        "--vector",
        metavar="FILE",
        panel=WHAT,
    )
    scene: Path | None = option(
        None,
        "Map of labels or texts. A PNG with NAME.csv beside it (colour, label, text), or GeoJSON in "
        "pixels of the image with properties label or text.",
        "--scene",
        metavar="FILE",
        panel=WHAT,
    )
    save_grid: Path | None = option(
        None,
        "Save the grid that the prior sampled. It can be edited, or painted again.",
        "--save-grid",
        metavar="GRID",
        panel=OUTPUT,
    )
    grid_guidance: float | None = option(
        None,
        "Guidance of the prior. 1 is plain sampling; more follows the request more closely and varies less.",
        "--grid-guidance",
        default_text="the prior's",
        panel=ADVANCED,
        ge=0,
    )
    out: Path | None = option(
        None,
        "File to write. Its suffix is the format, such as .ome.tif, .svs, .tif, .zarr or .png. By default "
        ".ome.tif, or .tif where the grid has a CRS; without a grid it is written here.",
        "--out",
        "-o",
        default_text="NAME-synthetic beside the grid",
        metavar="FILE",
        panel=OUTPUT,
    )
    model: str = model_option("Bundle to paint with.", SAMPLING)
    size: SizePx | None = option(
        None,
        "Width x height in pixels. At the grid's resolution: 4096 or 4096x2048. Without a grid 1024.",
        "--size",
        default_text="the grid's",
        metavar="PX",
        panel=OUTPUT,
    )
    region: Region | None = option(
        None,
        "Part of the canvas to paint, in pixels. Neighbours that are made in two runs meet without a "
        "seam. A crop without --region takes the part with most foreground.",
        "--region",
        default_text="all",
        metavar="X,Y,W,H",
        panel=OUTPUT,
    )
    keep: str | None = option(
        None,
        "Repaint --region of this image, keep the rest. It is the image that the grid was made from; "
        "every pixel outside stays as it is.",
        "--keep",
        metavar="IMAGE",
        panel=OUTPUT,
    )
    fit: Literal["auto", "crop", "stretch"] = option(
        "auto",
        "How the grid is fitted to --size. crop: a part of it; stretch: its layout over the size; auto crops "
        "where the grid is large enough.",
        "--fit",
        panel=OUTPUT,
    )
    layout: Literal["auto", "exact", "loose", "free"] = option(
        "auto",
        "Layout within a cell. exact: as in the source; loose: roughly so; free: chosen by the model. "
        "auto is exact; loose for a grid that is stretched beyond 1.25.",
        "--layout",
        panel=SAMPLING,
    )
    seed: int = seed_option("Same seed, same image.", SAMPLING)
    steps: int | None = steps_option(SAMPLING)
    guidance: float | None = guidance_option(SAMPLING)
    guidance_interval: Pair | None = option(
        None,
        "Part of the noise schedule that is guided, from clean (0) to noise (1).",
        "--guidance-interval",
        default_text="the bundle's",
        metavar="LOW,HIGH",
        panel=ADVANCED,
    )
    update: str | None = option(
        None,
        "Update rule of a step, such as ddim, dpmpp_2m or renoise. An unknown name lists all of them.",
        "--update",
        default_text="the bundle's",
        metavar="NAME",
        panel=ADVANCED,
    )
    merge: Literal["auto", "whole", "shift", "average"] = option(
        "auto",
        "Merging of windows into one canvas. whole: one convolution; shift: windows that move every step; "
        "average: overlapping windows.",
        "--merge",
        panel=ADVANCED,
    )
    recipe: str | None = option(
        None,
        "Published sampling recipe of an imported model. `models info` lists a bundle's recipes.",
        "--recipe",
        default_text="none",
        metavar="NAME",
        panel=SAMPLING,
    )
    overlap: float = option(
        0.5,
        "Overlap of windows in --merge average, as a fraction of a window.",
        "--overlap",
        panel=ADVANCED,
        ge=0,
        lt=1,
    )
    canvas_mib: int = option(
        512,
        "Memory for latents in MiB. Those of a larger canvas lie in a file beside the output.",
        "--canvas-mib",
        metavar="MIB",
        panel=ADVANCED,
        gt=0,
    )
    unsharded: bool = option(
        False,
        "Write .zarr with a file per chunk instead of shards. For readers without the sharding codec "
        "(GDAL before 3.13).",
        "--unsharded",
        panel=ADVANCED,
    )
    preview: bool = option(False, "Write NAME.preview.png beside the output.", "--preview", panel=OUTPUT)
    dry_run: bool = option(False, "Report the plan and its cost, and write nothing.", "--dry-run", panel=OUTPUT)

    @model_validator(mode="after")
    def _one_source(self) -> GenerateSettings:
        asked = [name for name in ("text", "label", "vector", "scene") if getattr(self, name) is not None]
        if self.grid is None and not asked:
            raise ValueError("nothing to paint: give --grid, or --text, --label, --vector or --scene")
        for name in asked:
            exclusive(self, "grid", name)
            if not str(getattr(self, name)).strip():
                raise ValueError(f"--{name} is empty; say what the image is to show")
            if name in ("text", "label") and recordable(getattr(self, name)) != getattr(self, name):
                raise ValueError(f"--{name}: holds bytes that are not UTF-8; set the terminal's encoding to UTF-8")
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
