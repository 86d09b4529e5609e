"""Options of the stage `denoiser`, and those that it shares with `painter`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ssl_tilegen.config.train.common import DataSettings, RunSettings, StageSettings


class WindowSettings(StageSettings):
    """Windows of images, and the conditions that a denoiser is trained on them with."""

    data: DataSettings
    """Where training windows come from."""
    run: RunSettings
    """The optimiser and the run."""
    bundle: str | None = None
    """Bundle whose encoder and autoencoder are used; left out: the one that the other stages made in ``--out``."""
    start_from: str | None = None
    """Bundle whose denoiser's weights are the start (warm start). What is left out of ``[net]``, ``window_lat``,
    ``target`` and ``scheduler`` is taken from it too. Where ``[net]`` asks for larger ``widths`` or more blocks, a
    local network begins as the one it starts from."""
    start_statistics: bool = True
    """With ``start_from``: take the statistics of latents and embeddings from the bundle too, where it has the same
    autoencoder (and encoder); false: measure them on the images."""
    window_lat: int = Field(24, gt=0)
    """Side of the training window in latents."""
    margin_lat: int = Field(2, ge=0)
    """Border of the window that the loss leaves out."""
    net: dict[str, Any] = Field(default_factory=dict)
    """``_class_name`` (FieldUNet, WindowDiT, or a conditional U-Net of diffusers) and the arguments of the class."""
    target: Literal["flow", "v", "epsilon"] = "flow"
    """The prediction of the network: noise - clean, alpha noise - sigma clean, or the noise."""
    scheduler: dict[str, Any] = Field(default_factory=dict)
    """Noise schedule of v and epsilon: keys of diffusers' scheduler configurations."""
    l2_condition: bool | None = None
    """Embeddings at unit length; left out: yes for networks that see one window, no for local ones."""
    drop: float = Field(0.1, ge=0, lt=1)
    """Probability that the condition is dropped, for classifier-free guidance."""
    drop_layout: float = Field(0.2, ge=0, lt=1)
    """Probability that only its layout is dropped, so that images can be painted with a free layout."""
    embedding_noise: float = Field(0.05, ge=0)
    """Gaussian noise on the embeddings, in units of their standard deviation."""
    colour_rounds: int = Field(0, ge=0)
    """Rounds of smoothing below which the colours of the clean estimate are those that the layout tells; 0: the network
    makes all colours itself. It is meant for painters."""
    offsets: int = Field(2, gt=0)
    """Lattice offsets per cached image at which cells are embedded: windows fall anywhere between the cells."""
    latent_gain: float = Field(0.5, ge=0, le=1)
    """0: every latent channel at unit deviation; 1: in proportion to the effect of a channel on the pixels."""

    @model_validator(mode="after")
    def _fits(self) -> WindowSettings:
        if self.target == "flow" and self.scheduler:
            raise ValueError("scheduler: flow models have no schedule; leave it out or set target to v or epsilon")
        if self.target == "epsilon" and self.scheduler.get("rescale_betas_zero_snr"):
            raise ValueError("scheduler.rescale_betas_zero_snr: noise prediction cannot start at pure noise; use v")
        return self


class DenoiserSettings(WindowSettings):
    """Train a diffusion model on latents, conditioned on the grid of embeddings."""

    renamed: ClassVar = {**StageSettings.renamed, "times": "time_distribution"}

    weighting: Literal["none", "min_snr"] = "none"
    """Weight of the times in the loss (Hang et al. 2023)."""
    min_snr_gamma: float = Field(5.0, gt=0)
    """min_snr: the signal-to-noise ratio above which times count alike."""
    flat_weight: float = Field(0.0, ge=0, le=1)
    """How much more an error on flat ground counts than the same error amid texture; 0: the same, 1: in proportion to
    the detail around it (and less so the noisier the time). An eye that forgives a misplaced nucleus does not forgive
    grain on pale stroma. Means are over the part of a batch that is computed at once."""
    time_distribution: Literal["logit_normal", "uniform"] | None = None
    """Distribution of training times; left out: logit_normal for flow, uniform for v and epsilon."""
    time_mean: float = 0.0
    """Centre of the logit-normal distribution of training times (Esser et al. 2024); larger: noisier."""
    time_spread: float = Field(1.0, gt=0)
    """Standard deviation of that distribution, before the logistic function."""
