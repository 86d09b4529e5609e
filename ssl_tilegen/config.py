"""Every knob of the commands on one page: its type, default, unit, meaning and command-line option.

The command line is made from these classes, and a TOML file given by ``--config`` holds the same names; options
override the file. Unknown keys are errors. (The knobs of `train` are in ``training/settings.py``.)
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ssl_tilegen.errors import InputError, SettingError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.runtime import reading_threads


def knob(
    default: Any, meaning: str, option: str, *more: str, default_text: str = "", panel: str = "", **limits: Any
) -> Any:
    """A field with its option's names; ``default_text`` says in words what None means."""
    extra: dict[str, Any] = {"options": [option, *more], "default_text": default_text, "panel": panel}
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


def parse_size(value: Any) -> Any:
    """Pixels from 4096, "4096" or "4096x2048" (width x height)."""
    if isinstance(value, int):
        return Size(value, value)
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", value.strip()) if isinstance(value, str) else None
    if isinstance(value, str):
        if not match:
            raise ValueError("expected 4096 or 4096x2048 (width x height)")
        return Size(int(match[2] or match[1]), int(match[1]))
    return value


def parse_region(value: Any) -> Any:
    """A window from "X,Y,W,H" or [x, y, w, h]."""
    if isinstance(value, Window):
        return value
    x, y, width, height = _numbers(value, int, 4, "expected X,Y,WIDTH,HEIGHT")
    return Window(y, x, height, width)


def parse_bands(value: Any) -> Any:
    """Band numbers, from 1, from "1,2,3" or a list."""
    return value if isinstance(value, tuple) else _numbers(value, int, 0, "expected band numbers such as 1,2,3")


def parse_pair(value: Any) -> Any:
    """Two numbers from "LOW,HIGH" or a list."""
    return value if isinstance(value, tuple) else _numbers(value, float, 2, "expected LOW,HIGH")


def parse_names(value: Any) -> Any:
    """Names from "a,b,c" or a list."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def parse_share(value: Any) -> Any:
    """(index, count) from "I/N", I from 0."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)/(\d+)", value.strip())
        if not match or int(match[1]) >= int(match[2]):
            raise ValueError("expected I/N with I from 0 to N - 1, such as 0/4")
        return int(match[1]), int(match[2])
    return value


