"""Knobs that all stages of `train` share: where images come from, and how the run goes."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSettings(Strict):
    """One kind of training images: files that share a resolution and a weight."""

    paths: list[str]
    """Files, folders or globs; relative ones start at the configuration file's folder."""
    domain: str = "image"
    """Name under which the bundle records the resolution it was trained at."""
    weight: float = Field(1.0, gt=0)
    """Share of the windows, relative to the other sources."""
    mpp: float | None = Field(None, gt=0)
    """Micrometres per pixel to read at (and the resolution of images that do not say theirs); left out: the bundle's,
    and for an encoder the slide's own."""
    gsd: float | None = Field(None, gt=0)
    """Metres per pixel to read at; left out: the raster's own."""
    shrink: int = Field(1, ge=1)
    """Read this many times coarser than the resolution above (for soft cameras)."""
    turns: int = Field(8, ge=1, le=8)
    """Flips and rotations that are cached for the denoiser (1: as it is)."""
    exclude: list[str] = []
    """File names never to be read: what stays unseen for measuring."""
    role: Literal["train", "validation"] = "train"
    """Images of role validation are never trained on; the run's figures and pictures are made of them."""
    grids: str | None = None
    """Grids of embeddings beside the images that condition the denoiser, such as "{stem}.zarr" (from the image's folder
    on); left out: embeddings are computed on the way. Such images are not turned."""


class DataSettings(Strict):
    """Where training windows come from."""

    sources: list[SourceSettings]
    flat_keep: float = Field(0.15, ge=0, le=1)
    """Chance to keep a window that shows glass or flat ground only."""
    group: str | None = None
    """Regular expression whose match in a file's name says which group it belongs to (a patient, a field)."""
    validation_share: float = Field(0.0, ge=0, lt=1)
    """Share of the groups (of the files, without ``group``) of every source that is kept for validation."""
    stain: float = Field(0.0, ge=0)
    """Largest change of the haematoxylin, eosin and residual stains of an image (Tellez et al. 2018); 0.05 is light."""
    brightness: float = Field(0.0, ge=0, lt=1)
    """Largest relative change of brightness. Neither touches what an autoencoder is to reproduce."""
    memory_mib: int = Field(8192, gt=0)
    """Images are held whole while all of them together fit; the largest others are read window by window instead.
    Of every process: many on one machine hold as many times that."""


class RunSettings(Strict):
    """The optimiser and the run."""

    steps: int = Field(ge=0)
    """Optimiser steps in all; may be raised later to train on. 0: only what a stage fits in closed form."""
    batch: int = Field(32, gt=0)
    """Windows per step, over all processes together."""
    accumulate: int = Field(1, gt=0)
    """Parts in which a process computes its share of the batch, one after the other: less memory, the same gradient
    (but for encoders, whose losses compare the items of a part with each other)."""
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them (gradient checkpointing)."""
    sharding: Literal["none", "fsdp"] = "none"
    """With many processes: fsdp cuts weights, gradients and the optimiser's state over them (fully_shard); none copies
    them to each. Checkpoints are whole either way."""
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
    snapshots: int = Field(0, ge=0)
    """Snapshots, over the whole run, of two more averages of the weights, from which ``horizon`` is made afterwards.
    Each takes as much as two networks in float16; 0: none."""
    horizon: float | None = Field(None, gt=0.01, lt=0.25)
    """Keep the average of this width, as a share of the run, instead of ``ema``'s; may be set after the run."""
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

    @property
    def cut(self) -> bool:
        """Whether many processes are to cut the weights: by ``sharding``, or as `accelerate launch --use_fsdp` says."""
        return self.sharding == "fsdp" or os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")
