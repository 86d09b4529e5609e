"""The metadata of a bundle: ``bundle.json``, ``prior/prior.json``, ``model_index.json`` and the scheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ssl_tilegen.diffusion.conditioning import ConditioningSpec
from ssl_tilegen.diffusion.recipe import Recipe
from ssl_tilegen.diffusion.schedule import check_times
from ssl_tilegen.diffusion.steppers import STEPPERS
from ssl_tilegen.errors import FormatError, SettingError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.nets import is_ours
from ssl_tilegen.prior.spec import FORMAT as PRIOR_FORMAT
from ssl_tilegen.prior.spec import PriorInfo
from ssl_tilegen.system.atomic import write_json, write_text

FORMAT = 1
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}
"""The scheduler of our own denoisers: flow matching with x = (1 - t) clean + t noise."""
_NAME, _MOST_PX, _MOST_CHANNELS, _MOST_STEPS, _MOST_GUIDANCE = 500, 1 << 16, 1 << 17, 100_000, 1000.0

Facts = TypeVar("Facts", bound=BaseModel)
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class EncoderInfo(BaseModel):
    """Preprocessing of a tile, and pooling of the encoder's tokens."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    id: str = Field(max_length=_NAME)
    tile_px: int = Field(ge=0, le=_MOST_PX)
    dim: int = Field(ge=0, le=_MOST_CHANNELS)
    layout_dim: int = Field(default=0, ge=0, le=_MOST_CHANNELS)
    """How many of the ``dim`` numbers, the last ones, are a coarse image of the tile."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    pooling: str = Field(default="head", max_length=_NAME)
    input_px: int = Field(default=0, ge=0, le=_MOST_PX)
    """Side that a tile is resized to before the encoder; 0 for ``tile_px``."""


class Sampling(BaseModel):
    """Defaults of `generate` that were measured best for this bundle."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    steps: int = Field(default=24, ge=1, le=_MOST_STEPS)
    times: tuple[float, ...] = ()
    """Noise fractions that a few-step denoiser was trained for, from 1 down; none for an even schedule of ``steps``."""
    update: str = "dpmpp_2m"
    guidance: float = Field(default=1.5, ge=0, le=_MOST_GUIDANCE)
    guidance_interval: tuple[Share, Share] = (0.2, 0.8)

    @model_validator(mode="before")
    @classmethod
    def _few_steps(cls, given: Any) -> Any:
        """A few-step denoiser takes the steps that it has times for, and no guidance, unless it says otherwise."""
        if not isinstance(given, dict) or not given.get("times"):
            return given
        return {"steps": len(given["times"]), "update": "renoise", "guidance": 1.0} | given

    @field_validator("update")
    @classmethod
    def _known(cls, update: str) -> str:
        if update not in STEPPERS:
            raise ValueError(f"unknown update rule {update[:40]!r}; known: {', '.join(STEPPERS)}")
        return update

    @field_validator("times")
    @classmethod
    def _falling(cls, times: tuple[float, ...]) -> tuple[float, ...]:
        try:
            return check_times(times) if times else times
        except SettingError as error:
            raise ValueError(str(error)) from None


class Origin(BaseModel):
    """Where a component was copied from: the bundle's name and licence, and the component's hash at that time."""

    model_config = ConfigDict(frozen=True)

    bundle: str
    licence: str = "unknown"
    sha256: str = ""


