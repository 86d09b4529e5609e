"""Options of `augment`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from ssl_tilegen.config.options import Settings, exclusive, option
from ssl_tilegen.config.values import Shard


class AugmentSettings(Settings):
    """Options of `augment`."""

    out: Path | None = option(
        None, "The folder to make.", "--out", "-o", default_text="NAME-augmented beside the input"
    )
    per_image: int = option(1, "New pictures of each picture.", "--per-image", gt=0)
    strength: float | None = option(
        None,
        "Part of the noise schedule by which the source's own latents are repainted, in (0, 1): the lower, the nearer.",
        "--strength",
        default_text="all: painted from noise",
        gt=0,
        le=1,
    )
    mix: float | None = option(
        None,
        "How far embeddings move towards those of another picture of the same class and split, in (0, 1).",
        "--mix",
        default_text="not at all",
        gt=0,
        lt=1,
    )
    seed: int = option(0, "Same seed, same pictures.", "--seed", ge=0)
    layout: Literal["exact", "free"] = option(
        "exact",
        "Where things lie within a cell: exact, as in the source, or free, wherever the model puts them (more varied).",
        "--layout",
    )
    keep_best: int | None = option(
        None, "Keep the N of a picture's samples that are nearest to it, of those still in their class.", "--keep-best",
        gt=0,
    )  # fmt: skip
    min_cosine: float | None = option(
        None, "Drop samples that left their class, or whose cosine to their source is below this.", "--min-cosine",
        ge=-1, le=1,
    )  # fmt: skip
    originals: Literal["none", "copy", "link"] = option(
        "none", "Whether the originals lie beside the new pictures.", "--originals"
    )
    suffix: Literal[".png", ".jpg"] = option(".png", "Kind of file of new patches.", "--suffix")
    level: Literal["auto", "patch", "image"] = option(
        "auto",
        "patch: pictures are painted together as they are; image: each alone, from its grid; auto: patches up to "
        "1024 px.",
        "--level",
    )
    model: str = option("tiny", "Bundle to embed and paint with.", "--model")
    steps: int | None = option(None, "Sampling steps.", "--steps", default_text="the bundle's", gt=0)
    guidance: float | None = option(
        None, "W in uncond + W (cond - uncond); 1 is none.", "--guidance", default_text="the bundle's", ge=0
    )
    mpp: float | None = option(
        None, "Micrometres per pixel that large images are read at, as in `embed`.", "--mpp", gt=0
    )
    gsd: float | None = option(None, "Metres per pixel that large images are read at, as in `embed`.", "--gsd", gt=0)
    shard: Shard | None = option(
        None,
        "This process's shard of the work as I/N, I from 0.",
        "--shard",
        default_text="SLURM_ARRAY_TASK_ID/COUNT, else all",
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
