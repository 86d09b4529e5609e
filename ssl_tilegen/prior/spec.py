"""The metadata of a prior: ``prior/prior.json`` of a bundle."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ssl_tilegen.errors import InputError, SettingError
from ssl_tilegen.geometry import Resolution

FORMAT = 1
_NEAREST = 3
_NAME, _MOST = 500, 100_000

Byte = Annotated[int, Field(ge=0, le=255)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class LabelFacts(_Frozen):
    """Of one label: the bundle's domain that it belongs to, the resolution per pixel it was seen at, and the colour
    of its ground where there is nothing."""

    domain: str = Field(max_length=_NAME)
    resolution: tuple[Annotated[float, Field(gt=0)], Literal["um", "m"]]
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)


class TextFacts(_Frozen):
    """The text encoder: a name that transformers loads (or a built-in one), its vectors' length and its weights."""

    name: str = Field(max_length=_NAME)
    dim: int = Field(gt=0, le=_MOST)
    sha256: str = Field(max_length=_NAME)


class PriorSampling(_Frozen):
    """How grids are sampled unless something else is asked for."""

    steps: int = Field(default=16, ge=1, le=_MOST)
    update: str = Field(default="dpmpp_2m", max_length=_NAME)
    guidance: float = Field(default=2.0, ge=0, le=1000)
    guidance_interval: tuple[Share, Share] = (0.1, 0.9)


class PriorInfo(_Frozen):
    """``prior.json``. ``encoder_sha256`` names the tile encoder whose vectors it draws, ``stride_px`` the spacing of
    its cells in pixels."""

    format: int = FORMAT
    encoder_sha256: str = Field(max_length=_NAME)
    stride_px: int = Field(gt=0, le=1 << 16)
    labels: dict[Annotated[str, Field(min_length=1, max_length=_NAME)], LabelFacts] = Field(max_length=10_000)
    text: TextFacts | None = None
    vector_dim: int = Field(default=0, ge=0, le=_MOST)
    sampling: PriorSampling = PriorSampling()
    training: dict[str, Any] = Field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The labels in the order of the network's input."""
        return list(self.labels)

    @property
    def parts(self) -> dict[str, slice]:
        """Channels of label, text and vector in the condition of a cell."""
        first = len(self.labels)
        second = first + (self.text.dim if self.text else 0)
        last = second + self.vector_dim
        return {"label": slice(0, first), "text": slice(first, second), "vector": slice(second, last)}

    @property
    def condition_dim(self) -> int:
        """Channels of a cell's condition."""
        return self.parts["vector"].stop

    def label_named(self, name: str) -> str:
        """The label that a user means, in any case; SettingError with the known ones where there is none."""
        folded = {label.casefold(): label for label in self.labels}
        wanted = " ".join(name.split()).casefold()
        if wanted in folded:
            return folded[wanted]
        near = [folded[key] for key in _nearest(wanted, folded)]
        hint = f"; do you mean {' or '.join(near)}?" if near else ""
        raise SettingError(f"--label {name}: unknown to this model{hint} (known: {', '.join(self.labels) or 'none'})")

    def one_hot(self, label: str) -> np.ndarray:
        """The one-hot condition of a label: (labels,) float32."""
        return np.eye(len(self.labels), dtype=np.float32)[self.names.index(label)]

    def resolution_of(self, label: str) -> Resolution:
        """Resolution of the grids of a label."""
        return Resolution(*self.labels[label].resolution)

    def check_vector(self, shape: tuple[int, ...], name: str) -> None:
        """InputError unless ``shape`` is that of one vector that the prior takes."""
        if not self.vector_dim:
            raise InputError(f"--vector {name}: this prior was trained without vectors; give --label or --text")
        if shape != (self.vector_dim,):
            raise InputError(
                f"--vector {name}: has shape {'x'.join(map(str, shape))}, this prior takes {self.vector_dim} numbers"
            )


def _nearest(wanted: str, known: dict[str, str]) -> list[str]:
    """The keys of ``known`` closest to ``wanted``: those that hold one of its words, then those spelt alike."""
    words = {word for word in wanted.split() if len(word) > 2}
    sharing = [key for key in known if words & set(key.split())]
    alike = difflib.get_close_matches(wanted, known, n=_NEAREST, cutoff=0.4)
    return list(dict.fromkeys(alike + sharing))[:_NEAREST]