class BundleInfo(BaseModel):
    """``bundle.json``."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    format: int = FORMAT
    name: str = Field(max_length=_NAME)
    encoder: EncoderInfo = EncoderInfo(id="none", tile_px=0, dim=0)
    locality: Literal["local", "window"] = "local"
    """``local``: the denoiser is a convolution of finite reach; ``window``: it sees one window."""
    conditioning: ConditioningSpec | None = None
    """The condition of a window; None in bundles that ``locality`` and ``l2_condition`` describe."""
    window_px: int = Field(default=0, ge=0, le=_MOST_PX)
    stride_px: list[Annotated[int, Field(gt=0, le=_MOST_PX)]] = []
    """Strides of the embedding grid that the denoiser was trained for."""
    resolutions: dict[str, tuple[Positive, Literal["um", "m"]]] = {}
    """Domain -> (value, unit) per pixel that it was trained at."""
    latent_mean: list[float] = []
    latent_scale: list[float] = []
    prediction_type: Literal["flow", "v_prediction", "epsilon", "sample"] = "flow"
    l2_condition: bool = False
    """Whether the denoiser takes its condition at unit length, as the published one does."""
    time_scale: float = Field(default=1.0, gt=0)
    """Factor of the times that a window denoiser is given."""
    sampling: Sampling = Sampling()
    training: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)
    licence: str = "unknown"
    origin: str = ""
    """Where the weights of an imported model come from."""
    recipes: dict[str, Recipe] = Field(default_factory=dict)
    """How the authors of an imported model sample it, by name."""
    exact_autoencoder: bool = False
    """Whether the autoencoder works in float32 throughout: a vector-quantised one looks for nearest neighbours."""
    datasets: list[str] = []
    """Names of the data that it was trained on, as the hub or their makers call them."""
    origins: dict[str, Origin] = Field(default_factory=dict)
    """Component -> the bundle that it was copied from; it holds while the component's hash is the same."""

    @model_validator(mode="after")
    def _fits(self) -> BundleInfo:
        if len(self.latent_mean) != len(self.latent_scale):
            raise ValueError(f"{len(self.latent_mean)} values of latent_mean, {len(self.latent_scale)} of latent_scale")
        if any(scale <= 0 for scale in self.latent_scale):
            raise ValueError("latent_scale has values that are not positive")
        if self.encoder.layout_dim > self.encoder.dim:
            raise ValueError(f"layout_dim {self.encoder.layout_dim} of the encoder is more than dim {self.encoder.dim}")
        return self

    def resolution(self, unit: str) -> Resolution | None:
        """The finest resolution it was trained at in ``unit`` (um, m), or None."""
        values = [value for value, own in self.resolutions.values() if own == unit]
        return Resolution(min(values), unit) if values else None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a bundle. FormatError, in one line, where there is none."""
    try:
        facts = json.loads(path.read_text())
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); the bundle is incomplete") from None
    except ValueError:
        raise FormatError(f"{path}: not valid JSON; the bundle is broken") from None
    if not isinstance(facts, dict):
        raise FormatError(f"{path}: not a JSON object; the bundle is broken")
    return facts


def read_info(folder: Path) -> BundleInfo:
    """``bundle.json`` of a folder. FormatError where it cannot be read, is of a newer format or does not fit."""
    return _validated(BundleInfo, folder / "bundle.json", FORMAT)


def read_prior_info(folder: Path) -> PriorInfo:
    """``prior/prior.json`` of a bundle's folder. FormatError as for `read_info`."""
    return _validated(PriorInfo, folder / "prior" / "prior.json", PRIOR_FORMAT)


def _validated(kind: type[Facts], path: Path, version: int) -> Facts:
    facts = read_json(path)
    if facts.get("format", version) != version:
        raise FormatError(f"{path}: format {facts['format']}, this version reads {version}; upgrade ssl-tilegen")
    try:
        return kind.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        raise FormatError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def resolutions_of(folder: Path) -> dict[str, Resolution]:
    """The resolutions that a bundle, whole or in the making, was trained at, by domain; none where there is none."""
    if not (folder / "bundle.json").is_file():
        return {}
    return {domain: Resolution(*known) for domain, known in read_info(folder).resolutions.items()}


def write_info(folder: Path, info: BundleInfo, scheduler: dict[str, Any]) -> None:
    """Write ``bundle.json``, ``model_index.json`` and the scheduler."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "bundle.json", info.model_dump_json(indent=2) + "\n")
    index: dict[str, Any] = {"_class_name": "ModelBundle", "_bundle_format": info.format}
    for component in ("encoder", "autoencoder", "denoiser", "conditioner", "prior"):
        path = folder / component / "config.json"
        if path.is_file():
            config = read_json(path)
            name = str(config.get("_class_name") or config.get("arch", ""))
            library = "timm" if component == "encoder" else "diffusers"
            index[component] = ["ssl_tilegen.nets" if is_ours(name) else library, name]
    index |= {"scheduler": ["diffusers", scheduler["_class_name"]]}
    write_json(folder / "model_index.json", index)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)


def update_info(folder: Path, *, scheduler: dict[str, Any] | None = None, **changes: Any) -> BundleInfo:
    """The facts of a bundle under construction with ``changes``, written back; its scheduler stays unless given."""
    info = read_info(folder) if (folder / "bundle.json").is_file() else BundleInfo(name=folder.parent.name)
    info = info.model_copy(update=changes)
    known = folder / "scheduler" / "scheduler_config.json"
    write_info(folder, info, scheduler or (read_json(known) if known.is_file() else SCHEDULER))
    return info


def check_prior(module: Any, info: PriorInfo, dim: int, place: Path) -> None:
    """FormatError where the facts of a prior, from the file ``place``, are not of its network. ``dim``: embeddings'."""
    found = (len(module.mean) - 1, len(module.condition_mean), len(module.anchors))
    stated = (dim, info.condition_dim, len(info.labels))
    names = ("numbers of an embedding", "numbers of a condition", "labels")
    for name, own, said in zip(names, found, stated, strict=True):
        if own != said:
            raise FormatError(f"{place}: says {said} {name}, the network has {own}; the bundle is broken")