def _numbers(value: Any, kind: type, count: int, expected: str) -> tuple[Any, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        numbers = tuple(kind(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError(expected) from None
    if count and len(numbers) != count:
        raise ValueError(expected)
    return numbers


SizePx = Annotated[Size, BeforeValidator(parse_size)]
Region = Annotated[Window, BeforeValidator(parse_region)]
Bands = Annotated[tuple[int, ...], BeforeValidator(parse_bands)]
Pair = Annotated[tuple[float, float], BeforeValidator(parse_pair)]
Names = Annotated[tuple[str, ...], BeforeValidator(parse_names)]
Share = Annotated[tuple[int, int], BeforeValidator(parse_share)]
COMMON = "Common"
DRAWN = "Instead of a grid"
OUTPUT, MANY, ENCODER, PIXELS, FOREGROUND = "Output", "Many images", "Encoder", "Pixels", "Foreground"


class Settings(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, arbitrary_types_allowed=True)

    device: str = knob("auto", "Where to compute: auto, cpu, cuda or cuda:I.", "--device", panel=COMMON)
    batch: int | None = knob(
        None, "Tiles or windows per network call.", "--batch", default_text="to fit the device", panel=COMMON, gt=0
    )
    restart: bool = knob(False, "Start over instead of continuing an unfinished run.", "--restart", panel=COMMON)
    overwrite: bool = knob(False, "Replace a finished output.", "--overwrite", panel=COMMON)


class _Reading:
    """What the knobs ``mpp``, ``gsd`` and ``threads`` come to."""

    @property
    def resolution(self: Any) -> Resolution | None:
        """What --mpp or --gsd say."""
        if self.mpp is not None:
            return Resolution(self.mpp, "um")
        return Resolution(self.gsd, "m") if self.gsd is not None else None

    @property
    def reading_threads(self: Any) -> int:
        """``threads``, or one per core."""
        return self.threads or reading_threads()


class EmbedSettings(_Reading, Settings):
    """Knobs of `embed`."""

    out: Path | None = knob(
        None,
        "The grid to write (one input).",
        "--out",
        "-o",
        default_text="NAME.zarr beside the input",
        panel=OUTPUT,
    )
    out_dir: Path | None = knob(
        None, "Folder for the grids of many inputs, and their summary.", "--out-dir", panel=OUTPUT
    )
    preview: bool = knob(
        False, "Write a picture of the image beside its embedding as NAME.preview.png.", "--preview", panel=OUTPUT
    )
    geojson: bool = knob(
        False, "Write the outlines of the tissue as NAME.geojson beside the grid.", "--geojson", panel=OUTPUT
    )
    list: Path | None = knob(
        None,
        "CSV of images with the columns path (from the CSV's folder on), and if wanted id (the grid's name), mpp, gsd.",
        "--list",
        panel=MANY,
    )
    shard: Share | None = knob(
        None,
        "This process's share of the work as I/N, I from 0.",
        "--shard",
        default_text="the Slurm array's or RANK/WORLD_SIZE, else all",
        panel=MANY,
    )
    skip_existing: bool = knob(
        False,
        "Pass over inputs whose grid is complete; one that has lost parts is made again.",
        "--skip-existing",
        panel=MANY,
    )
    summary: Path | None = knob(
        None,
        "Table of what became of each input, .csv or .json.",
        "--summary",
        default_text="embed-summary.csv in --out-dir",
        panel=MANY,
    )
    model: str = knob("tiny", "Bundle whose encoder is used.", "--model", panel=ENCODER)
    encoder: str | None = knob(
        None,
        "Another encoder: a name of `models list`, hf-hub:ORG/NAME, local-dir:PATH or any timm name.",
        "--encoder",
        default_text="the bundle's",
        panel=ENCODER,
    )
    weights: Path | None = knob(
        None, "Weights of --encoder from a local file or folder (no network).", "--weights", panel=ENCODER
    )
    pooling: Literal["cls", "mean", "cls+mean", "pool"] | None = knob(
        None,
        "How tokens become one vector.",
        "--pooling",
        default_text="the encoder's own",
        panel=ENCODER,
    )
    mpp: float | None = knob(
        None,
        "Micrometres per pixel to read at; for an image that carries none: what its pixels measure.",
        "--mpp",
        default_text="the encoder's",
        panel=PIXELS,
        gt=0,
    )
    gsd: float | None = knob(
        None,
        "Metres per pixel to read at; for an image that carries none: what its pixels measure.",
        "--gsd",
        default_text="the raster's own",
        panel=PIXELS,
        gt=0,
    )
    stride: int | None = knob(
        None,
        "Pixels from one tile to the next; half a tile gives four times the cells.",
        "--stride",
        default_text="one tile",
        panel=PIXELS,
        gt=0,
    )
    bands: Bands | None = knob(
        None,
        "Bands shown as red, green, blue (from 1).",
        "--bands",
        default_text="the first three",
        panel=PIXELS,
    )
    scale: Pair | None = knob(
        None,
        "Values that become 0 and 255 (16-bit and float rasters), as LOW,HIGH.",
        "--scale",
        default_text="from the data",
        panel=PIXELS,
    )
    nodata_max: float = knob(
        0.1,
        "Largest fraction of pixels without data in a usable cell.",
        "--nodata-max",
        panel=PIXELS,
        ge=0,
        le=1,
    )
    threads: int | None = knob(
        None,
        "Threads that read and decode ahead of the encoder.",
        "--threads",
        default_text="one per core, at most 16",
        panel=PIXELS,
        gt=0,
    )
    tissue_only: bool = knob(
        False, "Leave background cells of slides without an embedding.", "--tissue-only", panel=FOREGROUND
    )
    tissue_min: float = knob(
        0.05,
        "Least fraction of foreground for a slide's cell not to be background.",
        "--tissue-min",
        panel=FOREGROUND,
        ge=0,
        le=1,
    )
    regions: Path | None = knob(
        None,
        "GeoJSON of what counts as foreground instead of detected tissue, or a folder with one NAME.geojson per image.",
        "--regions",
        panel=FOREGROUND,
    )

    @model_validator(mode="after")
    def _fits(self) -> EmbedSettings:
        _exclusive(self, "mpp", "gsd")
        _exclusive(self, "out", "out_dir")
        if self.encoder is None and (self.weights or self.pooling):
            raise ValueError("weights and pooling go with an encoder; give --encoder too")
        return self


class GenerateSettings(Settings):
    """Knobs of `generate`."""

    grid: Path | None = knob(None, "Grid of embeddings to paint, made by `embed`.", "--grid")
    text: str | None = knob(None, "Words for what a drawn grid is to show.", "--text", panel=DRAWN)
    label: str | None = knob(None, "Label of what it is to show; `models info` lists them.", "--label", panel=DRAWN)
    vector: str | None = knob(
        None, "Vector that the prior was trained with: FILE.npy or FILE.npz:KEY.", "--vector", panel=DRAWN
    )
    scene: Path | None = knob(
        None,
        "Map of labels or texts: PNG with NAME.csv beside it (colour, label, text), or GeoJSON in pixels of the "
        "picture with properties label or text.",
        "--scene",
        panel=DRAWN,
    )
    save_grid: Path | None = knob(
        None, "Keep the drawn grid, to be edited or painted again.", "--save-grid", panel=DRAWN
    )
    grid_guidance: float | None = knob(
        None,
        "How strictly the grid follows what was asked for; 1 is plain sampling, more is stricter and less varied.",
        "--grid-guidance",
        default_text="the prior's",
        panel=DRAWN,
        ge=0,
    )
    out: Path | None = knob(
        None,
        "Picture to write; its suffix says the format: .ome.tif, .tif, .png, .jpg, .zarr.",
        "--out",
        "-o",
        default_text="NAME-synthetic beside the grid (of a drawn one: here), .ome.tif or a georeferenced .tif",
    )
    model: str = knob("tiny", "Bundle to paint with.", "--model")
    size: SizePx | None = knob(
        None,
        "Pixels of the output, 4096 or 4096x2048 (width x height), at the grid's resolution.",
        "--size",
        default_text="the grid's; 1024 where it is drawn",
    )
    region: Region | None = knob(
        None,
        "Part of the canvas to paint, X,Y,W,H in pixels; neighbours made in two runs meet without a seam.",
        "--region",
        default_text="all, or the crop with most foreground",
    )
    keep: str | None = knob(
        None,
        "The image that the grid was made from: it is kept to the pixel, all but the --region, which is repainted.",
        "--keep",
    )
    fit: Literal["auto", "crop", "stretch"] = knob(
        "auto",
        "How the grid meets --size: crop it, or stretch its layout over it; auto crops where the grid is large enough.",
        "--fit",
    )
    layout: Literal["auto", "exact", "loose", "free"] = knob(
        "auto",
        "Where things lie within a cell: exact, as in the source, loose, roughly so, or free, wherever the model puts "
        "them; auto is exact, for grids that a prior drew loose, and free where stretched beyond 1.25.",
        "--layout",
    )
    seed: int = knob(0, "Same seed, same picture.", "--seed", ge=0)
    steps: int | None = knob(None, "Rungs of the noise ladder.", "--steps", default_text="the bundle's", gt=0)
    guidance: float | None = knob(
        None, "W in uncond + W (cond - uncond); 1 is none.", "--guidance", default_text="the bundle's", ge=0
    )
    guidance_interval: Pair | None = knob(
        None,
        "Part of the ladder that is guided, LOW,HIGH from clean (0) to noise (1).",
        "--guidance-interval",
        default_text="the bundle's",
    )
    update: Literal["ddim", "dpmpp_2m", "ancestral"] | None = knob(
        None, "Update rule of a step.", "--update", default_text="the bundle's"
    )
    merge: Literal["auto", "whole", "shift", "average"] = knob(
        "auto", "How windows become one canvas: one convolution, shifted windows, or an average.", "--merge"
    )
    overlap: float = knob(0.5, "Share of a window that the next repeats in an average.", "--overlap", ge=0, lt=1)
    canvas_mib: int = knob(
        512, "Latents of more MiB than this lie in a file beside the output, not in memory.", "--canvas-mib", gt=0
    )
    preview: bool = knob(False, "Write a small picture beside the output, NAME.preview.png.", "--preview")
    dry_run: bool = knob(False, "Say what would be done, and do nothing.", "--dry-run")

    @model_validator(mode="after")
    def _one_source(self) -> GenerateSettings:
        asked = [name for name in ("text", "label", "vector", "scene") if getattr(self, name) is not None]
        if self.grid is None and not asked:
            raise ValueError("nothing to paint: give --grid, or --text, --label, --vector or --scene")
        for name in asked:
            _exclusive(self, "grid", name)
            if not str(getattr(self, name)).strip():
                raise ValueError(f"--{name} is empty; say what the image is to show")
        if self.grid is not None and self.save_grid is not None:
            raise ValueError("--save-grid keeps a drawn grid; --grid is one already")
        return self

    @model_validator(mode="after")
    def _ordered(self) -> GenerateSettings:
        low, high = self.guidance_interval or (0.0, 1.0)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"--guidance-interval {low:g},{high:g}: expected 0 <= LOW <= HIGH <= 1")
        if self.keep is not None and (self.region is None or self.size is not None or self.fit != "auto"):
            raise ValueError("--keep goes with --region X,Y,W,H, what to repaint of the image, and no --size or --fit")
        return self


class AugmentSettings(Settings):
    """Knobs of `augment`."""

    out: Path | None = knob(
        None, "The folder to make.", "--out", "-o", default_text="NAME-augmented beside the input"
    )
    per_image: int = knob(1, "New pictures of each picture.", "--per-image", gt=0)
    strength: float | None = knob(
        None,
        "Part of the noise ladder that the source's own latents are repainted by, in (0, 1): the lower, the nearer.",
        "--strength",
        default_text="all: painted from noise",
        gt=0,
        le=1,
    )
    mix: float | None = knob(
        None,
        "How far embeddings move towards those of another picture of the same class and split, in (0, 1).",
        "--mix",
        default_text="not at all",
        gt=0,
        lt=1,
    )
    seed: int = knob(0, "Same seed, same pictures.", "--seed", ge=0)
    layout: Literal["exact", "free"] = knob(
        "exact",
        "Where things lie within a cell: exact, as in the source, or free, wherever the model puts them (more varied).",
        "--layout",
    )
    keep_best: int | None = knob(
        None, "Keep the N of a picture's samples that are nearest to it, of those still in their class.", "--keep-best",
        gt=0,
    )  # fmt: skip
    min_cosine: float | None = knob(
        None, "Drop samples that left their class, or whose cosine to their source is below this.", "--min-cosine",
        ge=-1, le=1,
    )  # fmt: skip
    originals: Literal["none", "copy", "link"] = knob(
        "none", "Whether the originals lie beside the new pictures.", "--originals"
    )
    suffix: Literal[".png", ".jpg"] = knob(".png", "Kind of file of new patches.", "--suffix")
    level: Literal["auto", "patch", "image"] = knob(
        "auto",
        "patch: pictures are painted together as they are; image: each alone, from its grid; auto: patches up to "
        "1024 px.",
        "--level",
    )
    model: str = knob("tiny", "Bundle to embed and paint with.", "--model")
    steps: int | None = knob(None, "Rungs of the noise ladder.", "--steps", default_text="the bundle's", gt=0)
    guidance: float | None = knob(
        None, "W in uncond + W (cond - uncond); 1 is none.", "--guidance", default_text="the bundle's", ge=0
    )
    mpp: float | None = knob(None, "Micrometres per pixel that large images are read at, as in `embed`.", "--mpp", gt=0)
    gsd: float | None = knob(None, "Metres per pixel that large images are read at, as in `embed`.", "--gsd", gt=0)
    shard: Share | None = knob(
        None,
        "This process's share of the work as I/N, I from 0.",
        "--shard",
        default_text="SLURM_ARRAY_TASK_ID/COUNT, else all",
    )

    @property
    def gated(self) -> bool:
        """Whether samples that left their class are dropped."""
        return self.keep_best is not None or self.min_cosine is not None

    @model_validator(mode="after")
    def _fits(self) -> AugmentSettings:
        _exclusive(self, "mpp", "gsd")
        if self.keep_best is not None and self.keep_best > self.per_image:
            raise ValueError(f"--keep-best {self.keep_best} of --per-image {self.per_image}: give a larger --per-image")
        return self


class EvaluateSettings(_Reading, Settings):
    """Knobs of `evaluate`."""

    real: Path | None = knob(None, "Real images: a folder, slide, raster, picture or grid.", "--real")
    synthetic: Path | None = knob(None, "Synthetic images: as --real.", "--synthetic")
    train: Path | None = knob(
        None, "Images the model was trained on; with them, copying is checked for.", "--train", default_text="no check"
    )
    grid: Path | None = knob(None, "Grid that the synthetic image was painted from, to be compared with it.", "--grid")
    task: Path | None = knob(
        None, "Folder with real/, synthetic/ and test/, one sub-folder per class in each: is it useful?", "--task"
    )
    report: Path | None = knob(
        None,
        "HTML page to write, with a .json of the same name beside it. Until it is there, vectors are kept in "
        "REPORT.part beside it, and the same command goes on from them.",
        "--report",
        default_text="none",
    )
    metrics: Names = knob(
        ("fd", "kid", "manifold", "vendi", "copy", "pairs", "large"),
        "Which of fd, kid, manifold, vendi, copy, pairs, large.",
        "--metrics",
        default_text="all",
    )
    encoder: Names = knob(
        ("texture", "bundle"),
        "Features to compare in, comma-separated: texture (needs no weights), bundle (the model's own), inception "
        "(canonical FID; with --weights), or any name that `embed --encoder` takes.",
        "--encoder",
        default_text="texture,bundle",
    )
    weights: Path | None = knob(None, "Weights of the one named --encoder from a local file (no network).", "--weights")
    model: str = knob("tiny", "Bundle whose encoder is `bundle`.", "--model")
    window: int | None = knob(
        None, "Side in px of the windows that images are cut into.", "--window", default_text="what all have", ge=32
    )
    mpp: float | None = knob(None, "Micrometres per pixel to compare at, or of images that say none.", "--mpp", gt=0)
    gsd: float | None = knob(None, "Metres per pixel to compare at, or of images that say none.", "--gsd", gt=0)
    limit: int = knob(20_000, "Windows of a set at most, drawn evenly; 0 for all.", "--limit", ge=0)
    neighbours: int = knob(5, "Neighbours that span a manifold (precision, recall, density, coverage).", "-k", gt=0)
    rounds: int = knob(20, "Half-samples behind each interval and baseline.", "--rounds", ge=2)
    gallery: int = knob(12, "Pairs shown in the report.", "--gallery", ge=0)
    seeds: int = knob(5, "Draws of the training groups of a --task.", "--seeds", ge=2)
    task_groups: float = knob(
        0.8, "Groups of each class that a draw takes; below 1 a share of them.", "--task-groups", gt=0
    )
    task_models: Names = knob(
        ("linear", "knn", "finetuned"), "Which of linear, knn, finetuned, mil to train.", "--task-models",
        default_text="linear,knn,finetuned; mil where images are large",
    )  # fmt: skip
    task_steps: int = knob(120, "Steps of the fine-tuned classifier.", "--task-steps", gt=0)
    seed: int = knob(0, "Of all random draws.", "--seed", ge=0)
    threads: int | None = knob(None, "Threads that read.", "--threads", default_text="one per core, at most 16", gt=0)

    @model_validator(mode="after")
    def _fits(self) -> EvaluateSettings:
        _exclusive(self, "mpp", "gsd")
        if (self.real is None) != (self.synthetic is None):
            raise ValueError("--real and --synthetic go together; give both")
        if self.real is None and self.task is None:
            raise ValueError("nothing to evaluate; give --real and --synthetic, or --task")
        _known("--metrics", self.metrics, ("fd", "kid", "manifold", "vendi", "copy", "pairs", "large"))
        _known("--task-models", self.task_models, ("linear", "knn", "finetuned", "mil"))
        if self.weights and len([name for name in self.encoder if name not in ("texture", "bundle")]) != 1:
            raise ValueError("--weights goes with one --encoder that is not texture or bundle")
        return self


S = TypeVar("S", bound=Settings)


def load_settings(kind: type[S], file: Path | None, options: Mapping[str, Any]) -> S:
    """Settings from a TOML file with ``options`` (those that are not None) on top.

    SettingError for an unknown key or a value out of range, InputError for a file that cannot be read.
    """
    values = _read_toml(file) if file else {}
    values |= {name: value for name, value in options.items() if value is not None}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SettingError(_explain(kind, error, file)) from None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise InputError(f"{file}: cannot read the configuration ({error.strerror}); check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{file}: not valid TOML: {error}") from None


def _explain(kind: type[Settings], error: ValidationError, file: Path | None) -> str:
    """The first complaint, in the user's words."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"{file}: unknown key '{name}'; known are {', '.join(sorted(kind.model_fields))}"
    if first["type"] == "missing":
        return f"{option_name(kind, name)} is missing; see --help"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{option_name(kind, name)} {first['input']}: {reason}" if name else reason


def option_name(kind: type[Settings], name: str) -> str:
    """The command-line option of a field."""
    extra = kind.model_fields[name].json_schema_extra
    return extra["options"][0] if isinstance(extra, dict) else name  # type: ignore[index,return-value]


def _known(option: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{option} {name}: unknown; choose from {', '.join(known)}")


def _exclusive(settings: Settings, first: str, second: str) -> None:
    if getattr(settings, first) is not None and getattr(settings, second) is not None:
        kind = type(settings)
        raise ValueError(f"give {option_name(kind, first)} or {option_name(kind, second)}, not both")
