"""A model bundle: one folder in diffusers layout with all it takes to embed and to generate.

``model_index.json``, one folder per component (``encoder``, ``autoencoder``, ``denoiser``, ``scheduler``) with
``config.json`` and safetensors, and ``bundle.json`` with what the components do not know of themselves. Never pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssl_tilegen.bundle.hub import cached_or_fetched, is_hub_name
from ssl_tilegen.diffusion.coarse_latents import LocalCondition
from ssl_tilegen.diffusion.conditioning import Conditioning, ConditioningSpec, FieldConditioning, TokenConditioning
from ssl_tilegen.diffusion.recipe import Recipe
from ssl_tilegen.diffusion.schedule import check_times
from ssl_tilegen.diffusion.steppers import STEPPERS
from ssl_tilegen.errors import FormatError, InputError, SettingError
from ssl_tilegen.geometry import Resolution, Size, Window, cover
from ssl_tilegen.nets import build_component, build_encoder, is_ours
from ssl_tilegen.nets.window import attend, predict
from ssl_tilegen.prior.spec import FORMAT as PRIOR_FORMAT
from ssl_tilegen.prior.spec import PriorInfo
from ssl_tilegen.system.atomic import publish_folder, remove, temporary_beside, write_json, write_text
from ssl_tilegen.system.device import fast_dtype
from ssl_tilegen.system.hashing import sha256_of_folder

FORMAT = 1
BUILT_IN = ("tiny",)
SHARD = "14MB"
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}
"""What our own denoisers are trained for: flow matching with x = (1 - t) clean + t noise."""
_PIECE_LAT = 128
_NAME, _MOST_PX, _MOST_CHANNELS, _MOST_STEPS, _MOST_GUIDANCE = 500, 1 << 16, 1 << 17, 100_000, 1000.0

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class EncoderInfo(BaseModel):
    """What is done to a tile before the encoder and to its tokens after it."""

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
    """What the denoiser is told of a window; None in bundles that ``locality`` and ``l2_condition`` describe."""
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
    """What times are multiplied by for a denoiser that sees one window (its own count of them is finer)."""
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


class ModelBundle:
    """Encoder, autoencoder and denoiser, loaded to a device; satisfies ``diffusion.protocols.Model``.

    Components are loaded when first used, so that `embed` never reads the denoiser.

    Args:
        folder: Folder of the bundle.
        device: Device of the networks.

    Raises:
        InputError: The folder holds no bundle.
        FormatError: The bundle is broken or of a newer format.

    Example:
        >>> bundle = ModelBundle.load("tiny")
        >>> bundle.info.encoder.tile_px, bundle.info.encoder.dim
        (64, 128)
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.folder, self.device = folder, torch.device(device)
        self.info = _read_info(folder)

    @classmethod
    def load(cls, name: str | Path, device: torch.device | str = "cpu") -> ModelBundle:
        """Load a bundle.

        Args:
            name: Name of a built-in bundle, folder of a bundle, or ``hf-hub:ORG/NAME``.
            device: Device of the networks.

        Returns:
            The bundle; its networks are read when they are first used.

        Raises:
            InputError: No bundle is known by this name.
            FormatError: The bundle is broken or of a newer format.
        """
        return cls(find_bundle(name), device)

    # The components

    @cached_property
    def encoder(self) -> Any:
        """(N, 3, tile, tile), normalised -> (N, D)."""
        folder = self.folder / "encoder"
        config = read_json(folder / "config.json")
        if not config.get("pretrained"):
            return self._ready(_filled(lambda: build_encoder(config), folder))
        from ssl_tilegen.encoders.timm_encoder import rebuild

        return self._ready(_filled(lambda: rebuild(config), folder))

    @cached_property
    def autoencoder(self) -> Any:
        """Images (N, 3, H, W) in [-1, 1] <-> raw latents."""
        return self._ready(_component(self.folder / "autoencoder"))

    @cached_property
    def denoiser(self) -> Any:
        """Noisy latents, time, condition -> raw prediction."""
        return self._ready(_component(self.folder / "denoiser"))

    @cached_property
    def conditioner(self) -> Any:
        """For denoisers of windows: conditions (N, K, D) -> the tokens that they attend to (``nets.conditioner``)."""
        if self.has("conditioner"):
            return self._ready(_component(self.folder / "conditioner"))
        from ssl_tilegen.nets.conditioner import TokenConditioner

        scaling = "unit_length" if self.info.l2_condition else "none"
        return self._ready(TokenConditioner(self.info.encoder.dim, scaling=scaling))

    @cached_property
    def prior(self) -> Any:
        """Samples grids of embeddings: noisy cells, time, condition -> velocity (``nets.grid_prior``)."""
        module: Any = _component(self.folder / "prior").eval().requires_grad_(False)
        self._check_prior(module)
        return module.to(self.device)

    def _check_prior(self, module: Any) -> None:
        """FormatError where the prior's facts are not of its network."""
        info, place = self.prior_info, self.folder / "prior" / "prior.json"
        if info is None:
            return
        found = (len(module.mean) - 1, len(module.condition_mean), len(module.anchors))
        stated = (self.info.encoder.dim, info.condition_dim, len(info.labels))
        names = ("numbers of an embedding", "numbers of a condition", "labels")
        for name, own, said in zip(names, found, stated, strict=True):
            if own != said:
                raise FormatError(f"{place}: says {said} {name}, the network has {own}; the bundle is broken")

    @cached_property
    def prior_info(self) -> PriorInfo | None:
        """What the bundle's prior of grids can be conditioned on; None where it has none."""
        return read_prior_info(self.folder) if self.has("prior") else None

    def has(self, component: str) -> bool:
        """Whether the bundle has a component of this name."""
        return (self.folder / component / "config.json").is_file()

    def component_hash(self, component: str) -> str:
        """sha256 over a component's configuration and weights."""
        return sha256_of_folder(self.folder / component)

    @cached_property
    def hash(self) -> str:
        """sha256 over all components and what they are joined by: everything that the pixels depend on."""
        parts = [self.component_hash(c) for c in ("encoder", "autoencoder", "denoiser", "scheduler")]
        joints = {"encoder", "locality", "window_px", "latent_mean", "latent_scale", "prediction_type", "l2_condition"}
        joints |= {"time_scale"} if self.info.time_scale != 1 else set()
        joints |= {"conditioning"} if self.info.conditioning else set()
        parts += [self.component_hash("conditioner")] if self.has("conditioner") else []
        facts = self.info.model_dump(include=joints)
        if not self.info.encoder.input_px:  # which older bundles have no word for
            del facts["encoder"]["input_px"]
        parts.append(json.dumps(facts, sort_keys=True))
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def _ready(self, module: nn.Module) -> Any:
        frozen: Any = module.eval().requires_grad_(False).to(self.device)
        return frozen.to(memory_format=torch.channels_last)

    # diffusion.protocols.Model

    @cached_property
    def conditioning(self) -> Conditioning:
        """The conditioning that the bundle brings, as its denoiser was trained with it."""
        spec = self.info.conditioning
        if spec.kind == "field" if spec else self.info.locality == "local":
            return self._field_conditioning()
        return TokenConditioning.of(spec or ConditioningSpec(), self.window_lat)

    def _field_conditioning(self) -> FieldConditioning:
        stride, side = getattr(self.denoiser, "field_stride", 1), getattr(self.denoiser, "sketch_side", 0)
        condition = LocalCondition(
            stride, self.info.encoder.layout_dim, side, self.denoiser.decode_cells if side else None
        )
        return FieldConditioning(condition, quantum_lat=stride)

    @property
    def factor(self) -> int:
        """Pixels per latent on each axis."""
        own = getattr(self.autoencoder, "factor", None)
        return own or 2 ** (len(self.autoencoder.config.block_out_channels) - 1)

    @property
    def window_lat(self) -> int:
        """Side of the training window in latents."""
        return self.info.window_px // self.factor

    @property
    def halo_lat(self) -> int:
        """Reach of a local denoiser beyond a tile, in latents; 0 for networks with attention."""
        return getattr(self.denoiser, "halo", 0)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return len(self.info.latent_mean) or self.autoencoder.config.latent_channels

    @property
    def decoder_halo_lat(self) -> int | None:
        """Reach of the decoder in latents; None where its receptive field is not finite."""
        return getattr(self.autoencoder, "decoder_halo", None)

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """The keys of ``scheduler/scheduler_config.json``, as diffusers writes them."""
        return read_json(self.folder / "scheduler" / "scheduler_config.json")

    @property
    def prediction_type(self) -> str:
        """Parameterization of the denoiser's output: flow, v_prediction, epsilon or sample."""
        return self.info.prediction_type

    def predict(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Raw prediction (N, C, h, w) for noisy latents at times t; no condition = unconditional."""
        if self.conditioning.is_field:
            with self._autocast():
                return predict(self.denoiser, x, t, cond).float()
        tokens = self.conditioner.unconditional(len(x)) if cond is None else self.conditioner(cond)
        with self._autocast():
            raw = attend(self.denoiser, x, t * self.info.time_scale, tokens)
        return raw.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (N, C, h, w) -> pixels (N, 3, factor h, factor w) in about [-1, 1]."""
        mean, scale = self._statistics
        return self.decode_raw(latents.to(self.device) / scale + mean)

    def decode_raw(self, raw: Tensor) -> Tensor:
        """Latents as the autoencoder gives them (N, C, h, w) -> pixels (N, 3, factor h, factor w)."""
        with torch.no_grad(), self._autocast(exact=self.info.exact_autoencoder):
            pixels = self.autoencoder.decode(raw.contiguous(memory_format=torch.channels_last))
        return getattr(pixels, "sample", pixels).float()

    # The other direction

    @torch.no_grad()
    def encode_raw(self, rgb: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3), sides multiples of ``factor`` -> raw latents (C, H/8, W/8) float32, piece by exact piece."""
        size = Size(rgb.shape[0] // self.factor, rgb.shape[1] // self.factor)
        halo, whole = getattr(self.autoencoder, "encoder_halo", 8), Window.of(size)
        out = np.empty((self.latent_channels, size.rows, size.cols), np.float32)
        for core in cover(size, Size(_PIECE_LAT, _PIECE_LAT)):
            around = core.grown(halo).intersection(whole)
            assert around is not None
            pixels = np.ascontiguousarray(rgb[around.scaled(self.factor).slices].transpose(2, 0, 1))
            image = torch.from_numpy(pixels).to(self.device)[None].float() / 127.5 - 1
            with self._autocast(exact=self.info.exact_autoencoder):
                encoded = self.autoencoder.encode(image.contiguous(memory_format=torch.channels_last))
            mean = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else getattr(encoded, "latents", encoded)
            out[:, *core.slices] = mean[0][:, *core.within(around).slices].float().cpu().numpy()
        return out

    def encode(self, rgb: np.ndarray) -> Tensor:
        """uint8 (H, W, 3) -> normalised latents (C, H/8, W/8) on the CPU."""
        mean, scale = (s.cpu()[0] for s in self._statistics)
        return (torch.from_numpy(self.encode_raw(rgb)) - mean) * scale

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        channels = self.latent_channels
        mean = torch.tensor(self.info.latent_mean or [0.0] * channels, device=self.device)
        scale = torch.tensor(self.info.latent_scale or [1.0] * channels, device=self.device)
        return mean[None, :, None, None], scale[None, :, None, None]

    def _autocast(self, *, exact: bool = False) -> Any:
        kind = None if exact else fast_dtype(self.device)
        return torch.autocast(self.device.type, kind) if kind else nullcontext()


def find_bundle(name: str | Path) -> Path:
    """The folder of a bundle: a built-in name, a path, or ``hf-hub:ORG/NAME[@REVISION]`` (cached, else fetched). Raises
    InputError where there is none."""
    if str(name) in BUILT_IN:
        packaged = Path(str(resources.files("ssl_tilegen"))) / "models" / str(name)
        checkout = Path(str(resources.files("ssl_tilegen"))).parent / "models" / str(name)
        return packaged if packaged.is_dir() else checkout
    if is_hub_name(name):
        return cached_or_fetched(str(name))
    folder = Path(name)
    if not (folder / "bundle.json").is_file():
        raise InputError(f"{name}: not a model bundle (no bundle.json); use a bundle's folder or {', '.join(BUILT_IN)}")
    return folder


def resolutions_of(folder: Path) -> dict[str, Resolution]:
    """The resolutions that a bundle, whole or in the making, was trained at, by domain; none where there is none."""
    if not (folder / "bundle.json").is_file():
        return {}
    return {domain: Resolution(*known) for domain, known in _read_info(folder).resolutions.items()}


def save_component(module: Any, folder: Path, config: dict[str, Any] | None = None, *, exact: bool = False) -> None:
    """Write a network in float16 (``exact``: as it is), in shards below 15 MiB; ``config`` for those that are no
    diffusers models. What was in ``folder`` is there until the new one is whole."""
    half = {key: value.cpu().contiguous() if exact else _half(value) for key, value in module.state_dict().items()}
    part = temporary_beside(folder)
    try:
        part.mkdir(parents=True)
        _save_into(part, module, half, config)
        publish_folder(part, folder, replace=True)
    finally:
        remove(part)


def _save_into(folder: Path, module: Any, half: dict[str, Tensor], config: dict[str, Any] | None) -> None:
    if config is None:
        module.save_config(folder)
        from huggingface_hub import save_torch_state_dict

        save_torch_state_dict(half, folder, filename_pattern="diffusion_pytorch_model{suffix}.safetensors",
                              max_shard_size=SHARD)  # fmt: skip
    else:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(half, folder / "model.safetensors")
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes them for their owner alone, but bundles are shared


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
    info = _read_info(folder) if (folder / "bundle.json").is_file() else BundleInfo(name=folder.parent.name)
    info = info.model_copy(update=changes)
    known = folder / "scheduler" / "scheduler_config.json"
    write_info(folder, info, scheduler or (read_json(known) if known.is_file() else SCHEDULER))
    return info


def _half(value: Tensor) -> Tensor:
    return value.detach().cpu().half().contiguous() if value.is_floating_point() else value.detach().cpu()


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


def _read_info(folder: Path) -> BundleInfo:
    path = folder / "bundle.json"
    facts = read_json(path)
    if facts.get("format", FORMAT) != FORMAT:
        raise FormatError(f"{path}: format {facts['format']}, this version reads {FORMAT}; upgrade ssl-tilegen")
    try:
        return BundleInfo.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        raise FormatError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def read_prior_info(folder: Path) -> PriorInfo:
    """``prior/prior.json`` of a bundle's folder."""
    path = folder / "prior" / "prior.json"
    facts = read_json(path)
    if facts.get("format", PRIOR_FORMAT) != PRIOR_FORMAT:
        raise FormatError(f"{path}: format {facts['format']}, this version reads {PRIOR_FORMAT}; upgrade ssl-tilegen")
    try:
        return PriorInfo.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        raise FormatError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def save_prior(module: Any, info: PriorInfo, folder: Path) -> None:
    """Put a prior into the bundle at ``folder``."""
    save_component(module, folder / "prior")
    write_text(folder / "prior" / "prior.json", info.model_dump_json(indent=2) + "\n")


def _component(folder: Path) -> nn.Module:
    config = read_json(folder / "config.json")
    return _filled(lambda: build_component(config), folder)


def _filled(build: Callable[[], nn.Module], folder: Path) -> nn.Module:
    """The network that ``build`` makes with the weights in ``folder``, strictly; nothing of it is allocated before the
    shapes are known to fit. FormatError where they do not, or where it cannot be built."""
    weights: dict[str, Tensor] = {}
    try:
        files = weight_files(folder)
        _check_shapes(build, files)
        for path in files:
            weights |= load_file(path)
        module = build()
        module.load_state_dict({key: value.float() if value.is_floating_point() else value
                                for key, value in weights.items()})  # fmt: skip
    except FormatError as error:
        raise error if str(folder) in str(error) else FormatError(f"{folder}: {error}") from None
    except (OSError, SafetensorError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{folder}: the weights do not fit the configuration ({reason})") from None
    return module


def _check_shapes(build: Callable[[], nn.Module], files: list[Path]) -> None:
    """ValueError where the files hold other tensors than the network has, by their headers alone."""
    found: dict[str, list[int]] = {}
    for path in files:
        with safe_open(path, "pt") as file:
            found |= {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    try:
        with torch.device("meta"):
            wanted = {name: list(tensor.shape) for name, tensor in build().state_dict().items()}
    except NotImplementedError:  # of a network that computes something while it is built
        return
    differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if differing:
        name = differing[0]
        raise ValueError(
            f"{len(differing)} tensors differ, the first {name}: {found.get(name)} in the file, {wanted.get(name)} in "
            "the network"
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component: those that its index names, or the only one. FormatError where there are
    none, or several and no index."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    found = sorted(folder.glob("*.safetensors"))
    if len(indices) > 1 or (not indices and len(found) > 1):
        raise FormatError(f"{folder}: several files of weights and no single index; keep those of one save")
    if not indices:
        if not found:
            raise FormatError(f"{folder}: no weights (*.safetensors); the bundle is incomplete")
        return found
    named = read_json(indices[0]).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise FormatError(f"{indices[0]}: has no weight_map; the bundle is broken")
    names = sorted({str(name) for name in named.values()})
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise FormatError(f"{indices[0]}: names {name!r}, which is no file in {folder}; the bundle is incomplete")
    return [folder / name for name in names]
