"""Optional files beside a grid: outlines of the tissue, and a preview."""

from __future__ import annotations

from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.io.tissue_map import TissueMap
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.system.marks import preview_title
from ssl_tilegen.workflows.embed.inputs import EmbedJob
from ssl_tilegen.workflows.embed.paths import OUTLINES, PREVIEW, check_job
from ssl_tilegen.workflows.embed.regions import regions_for, write_outlines
from ssl_tilegen.workflows.grid.preview import thumbnail, write_preview


def write_companions(
    job: EmbedJob, settings: EmbedSettings, view: RasterView, tissue: TissueMap, grid: EmbeddingGrid
) -> bool:
    """Write the companion files that were asked for; whether there was anything to write."""

    def before() -> None:
        check_job(job, settings)  # again: embedding took a while

    before()
    written = bool(settings.geojson and write_outlines(tissue, view, job.beside(OUTLINES), before))
    if settings.preview:
        title = preview_title("embed", job.grid.name)
        seen = thumbnail(view, settings.reading_threads)
        write_preview(grid, seen, job.beside(PREVIEW), title, before)
    return written or settings.preview


def add_companions(job: EmbedJob, settings: EmbedSettings) -> bool:
    """Write them for a finished grid that lacks any; whether it did.

    A run that was killed after its grid had got its name left them out, and so did one that was not asked for them.
    """
    wanted = {
        "geojson": settings.geojson and not job.beside(OUTLINES).exists(),
        "preview": settings.preview and not job.beside(PREVIEW).exists(),
    }
    if not any(wanted.values()):
        return False
    grid = EmbeddingGrid.open(job.grid)
    own, factor = grid.spec.resolution, grid.spec.factor
    mpp, gsd = (own.value / factor if own and own.unit == unit else None for unit in ("um", "m"))
    with open_raster(job.image, mpp=mpp, gsd=gsd, bands=settings.bands, scale=settings.scale) as raster:
        view = RasterView(raster, factor)
        tissue = TissueMap.of(view, settings.reading_threads, regions_for(settings.regions, job))
        return write_companions(job, settings.model_copy(update=wanted), view, tissue, grid)
