"""Options of `augment`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from ssl_tilegen.config.options import Settings, exclusive, option
from ssl_tilegen.config.shared_options import (
    gsd_option,
    guidance_option,
    model_option,
    mpp_option,
    seed_option,
    shard_option,
    steps_option,
)
from ssl_tilegen.config.values import Shard

VARIATION, GATE, OUTPUT, SAMPLING = "Variation", "Quality gate", "Output", "Model and sampling"


class AugmentSettings(Settings):
    """Options of `augment`."""

    out: Path | None = option(
        None,
        "Folder to make. Beside the input by default.",
        "--out",
        "-o",
        default_text="NAME-augmented",
        metavar="DIR",
        panel=OUTPUT,
    )
    per_image: int = option(1, "New images per image.", "--per-image", panel=VARIATION, gt=0)
    strength: float | None = option(
        None,
        "Fraction of the noise schedule to repaint, 0 to 1. The lower, the nearer to the source.",
        "--strength",
        default_text="all",
        metavar="S",
        panel=VARIATION,
        gt=0,
        le=1,
    )
    mix: float | None = option(
        None,
        "Distance that cells move towards another image's. 0 to 1; the other image has the same class and split.",
        "--mix",
        default_text="0",
        metavar="M",
        panel=VARIATION,
        gt=0,
        lt=1,
    )
    seed: int = seed_option("Same seed, same images.", VARIATION)
    layout: Literal["exact", "free"] = option(
        "exact",
        "Layout within a cell. exact: as in the source; free: chosen by the model (more varied).",
        "--layout",
        panel=VARIATION,
    )
    keep_best: int | None = option(
        None,
        "Keep the N samples nearest to their image. Of those that are still in their class.",
        "--keep-best",
        panel=GATE,
        gt=0,
    )
    min_cosine: float | None = option(
        None,
        "Least cosine of a sample to its image. Samples below it, and those that left their class, are dropped.",
        "--min-cosine",
        panel=GATE,
        ge=-1,
        le=1,
    )
    originals: Literal["none", "copy", "link"] = option(
        "none", "Whether to put the originals beside the new images.", "--originals", panel=OUTPUT
    )
    suffix: Literal[".png", ".jpg"] = option(".png", "Format of new patches.", "--suffix", panel=OUTPUT)
    level: Literal["auto", "patch", "image"] = option(
        "auto",
        "Paint patches in stacks, or large images singly. patch: images as they are; image: each from its own "
        "grid; auto: patches up to 1024 px.",
        "--level",
        panel=VARIATION,
    )
    model: str = model_option("Bundle to embed and paint with.", SAMPLING)
    steps: int | None = steps_option(SAMPLING)
    guidance: float | None = guidance_option(SAMPLING)
    mpp: float | None = mpp_option("of large images. As in `embed`.", SAMPLING)
    gsd: float | None = gsd_option("of large images. As in `embed`.", SAMPLING)
    shard: Shard | None = shard_option(
        "Part of the work for this process. I from 0. By default the task of a Slurm array, else all.", OUTPUT
    )

    @property
    def gated(self) -> bool:
        """Whether samples that left their class are dropped."""
        return self.keep_best is not None or self.min_cosine is not None

    @model_validator(mode="after")
    def _fits(self) -> AugmentSettings:
        exclusive(self, "mpp", "gsd")
        if self.keep_best is not None and self.keep_best > self.per_image:
            raise ValueError(f"--keep-best {self.keep_best} of --per-image {self.per_image}: give a larger --per-image")
        return self
