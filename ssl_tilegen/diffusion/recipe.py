"""Recipes: how the authors of a published model sample it, to the letter, so that "equal" can be shown.

A bundle brings its recipes by name; ``generate --recipe NAME`` takes one instead of our own fast sampling. A recipe
fixes all that changes the result: steps, times and their noise levels; guidance; the step rule and its fresh noise; the
interpolation of cells; the places of windows and their merging; the decoding of the canvas.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """A way of sampling that belongs to a bundle.

    Args:
        steps: Steps from pure noise to the result.
        guidance: W in uncond + W (cond - uncond), at every step.
        update: Step rule, a name of ``diffusion.steppers``.
        spacing: Which training steps are visited, as diffusers' ``timestep_spacing``.
        steps_offset: Added to the index of each but the last of these, as diffusers' of ``leading``.
        time_offset: Added to the index of a noise level to give the time input of the network.
        last_alpha_bar: Index of the noise level that the last step goes to; None for clean.
        hop_lat: Distance of neighbouring windows, whose clean estimates are averaged with equal weights.
        interpolation: Cells between windows' centres by slerp of their ``directions`` with lengths interpolated, or of
            the ``raw`` vectors.
        decode_hop_lat: Distance of neighbouring windows of decoding; 0 decodes as usual.
        decode_sigma: Their Gaussian weights are exp(-(x^2 + y^2) / sigma^2) over [-1, 1].
        source: Where the recipe was read.
    """

    model_config = ConfigDict(frozen=True)

    steps: int = Field(gt=0)
    guidance: float = Field(ge=0)
    update: str = "ddim"
    spacing: Literal["leading", "trailing", "linspace"] = "trailing"
    steps_offset: int = 0
    time_offset: int = 0
    last_alpha_bar: int | None = None
    hop_lat: int = Field(gt=0)
    interpolation: Literal["directions", "raw"] = "directions"
    decode_hop_lat: int = 0
    decode_sigma: float = 0.8
    source: str = ""

    def scheduler(self, config: dict[str, Any]) -> dict[str, Any]:
        """The bundle's scheduler with the times of this recipe."""
        return config | {"timestep_spacing": self.spacing, "steps_offset": self.steps_offset,
                         "time_offset": self.time_offset, "last_alpha_bar": self.last_alpha_bar}  # fmt: skip


PAPER = Recipe(
    steps=50,
    guidance=4.0,  # its "guidance 3" is (1 + 3) cond - 3 uncond
    update="ddim_beta",
    time_offset=1,
    hop_lat=16,
    interpolation="raw",
    decode_hop_lat=16,
    source="Large-Image-Diffusion, notebooks/utils.py: get_panorama, vis_panorama_window_weighted",
)
PATCHES = Recipe(
    steps=50,
    guidance=2.0,
    update="plms",
    spacing="leading",
    steps_offset=1,
    last_alpha_bar=0,
    hop_lat=64,
    decode_hop_lat=64,
    source="Large-Image-Diffusion, notebooks/brca_patch_synthesis.ipynb; ZoomLDM, notebooks/sample_patches_brca.ipynb",
)
"""Patches of 64 latents side by side, each painted and decoded alone."""
PIXCELL = Recipe(
    steps=20,
    guidance=3.0,  # its "guidance 2" is (1 + 2) cond - 2 uncond
    last_alpha_bar=0,
    hop_lat=64,
    decode_hop_lat=64,
    source="PixCell, tools/sample_4k.py",
)
