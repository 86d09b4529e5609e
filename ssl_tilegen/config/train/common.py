"""Options that all stages of `train` share: where images come from, and how the run goes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ssl_tilegen.config.options import Strict

LOCAL = "local-dir:"
"""Before the folder of an encoder, as timm has it."""
_MOST_COUNT, _MOST_NUMBER = 1 << 40, 1e12


class Bounded(Strict):
    """Settings whose numbers are none that only a slip of the keyboard makes: at most 2^40, fractions at most 1e12."""

    @field_validator("*")
    @classmethod
    def _not_huge(cls, value: Any) -> Any:
        most = _MOST_COUNT if isinstance(value, int) else _MOST_NUMBER if isinstance(value, float) else math.inf
        if isinstance(value, int | float) and abs(value) > most:
            raise ValueError(f"is too large; give at most {most:g}")
        return value


class SourceSettings(Bounded):
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
    turns: int = Field(8, ge=1, le=8)  # elements of D4: files and tables have the old word
    """Flips and rotations of an image that are cached for the denoiser (1: only as it is)."""
    exclude: list[str] = Field(default_factory=list)
    """File names never to be read: images kept for measuring."""
    role: Literal["train", "validation"] = "train"
    """Images of role validation are never trained on; the run's scores and samples are made of them."""
    grids: str | None = None
    """Grids of embeddings beside the images that condition the denoiser, such as "{stem}.zarr" (from the image's folder
    on); left out: embeddings are computed on the way. Such images are not flipped or rotated."""

    @model_validator(mode="after")
    def _one_unit(self) -> SourceSettings:
        if self.mpp and self.gsd:
            raise ValueError("give mpp or gsd, not both")
        return self


class DataSettings(Bounded):
    """Where training windows come from."""

    sources: list[SourceSettings]
    """The kinds of images, each a table [[data.sources]]."""
    flat_keep: float = Field(0.15, ge=0, le=1)
    """Probability to keep a window that shows background or flat ground only."""
    group: str | None = None
    """Regular expression whose match in a file's name is the group it belongs to (a patient, a field)."""
    validation_share: float = Field(0.0, ge=0, lt=1)
    """Share of the groups (of the files, without ``group``) of every source that is kept for validation."""
    stain: float = Field(0.0, ge=0)
    """Largest change of the haematoxylin, eosin and residual stains of an image (Tellez et al. 2018); 0.05 is light."""
    brightness: float = Field(0.0, ge=0, lt=1)
    """Largest relative change of brightness. An autoencoder's own images get neither change."""
    memory_mib: int = Field(8192, gt=0)
    """MiB of images held in memory, in every process: images are held whole while all of them together fit; the largest
    others are read window by window."""


class RunSettings(Bounded):
    """The optimiser and the run."""

    steps: int = Field(ge=0)
    """Optimiser steps in all; may be raised later to train on. 0: only the parts that a stage fits in closed form."""
    batch: int = Field(32, gt=0)
    """Windows per step, over all processes together."""
    accumulate: int = Field(1, gt=0)
    """Parts in which a process computes its share of the batch, one after the other: less memory, the same gradient
    (but for encoders, whose losses compare the items of a part with each other)."""
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them (gradient checkpointing)."""
    sharding: Literal["none", "fsdp"] = "none"
    """With many processes: fsdp shards weights, gradients and the optimiser's state over them (fully_shard); none
    copies them to each. Checkpoints are whole either way."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """AdamW, or Muon for matrices and kernels with AdamW for the rest."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    warmup: int = Field(100, ge=0)
    """Steps of linear warm-up of the learning rate."""
    cooldown: float = Field(0.3, ge=0, le=1)
    """Share of the steps, at the end, over which the rate falls to zero (Haegele et al. 2024)."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of matrices and kernels."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of AdamW's first moment."""
    beta2: float = Field(0.99, gt=0, lt=1)
    """Decay of AdamW's second moment."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the exponential moving average (EMA) of the weights; the bundle gets the average."""
    snapshots: int = Field(0, ge=0)
    """Snapshots, over the whole run, of two more averages of the weights, from which ``ema_width`` is made afterwards
    (Karras et al. 2024). Each takes as much disk as two networks in float16; 0: none."""
    ema_width: float | None = Field(None, gt=0.01, lt=0.25)
    """Export the average of this width, as a share of the run, instead of ``ema``'s; may be set after the run."""
    seed: int = 0
    """Seed of all random draws."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Autocast type; auto: bf16 where the chip has matrix units for it, no: float32."""
    compile: bool = False
    """Compile the network first (torch.compile; needs a C++ compiler)."""
    log_every: int = Field(20, gt=0)
    """Steps between lines of the log."""
    save_every: int = Field(500, gt=0)
    """Steps between checkpoints."""
    sample_every: int = Field(1000, gt=0)
    """Steps between sample images and validation scores."""
    readers: int = Field(2, gt=0)
    """Threads that prepare windows ahead of the step."""

    @property
    def cut(self) -> bool:
        """Whether many processes are to shard the weights: by ``sharding``, or as `accelerate launch --use_fsdp`
        asks."""
        return self.sharding == "fsdp" or os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")


