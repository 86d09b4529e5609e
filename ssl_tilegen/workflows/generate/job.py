"""All that `generate` settles before it paints: grid and bundle that fit, the place, the field, the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.diffusion.field import ConditionField, fill_invalid
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.diffusion.synthesis import Plan, plan
from ssl_tilegen.encoders.bundle_encoder import encoder_of, is_made_by_encoder_of
from ssl_tilegen.errors import FormatError, InputError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.grids import PRIOR_SAMPLED, EmbeddingGrid, GridData, GridSpec, Validity
from ssl_tilegen.io.writers.format import ImageSpec
from ssl_tilegen.system.budget import check_memory, check_pixels
from ssl_tilegen.system.locks import Held
from ssl_tilegen.workflows.generate.inpainting import Inpainting, check_lossless, open_inpainting
from ssl_tilegen.workflows.generate.placement import Placement, check_within, place
from ssl_tilegen.workflows.generate.provenance import provenance
from ssl_tilegen.workflows.generate.sampling import sampling

_CELL_BYTES, _VALUE_BYTES = 40, 14  # of a grid laid over a canvas: codes and distances, embeddings and their copies
# between the 8 px blocks of a cell; on the glass of CMU-1 there are 4 to 12 grey levels, with debris more than 24
_GLASS_CONTRAST = 20 / 127.5
_DECODED = 8192  # cells at once
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
    """One image to paint. ``region_lat`` are the latents under the placement's window; with ``inpainting`` an
    image goes on all around it."""

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

    def plan(self, processes: int = 1) -> Plan:
        """The cost of painting it."""
        return plan(
            self.bundle, self.field, self.region_lat, self.how, self.background, processes, self.inpainting is not None
        )

    def memory_bytes(self, planned: Plan) -> int:
        """The canvases in memory and one network call, roughly."""
        call = min(self.how.call_lat, planned.canvas.size.area) * _CALL_BYTES_PER_LATENT
        return call + (0 if planned.mapped else planned.canvas_bytes)


class GridSource(NamedTuple):
    """The grid to paint from, opened or planned; of a sampled one, the output and the size that it was sampled for,
    and the lock of that output."""

    grid: EmbeddingGrid
    out: Path | None = None
    size: Size | None = None
    held: Held | None = None


def prepare(settings: GenerateSettings, bundle: ModelBundle, source: GridSource | None = None) -> PaintJob:
    """Open and check all that the settings name, to be painted by ``bundle``, of ``source`` or of ``settings.grid``.

    Writes nothing. A dry run reads no embeddings, so that large ones are planned in little memory.
    """
    if source is None:
        assert settings.grid is not None
        source = GridSource(EmbeddingGrid.open(settings.grid))
    grid, sampled = source.grid, source.size or (None if settings.size else _size_asked(source.grid.spec))
    size = sampled or settings.size
    if size:
        check_pixels(size.rows, size.cols, "--size")
    cells = usable_cells(grid, bundle, codes_only=settings.dry_run)
    if sampled and settings.region and settings.fit != "stretch":  # the region is a part of the image asked for
        check_within(settings.region, sampled)
        size = None
    placement = place(
        grid.spec, cells, size=size, region=settings.region, fit=settings.fit, least_px=bundle.info.window_px
    )
    how = sampling(settings, bundle, placement)
    inpainting = open_inpainting(settings.keep, placement.window, grid.spec) if settings.keep else None
    out = settings.out or source.out or default_output(grid)
    if inpainting:
        check_lossless(out)
    return paint_job_of(
        grid, cells, bundle, placement, how, out, inpainting, sharded=not settings.unsharded, planned=settings.dry_run
    )


def paint_job_of(
    grid: EmbeddingGrid,
    cells: GridData,
    bundle: ModelBundle,
    placement: Placement,
    how: SynthesisSettings,
    out: Path,
    inpainting: Inpainting | None = None,
    *,
    sharded: bool = True,
    planned: bool = False,
) -> PaintJob:
    """The job of painting a grid's ``cells`` by ``bundle`` at a place into ``out``; ``planned``: only to be costed."""
    facts = {} if planned else provenance(bundle, grid, cells, placement, how, inpainting)
    field = condition_field(grid.spec, cells, bundle, placement, codes_only=planned)
    return PaintJob(
        out=out,
        bundle=bundle,
        placement=placement,
        region_lat=placement.window_lat(bundle.factor),
        field=replace(field, raw=how.recipe is not None and how.recipe.interpolation == "raw"),
        background=background_latent(bundle, grid.spec.background) if field.blank.any() else None,
        how=how,
        image=_image(grid.spec, placement, facts, inpainting, sharded=sharded),
        remarks=(*_remarks(grid.spec, bundle), *_remarks_on_scale(placement, grid.spec, bundle, how)),
        inpainting=inpainting,
    )


