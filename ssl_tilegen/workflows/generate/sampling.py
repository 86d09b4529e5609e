"""How an image is sampled: the user's options, the bundle's own for the rest, and the place on the canvas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.diffusion.recipe import Recipe
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.errors import SettingError
from ssl_tilegen.workflows.generate.placement import Placement

LOOSE_ABOVE = 0.5
"""A loose layout is given while the noise is at least this part of the network's input."""
_EDGE_LAT = 8
_CALL_LAT = {"cpu": 300_000, "cuda": 1_500_000}


def sampling(settings: GenerateSettings, bundle: ModelBundle, placement: Placement) -> SynthesisSettings:
    """The settings given, and the bundle's for the others."""
    recipe = _recipe(settings, bundle)
    layout = settings.layout if settings.layout != "auto" else _layout(placement)
    chosen = ("steps", "update", "guidance", "guidance_interval")
    how = replace(
        bundle_sampling(bundle, **{name: getattr(settings, name) for name in chosen}),
        merge=settings.merge,
        overlap=settings.overlap,
        layout=layout != "free",
        layout_above=LOOSE_ABOVE if layout == "loose" else 0.0,
        seed=settings.seed,
        canvas_mib=settings.canvas_mib,
    )
    how = placed(how, bundle, placement, batch=settings.batch, neighbours=settings.region is not None)
    return by_recipe(how, recipe) if recipe else how


def bundle_sampling(bundle: ModelBundle, **asked: Any) -> SynthesisSettings:
    """The bundle's sampling, but for options that are ``asked`` and not None, such as ``steps`` and ``guidance``."""
    own = bundle.info.sampling
    names = ("steps", "times", "update", "guidance", "guidance_interval")
    given = {name: value for name, value in asked.items() if value is not None}
    return SynthesisSettings(**{name: getattr(own, name) for name in names} | given)


def placed(
    how: SynthesisSettings,
    bundle: ModelBundle,
    placement: Placement,
    *,
    batch: int | None = None,
    neighbours: bool = False,
) -> SynthesisSettings:
    """``how`` for an image at its place on the canvas; ``neighbours``: other runs make the images beside it."""
    call = batch * bundle.window_lat**2 if batch else _CALL_LAT.get(bundle.device.type, _CALL_LAT["cpu"])
    return replace(
        how,
        bleed_lat=_bleed_lat(bundle, neighbours=neighbours),
        edge_lat=_EDGE_LAT,
        extent=placement.canvas_lat(bundle.factor),
        batch=batch or 16,
        call_lat=max(1, call),
    )


def by_recipe(how: SynthesisSettings, recipe: Recipe) -> SynthesisSettings:
    """``how`` as the authors of the model sample."""
    return replace(
        how,
        steps=recipe.steps,
        times=(),
        update=recipe.update,
        guidance=recipe.guidance,
        guidance_interval=(0.0, 1.0),
        merge="average",
        feather=False,
        bleed_lat=0,
        edge_lat=0,
        recipe=recipe,
    )


def _recipe(settings: GenerateSettings, bundle: ModelBundle) -> Recipe | None:
    """The bundle's recipe of the name asked for. SettingError where it has none of that name."""
    if settings.recipe is None:
        return None
    if settings.recipe not in bundle.info.recipes:
        known = ", ".join(bundle.info.recipes) or "none"
        raise SettingError(f"--recipe {settings.recipe}: {bundle.info.name} brings no such recipe; it has: {known}")
    return bundle.info.recipes[settings.recipe]


def _layout(placement: Placement) -> str:
    """How closely the layout is followed unless asked otherwise: exactly, but loosely where it is stretched, as it is a
    blurred one then."""
    return "exact" if placement.is_true_to_scale else "loose"


def _bleed_lat(bundle: ModelBundle, *, neighbours: bool) -> int:
    """Latents that are painted around an image and thrown away.

    Where another run makes the neighbour, as many as the model sees, so that both runs see the same there. Else enough
    for the edges to look like the inside.
    """
    if not neighbours:
        return _EDGE_LAT
    return max(_EDGE_LAT, bundle.decoder_halo_lat or 0, bundle.halo_lat or bundle.window_lat // 2)
