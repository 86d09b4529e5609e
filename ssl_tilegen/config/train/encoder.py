"""Options of the stage `encoder`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ssl_tilegen.config.options import Strict
from ssl_tilegen.config.train.common import DataSettings, RunSettings, StageSettings


class ProbeSettings(Strict):
    """Labelled folders, one subfolder per class, on which the encoder is measured: linear probe, nearest neighbours."""

    train: str
    """Folder of class folders that the probes learn from."""
    test: str
    """Folder of class folders that they are scored on."""
    per_class: int = Field(200, gt=0)
    """Images of each class that are used at most, of each folder."""


class EncoderSettings(StageSettings):
    """Train a tile encoder without labels, or take a pretrained one as it is."""

    data: DataSettings
    """Where training windows come from."""
    run: RunSettings
    """The optimiser and the run."""
    pretrained: str | None = None
    """A pretrained encoder that is used as it is: a name of `models list`, hf-hub:ORG/NAME, local-dir:PATH or a timm
    name. Nothing is trained then. (``--encoder`` of the command line.)"""
    weights: str | None = None
    """Weights of ``pretrained`` from a local file or folder."""
    loss: Literal["lejepa", "dino"] = "lejepa"
    """Joint embedding with a Gaussian regulariser (needs no teacher), or self-distillation from a moving average
    (DINO), with masked patches for ViTs (iBOT)."""
    tile_px: int = Field(64, gt=0)
    """Side of a tile, the area of one embedding, in pixels."""
    arch: str = "vit_tiny_patch16_224"
    """Name of a timm network, such as a ViT or a ConvNeXt."""
    arch_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of timm.create_model (depth, embed_dim, patch_size ...)."""
    start_from: str | None = None
    """Bundle whose encoder's network is the start (warm start)."""
    start_weights: str | None = None
    """Packaged ImageNet weights that the network starts from: efficientnet-lite0 to -lite4, for an ``arch`` of the same
    name in timm (tf_efficientnet_lite0 ...). With run.steps = 0 only the embedding's two parts are fitted."""
    features: int = Field(192, gt=0)
    """Length of the network's own output, which the loss sees."""
    dim: int = Field(128, gt=0)
    """Length of the embedding: the most reproducible directions of the features, and the layout after them."""
    layout_dim: int = Field(64, ge=0)
    """How many numbers of the embedding are a coarse image of the tile; 0: none, the features are the embedding."""
    layout_px: int = Field(16, gt=0, le=1024)
    """Side of that image in pixels, before its principal components are taken."""
    fit_tiles: int = Field(12_000, gt=1, le=10_000_000)
    """Pairs of tiles that the embedding's two parts are fitted to after training."""
    stage_weights: list[Annotated[float, Field(gt=0, le=1e3)]] = Field(default_factory=list)
    """With arch_args.features_only: how much the features of each stage count in the content, from the finest: their
    mean deviation. Empty: the features as they are."""
    global_views: int = Field(2, ge=2, le=64)
    """Large crops of a tile that are compared."""
    local_views: int = Field(4, ge=0, le=256)
    """Small crops of a tile that are compared with the large ones."""
    local_px: int = Field(32, gt=0, le=4096)
    """Side in pixels that small crops are resized to."""
    global_scale: tuple[float, float] = (0.65, 1.0)
    """Smallest and largest side of a large crop, as a share of the tile."""
    local_scale: tuple[float, float] = (0.35, 0.6)
    """Smallest and largest side of a small crop, as a share of the tile."""
    jitter: float = Field(0.06, ge=0, le=10)
    """Largest change of brightness, contrast and colour balance between the views."""
    gaussian_weight: float = Field(0.05, gt=0)
    """lejepa: weight of the isotropic Gaussian regulariser (Balestriero & LeCun 2025)."""
    prototypes: int = Field(1024, gt=1)
    """dino: how many prototypes the distributions range over."""
    head_width: int = Field(512, gt=0)
    """dino: width of the projection head."""
    teacher_decay: float = Field(0.996, ge=0, lt=1)
    """dino: decay of the teacher, a moving average of the student."""
    masked: float = Field(0.3, ge=0, lt=1)
    """dino: share of the patches of a large crop that the student does not see and must predict (iBOT); ViTs only."""
    probe: ProbeSettings | None = None
    """Labelled images on which the encoder is scored with every sample."""

    @model_validator(mode="after")
    def _room_for_content(self) -> EncoderSettings:
        if not self.layout_dim < self.dim <= self.features + self.layout_dim:
            raise ValueError(
                f"dim {self.dim}: must hold layout_dim {self.layout_dim} and at most features {self.features} more"
            )
        stages = self.arch_args.get("out_indices", ())
        if self.stage_weights and len(self.stage_weights) != len(stages):
            raise ValueError(
                f"stage_weights: {len(self.stage_weights)} for {len(stages)} stages; give one for each of "
                "arch_args.out_indices"
            )
        if self.loss == "dino" and self.run.cut:
            raise ValueError(
                "run.sharding (or ACCELERATE_USE_FSDP): DINO's teacher moves in the step and cannot be cut; use none, "
                "or lejepa"
            )
        return self

    def _anchored_tables(self, folder: Path) -> dict[str, Any]:
        probe = self.probe
        if probe is None:
            return super()._anchored_tables(folder)
        paths = {name: str(folder / getattr(probe, name)) for name in ("train", "test")}
        return super()._anchored_tables(folder) | {"probe": probe.model_copy(update=paths)}