def default_output(grid: EmbeddingGrid) -> Path:
    """NAME-synthetic beside the grid (never the source's own name): a map where the grid has a CRS, else OME-TIFF."""
    suffix = ".tif" if grid.spec.crs else ".ome.tif"
    path = grid.path.absolute()
    return path.with_name(f"{path.name.removesuffix('.zarr')}-synthetic{suffix}")


def _check_encoder(grid: EmbeddingGrid, bundle: ModelBundle) -> None:
    """FormatError where the grid's vectors are of another encoder than the denoiser's."""
    made, wanted = grid.spec.encoder, bundle.info.encoder
    if not is_made_by_encoder_of(bundle, made) or grid.dim != wanted.dim:
        theirs = bundle.component_hash("encoder") if bundle.has("encoder") else "unknown"
        raise FormatError(
            f"{grid.path}: made by encoder {made.id} ({grid.dim}-d, weights {made.weights_sha256[:8]}), but the model "
            f"{bundle.info.name} paints from {wanted.id} ({wanted.dim}-d, weights {theirs[:8]}); embed "
            "the source with this --model"
        )


def usable_cells(grid: EmbeddingGrid, bundle: ModelBundle, *, codes_only: bool = False) -> GridData:
    """The cells of a grid that ``bundle`` understands; ``codes_only``: with one zero for each embedding, which takes no
    memory. One-line errors where there is nothing to paint."""
    view = grid.spec.lattice.size
    check_pixels(view.rows, view.cols, str(grid.path))
    _check_encoder(grid, bundle)
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


def condition_field(
    spec: GridSpec, cells: GridData, bundle: ModelBundle, placement: Placement, *, codes_only: bool = False
) -> ConditionField:
    """The grid laid over the canvas. Cells without pixels become their nearest cell's like, background or not. Cells of
    background whose layout shows something (debris, the rim of a tissue) count as tissue."""
    embedding = cells.embedding.astype(np.float32)
    background = cells.valid == Validity.BACKGROUND
    known = background | (cells.valid == Validity.OK)
    bare = background & ~cells.embedding.any(axis=-1)  # `embed --tissue-only` left these out
    if not codes_only:
        if bare.any():
            embedding[bare] = _plain_embedding(bundle, spec)
        background &= ~_shows_something(bundle, embedding, background & ~bare)
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


def _shows_something(bundle: ModelBundle, embedding: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Which of the cells that are ``asked`` (R, K) have a layout whose colours differ by more than those of glass."""
    shows, cells = np.zeros(asked.shape, bool), np.argwhere(asked)
    if not len(cells) or not getattr(bundle.denoiser, "colour_rounds", 0):
        return shows
    for some in (tuple(cells[i : i + _DECODED].T) for i in range(0, len(cells), _DECODED)):
        colours = bundle.denoiser.decode_colours(torch.from_numpy(embedding[some]).to(bundle.device))
        shows[some] = ((colours.amax((-1, -2)) - colours.amin((-1, -2))).amax(-1) > _GLASS_CONTRAST).cpu().numpy()
    return shows


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


def _remarks_on_scale(placement: Placement, spec: GridSpec, bundle: ModelBundle, how: SynthesisSettings) -> list[str]:
    """A remark where the layout within cells is stretched, and nothing in the output says so."""
    on_ground = placement.transform(spec) is not None
    if placement.is_true_to_scale or on_ground or not (how.layout and bundle.info.encoder.layout_dim):
        return []
    down, across = placement.stretch
    return [f"note: what lies in the cells is stretched, too, by {across:.3g} x {down:.3g}; --layout free lets the "
            "model place things of their own size, less clearly"]  # fmt: skip


def _remarks(spec: GridSpec, bundle: ModelBundle) -> list[str]:
    """Remarks where the bundle was not trained for such a grid."""
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
