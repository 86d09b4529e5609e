"""Every knob of `ssl-tilegen train`, with its unit, default and meaning. Unknown keys are errors."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ssl_tilegen.errors import InputError, SettingError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSettings(_Strict):
    """One kind of training images: files that share a resolution and a weight."""

    paths: list[str]
    """Files, folders or globs; relative ones start at the configuration file's folder."""
    domain: str = "image"
    """Name under which the bundle records the resolution it was trained at."""
    weight: float = Field(1.0, gt=0)
    """Share of the windows, relative to the other sources."""
    mpp: float | None = Field(None, gt=0)
    """Micrometres per pixel to read at (and the resolution of pictures that carry none)."""
    gsd: float | None = Field(None, gt=0)
    """Metres per pixel to read at; left out: the raster's own."""
    shrink: int = Field(1, ge=1)
    """Read this many times coarser than the resolution above (for soft cameras)."""
    turns: int = Field(8, ge=1, le=8)
    """Flips and rotations that are cached for the denoiser (1: as it is)."""
    exclude: list[str] = []
    """File names never to be read: what stays unseen for measuring."""


class DataSettings(_Strict):
    """Where training windows come from."""

    sources: list[SourceSettings]
    flat_keep: float = Field(0.15, ge=0, le=1)
    """Chance to keep a window that shows glass or flat ground only."""


class RunSettings(_Strict):
    """The optimiser and the run."""

    steps: int = Field(ge=0)
    """Optimiser steps in all; may be raised later to train on. 0: only what a stage fits in closed form."""
    batch: int = Field(32, gt=0)
    """Windows per step, over all processes together."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    warmup: int = Field(100, ge=0)
    """Steps of linear warm-up."""
    cooldown: float = Field(0.3, ge=0, le=1)
    """Share of the steps, at the end, over which the rate falls to zero (Haegele et al. 2024)."""
    weight_decay: float = Field(0.01, ge=0)
    beta2: float = Field(0.99, gt=0, lt=1)
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the moving average of the weights; the average is what is kept."""
    seed: int = 0
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Autocast type; auto: bf16 where the chip has matrix units for it."""
    compile: bool = False
    """Fuse the network's operations first (torch.compile; needs a C++ compiler); twice as fast on CPU."""
    log_every: int = Field(20, gt=0)
    save_every: int = Field(500, gt=0)
    sample_every: int = Field(1000, gt=0)
    readers: int = Field(2, gt=0)
    """Threads that prepare windows ahead of the step."""


class EncoderSettings(_Strict):
    """Self-supervised encoder: a timm ViT trained by joint embedding of crops."""

    data: DataSettings
    run: RunSettings
    tile_px: int = Field(64, gt=0)
    arch: str = "vit_tiny_patch16_224"
    """Any timm ViT."""
    arch_args: dict[str, Any] = {}
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
    """Weight of the isotropic Gaussian regulariser (Balestriero & LeCun 2025)."""

    @model_validator(mode="after")
    def _room_for_content(self) -> EncoderSettings:
        if not self.layout_dim < self.dim <= self.features + self.layout_dim:
            raise ValueError(
                f"dim {self.dim}: must hold layout_dim {self.layout_dim} and at most features {self.features} more"
            )
        return self


class AutoencoderSettings(_Strict):
    """KL autoencoder."""

    data: DataSettings
    run: RunSettings
    window_px: int = Field(128, gt=0)
    net: dict[str, Any] = {}
    """Arguments of the network's class."""
    gradient_weight: float = Field(0.5, ge=0)
    kl_weight: float = Field(1e-4, ge=0)


class DenoiserSettings(_Strict):
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
    net: dict[str, Any] = {}
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


STAGES: dict[str, type[_Strict]] = {
    "encoder": EncoderSettings,
    "autoencoder": AutoencoderSettings,
    "denoiser": DenoiserSettings,
}


def load_settings(stage: str, path: Path, overrides: list[str] | None = None) -> Any:
    """The settings of a stage from a TOML file, with ``a.b=value`` overrides (TOML values) on top.

    Relative source paths are resolved against the file's folder. Raises SettingError or InputError with one line.
    """
    if stage not in STAGES:
        raise SettingError(f"unknown stage '{stage}': use one of {', '.join(STAGES)}")
    try:
        tree = tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read the configuration {path}: {error.strerror}; check the path") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path} is not valid TOML: {error}") from None
    for override in overrides or []:
        _apply(tree, override)
    try:
        settings = STAGES[stage].model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SettingError(f"{path}: '{place}': {first['msg']} (got {first.get('input')!r})") from None
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
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def _anchored(settings: Any, folder: Path) -> Any:
    sources = [
        source.model_copy(update={"paths": [str(folder / path) for path in source.paths]})
        for source in settings.data.sources
    ]
    updates: dict[str, Any] = {"data": settings.data.model_copy(update={"sources": sources})}
    for name in ("bundle", "start_from"):
        if getattr(settings, name, None):
            updates[name] = str(folder / getattr(settings, name))
    return settings.model_copy(update=updates)
