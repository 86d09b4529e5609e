"""All that `generate` settles before it paints: grid and bundle that fit, the place, the field, the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.diffusion.field import ConditionField, fill_invalid
from ssl_tilegen.diffusion.recipe import Recipe
from ssl_tilegen.diffusion.synthesis import Plan, SynthesisSettings
from ssl_tilegen.encoders.bundle_encoder import encoder_of, is_made_by_encoder_of
from ssl_tilegen.errors import FormatError, InputError, SettingError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.grids import PRIOR_SAMPLED, EmbeddingGrid, GridData, GridSpec, Validity
from ssl_tilegen.io.writers.format import ImageSpec
from ssl_tilegen.system.budget import check_memory, check_pixels
from ssl_tilegen.workflows.generate.inpainting import Inpainting, check_lossless, open_inpainting
from ssl_tilegen.workflows.generate.placement import Placement, place
from ssl_tilegen.workflows.generate.provenance import provenance

LOOSE_ABOVE = 0.85
"""A loose layout is given while the noise is at least this part of what the network sees."""
_EDGE_LAT = 8
_CELL_BYTES, _VALUE_BYTES = 40, 14  # of a grid laid over a canvas: codes and distances, embeddings and their copies
_TRUE_TO_SCALE = 1.25
_CALL_LAT = {"cpu": 300_000, "cuda": 1_500_000}
_CALL_BYTES_PER_LATENT = 6_000  # FieldUNet in float32 on a CPU: 3,700 for widths 64, 192, 320


@dataclass(frozen=True)
class Repaint:
    """``strength`` of an existing image is painted anew; ``latents(bundle, window)`` are its clean latents."""

    strength: float
    latents: Callable[[ModelBundle, Window], Tensor]

    def of(self, job: PaintJob) -> PaintJob:
        """``job`` as a repainting, which its output says."""
        provenance = {**job.image.provenance, "strength": self.strength}
        return replace(job, image=replace(job.image, provenance=provenance), repaint=self)


@dataclass(frozen=True, eq=False)
class PaintJob:
    """One image to paint. ``region_lat`` are the latents under the placement's window; with ``kept`` an image goes
    on all around it."""

    out: Path
    bundle: ModelBundle
    placement: Placement
    region_lat: Window
    field: ConditionField
    background: Tensor | None
    how: SynthesisSettings
    image: ImageSpec
    remarks: tuple[str, ...]
    inpainting: Inpainting | None = None
    repaint: Repaint | None = None

    def memory_bytes(self, planned: Plan) -> int:
        """The canvases in memory and one network call, roughly."""
        call = min(self.how.call_lat, planned.canvas.size.area) * _CALL_BYTES_PER_LATENT
        return call + (0 if planned.mapped else planned.canvas_bytes)


def prepare(settings: GenerateSettings, bundle: ModelBundle, planned: EmbeddingGrid | None = None) -> PaintJob:
    """Open and check all that the settings name, to be painted by ``bundle``. Writes nothing.

    A dry run reads no embeddings, so that large ones are planned in little memory; ``planned`` is its grid where there
    is none yet.
    """
    assert settings.grid is not None  # a prior's grid is sampled before
    grid = planned or EmbeddingGrid.open(settings.grid)
    size, view = settings.size or grid.spec.lattice.size, grid.spec.lattice.size
    check_pixels(size.rows, size.cols, "--size" if settings.size else str(grid.path))
    check_pixels(view.rows, view.cols, str(grid.path))
    _check_encoder(grid, bundle)
    cells = _usable_cells(grid, codes_only=settings.dry_run)
    placement = place(
        grid.spec, cells, size=settings.size or _size_asked(grid.spec), region=settings.region, fit=settings.fit,
        least_px=bundle.info.window_px,
    )  # fmt: skip
    how = sampling(settings, bundle, placement, is_sampled=grid.spec.source.kind == PRIOR_SAMPLED)
    inpainting = open_inpainting(settings.keep, placement.window, grid.spec) if settings.keep else None
    facts = {} if settings.dry_run else provenance(bundle, grid, cells, placement, how, inpainting)
    field = condition_field(grid.spec, cells, bundle, placement, codes_only=settings.dry_run)
    field = replace(field, raw=how.recipe is not None and how.recipe.interpolation == "raw")
    out = settings.out or default_output(grid)
    if inpainting:
        check_lossless(out)
    return PaintJob(
        out=out,
        bundle=bundle,
        placement=placement,
        region_lat=placement.window_lat(bundle.factor),
        field=field,
        background=background_latent(bundle, grid.spec.background) if field.blank.any() else None,
        how=how,
        image=_image(grid.spec, placement, facts, inpainting, sharded=not settings.unsharded),
        remarks=tuple(_remarks(grid.spec, bundle)),
        inpainting=inpainting,
    )


def default_output(grid: EmbeddingGrid) -> Path:
    """NAME-synthetic beside the grid (never the source's own name): a map where the grid has a CRS, else OME-TIFF."""
    suffix = ".tif" if grid.spec.crs else ".ome.tif"
    path = grid.path.absolute()
    return path.with_name(f"{path.name.removesuffix('.zarr')}-synthetic{suffix}")


def _check_encoder(grid: EmbeddingGrid, bundle: ModelBundle) -> None:
    """FormatError where the denoiser does not know what the grid's vectors mean."""
    made, wanted = grid.spec.encoder, bundle.info.encoder
    if not is_made_by_encoder_of(bundle, made) or grid.dim != wanted.dim:
        theirs = bundle.component_hash("encoder") if bundle.has("encoder") else "unknown"
        raise FormatError(
            f"{grid.path}: made by encoder {made.id} ({grid.dim}-d, weights {made.weights_sha256[:8]}), but the model "
            f"{bundle.info.name} paints from {wanted.id} ({wanted.dim}-d, weights {theirs[:8]}); embed "
            "the source with this --model"
        )


def _usable_cells(grid: EmbeddingGrid, *, codes_only: bool) -> GridData:
    """The cells; ``codes_only``: with one zero for each embedding, which takes no memory."""
    values = 0 if codes_only else grid.dim
    check_memory(grid.shape.area * (_CELL_BYTES + _VALUE_BYTES * values), f"{grid.path}: {grid.shape} cells")
    cells = grid.read_codes() if codes_only else grid.read()
    if not np.isin(cells.valid, (Validity.OK, Validity.BACKGROUND)).any():
        raise InputError(f"{grid.path}: no cell shows anything; embed a source with readable content")
    if not np.isfinite(cells.embedding).all():
        raise FormatError(f"{grid.path}: embeddings that are not finite numbers; embed the source again")
    return cells


def _size_asked(spec: GridSpec) -> Size | None:
    """Of a sampled grid: the size that it was sampled for, where whole cells are more."""
    source = spec.source
    return source.size_px if source.kind == PRIOR_SAMPLED and source.size_px != spec.lattice.size else None


def sampling(
    settings: GenerateSettings, bundle: ModelBundle, placement: Placement, *, is_sampled: bool
) -> SynthesisSettings:
    """The settings given, and the bundle's for the others; ``is_sampled``: a prior sampled the grid."""
    own, window, recipe = bundle.info.sampling, bundle.window_lat, _recipe(settings, bundle)
    chosen: dict[str, Any] = {
        name: getattr(own, name) if getattr(settings, name) is None else getattr(settings, name)
        for name in ("steps", "update", "guidance", "guidance_interval")
    }
    if recipe:
        chosen = {"steps": recipe.steps, "update": recipe.update, "guidance": recipe.guidance}
        chosen |= {"guidance_interval": (0.0, 1.0), "feather": False}
    layout = settings.layout if settings.layout != "auto" else _layout(placement, is_sampled)
    call = settings.batch * window**2 if settings.batch else _CALL_LAT.get(bundle.device.type, _CALL_LAT["cpu"])
    return SynthesisSettings(
        **chosen,
        times=() if recipe else own.times,
        merge="average" if recipe else settings.merge,
        overlap=settings.overlap,
        layout=layout != "free",
        layout_above=LOOSE_ABOVE if layout == "loose" else 0.0,
        seed=settings.seed,
        bleed_lat=0 if recipe else _bleed_lat(bundle, neighbours=settings.region is not None),
        edge_lat=0 if recipe else _EDGE_LAT,
        extent=placement.canvas_lat(bundle.factor),
        batch=settings.batch or 16,
        call_lat=max(1, call),
        canvas_mib=settings.canvas_mib,
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


def _layout(placement: Placement, is_sampled: bool) -> str:
    """How closely the layout is followed unless asked otherwise: free where what the cells show no longer has about
    its own size, loose where a prior sampled it, which knows what lies somewhere better than where exactly."""
    if not all(1 / _TRUE_TO_SCALE <= ratio <= _TRUE_TO_SCALE for ratio in placement.stretch):
        return "free"
    return "loose" if is_sampled else "exact"


def _bleed_lat(bundle: ModelBundle, *, neighbours: bool) -> int:
    """Margin painted around an image and discarded: where another run makes the neighbour, as far as the model
    sees, so that both know the same there; else enough for the edges to look like the inside."""
    least = max(_EDGE_LAT, bundle.decoder_halo_lat or 0)
    return max(least, bundle.halo_lat or bundle.window_lat // 2) if neighbours else least


def condition_field(
    spec: GridSpec, cells: GridData, bundle: ModelBundle, placement: Placement, *, codes_only: bool = False
) -> ConditionField:
    """The grid laid over the canvas. Cells without pixels become their nearest cell's like, background or not."""
    embedding = cells.embedding.astype(np.float32)
    background = cells.valid == Validity.BACKGROUND
    bare = background & ~cells.embedding.any(axis=-1)  # `embed --tissue-only` left these out
    if bare.any() and not codes_only:
        embedding[bare] = _plain_embedding(bundle, spec)
    known = background | (cells.valid == Validity.OK)
    blank = fill_invalid(background[..., None].astype(np.float32), known)[..., 0] > 0
    lattice = spec.lattice
    return ConditionField.of_grid(
        embedding,
        tile_px=lattice.tile,
        stride_px=lattice.stride,
        factor=bundle.factor,
        stretch=placement.stretch,
        valid=known,
        blank=blank,
    )


def _plain_embedding(bundle: ModelBundle, spec: GridSpec) -> np.ndarray:
    """The vector (D,) of a tile of nothing but background."""
    try:
        encoder = encoder_of(bundle)
    except InputError as error:
        raise InputError(
            f"{spec.source.name}: its background has no embeddings and no encoder can make them ({error}); embed it "
            "without --tissue-only"
        ) from None
    return encoder.embed(_plain_rgb(spec.lattice.tile, spec.background)[None])[0]


def background_latent(bundle: ModelBundle, background: tuple[int, int, int]) -> Tensor:
    """The latent (C,) that the autoencoder has for endless background."""
    side = max(2 * bundle.encoder_halo_lat + 2, bundle.window_lat)
    latents = bundle.encode(_plain_rgb(side * bundle.factor, background))
    return latents[:, side // 2, side // 2].clone()


def _plain_rgb(side: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def _image(
    spec: GridSpec, placement: Placement, facts: dict[str, object], inpainting: Inpainting | None, *, sharded: bool
) -> ImageSpec:
    """The painted window, or the whole canvas without loss where an image is repainted."""
    if inpainting:
        placement = replace(placement, window=Window.of(placement.canvas))
    transform = placement.transform(spec)
    return ImageSpec(
        placement.window.size,
        placement.resolution(spec),
        spec.crs if transform else None,
        transform,
        facts,
        compression="deflate" if inpainting else None,
        sharded=sharded,
    )


def _remarks(spec: GridSpec, bundle: ModelBundle) -> list[str]:
    """Where the grid is not what the bundle was trained for."""
    remarks = list(spec.source.remarks) if spec.source.kind == PRIOR_SAMPLED else []
    own = spec.resolution
    known = [value for value, unit in bundle.info.resolutions.values() if own and unit == own.unit]
    if own and known and not any(0.8 <= own.value / value <= 1.25 for value in known):
        at = ", ".join(f"{value:g}" for value in known)
        remarks.append(f"note: the grid is at {own}, {bundle.info.name} was trained at {at} {own.unit}/px")
    strides = bundle.info.stride_px
    if strides and spec.lattice.stride not in strides:
        remarks.append(f"note: the grid's stride is {spec.lattice.stride} px, the model was trained for {strides}")
    return remarks
