"""What is known of a published encoder: how to build, feed and pool it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ssl_tilegen.encoders.base import IMAGENET, Normalisation


@dataclass(frozen=True)
class EncoderCard:
    """How to build, feed and pool one encoder.

    ``architecture`` and ``args`` go to ``timm.create_model``; ``source`` is where the weights are: a Hugging Face
    repository that timm reads or a timm tag; with ``layout`` 'hub' or 'transformers' the file ``file`` of a repository,
    by the names of its authors or of transformers; with 'file' a page, and the user brings the file by --weights.
    ``position``: how the table of positions is stretched to ``tile_px`` (see `positions`); '' is timm's own way.
    ``licence``: of the weights; those with "NC" or "non-commercial" in them forbid commercial use.
    A network that timm does not have is named by the function that makes it: ``"package.module:function"``.
    """

    name: str
    source: str
    architecture: str
    dim: int
    licence: str
    args: dict[str, Any] = field(default_factory=dict)
    tile_px: int = 224
    mpp: float | None = 0.5
    normalisation: Normalisation = IMAGENET
    pooling: str = "cls"
    layout: str = "timm"
    gated: bool = False
    file: str = "model.safetensors"
    position: str = ""

    @property
    def is_own(self) -> bool:
        """Whether ``architecture`` names a function instead of a model of timm."""
        return ":" in self.architecture