class StageSettings(Bounded):
    """Options of a stage; every stage has a run."""

    bundle_keys: ClassVar[tuple[str, ...]] = ("bundle", "start_from", "feature_bundle")
    """Keys that name a bundle: a folder, or a built-in name."""
    file_keys: ClassVar[tuple[str, ...]] = ("table", "weights")
    """Keys that name a file or folder."""
    weights_keys: ClassVar[tuple[str, ...]] = ("backbone_weights",)
    """Keys that name a file of weights, or are ``pretrained`` or ``random``."""
    model_keys: ClassVar[tuple[str, ...]] = ("text_encoder",)
    """Keys that name a published model or its folder."""
    encoder_keys: ClassVar[tuple[str, ...]] = ("pretrained",)
    """Keys that name a published model, or its folder as ``local-dir:FOLDER``."""

    renamed: ClassVar[Mapping[str, str]] = {"run.horizon": "run.ema_width"}

    run: RunSettings

    def anchored(self, folder: Path) -> Self:
        """The same settings with relative paths resolved against ``folder``.

        What may be a name, such as that of a built-in bundle or of a published model, stays one where no such folder
        lies there.
        """
        files = [key for key in self.file_keys if getattr(self, key, None)]
        files += [key for key in self.weights_keys if getattr(self, key, "random") not in ("pretrained", "random")]
        updates = {key: str(folder / getattr(self, key)) for key in files}
        updates |= {key: _bundle(getattr(self, key), folder) for key in self.bundle_keys if getattr(self, key, None)}
        updates |= {key: _model(getattr(self, key), folder) for key in self.model_keys if getattr(self, key, None)}
        updates |= {key: _encoder(getattr(self, key), folder) for key in self.encoder_keys if getattr(self, key, None)}
        return self.model_copy(update=updates | self._anchored_tables(folder))

    def _anchored_tables(self, folder: Path) -> dict[str, Any]:
        """The tables of this stage that hold paths, with those resolved."""
        data = getattr(self, "data", None)
        if not isinstance(data, DataSettings):
            return {}
        sources = [s.model_copy(update={"paths": [str(folder / path) for path in s.paths]}) for s in data.sources]
        return {"data": data.model_copy(update={"sources": sources})}


def _bundle(name: str, folder: Path) -> str:
    is_name = Path(name).name == name or name.startswith("hf-hub:")
    return name if is_name and not (folder / name).is_dir() else str((folder / name).absolute())


def _model(name: str, folder: Path) -> str:
    return str((folder / name).absolute()) if (folder / name).is_dir() else name


def _encoder(name: str, folder: Path) -> str:
    place = name.removeprefix(LOCAL)
    return name if place == name else f"{LOCAL}{_model(place, folder)}"
