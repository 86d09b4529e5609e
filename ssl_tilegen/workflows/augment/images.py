"""A large image repainted from its grid, the label kept: `embed`, a changed grid, `generate`, and `embed` again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EmbedSettings, GenerateSettings
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Window
from ssl_tilegen.grids import EmbeddingGrid, GridData, is_complete, write_grid
from ssl_tilegen.system.launch import Distributed, worker_shard
from ssl_tilegen.system.progress import Progress
from ssl_tilegen.workflows.augment.patches import Painter, mixed
from ssl_tilegen.workflows.augment.plan import Sample, Sheet
from ssl_tilegen.workflows.augment.store import Record
from ssl_tilegen.workflows.embed.inputs import EmbedJob
from ssl_tilegen.workflows.embed.run import embed_one
from ssl_tilegen.workflows.embed.view import open_view
from ssl_tilegen.workflows.generate.job import Repaint
from ssl_tilegen.workflows.generate.run import paint_grid


def paint_image(painter: Painter, sheet: Sheet, folder: Path, progress: Progress) -> Record:
    """Paint the one sample of a sheet into ``folder``; returns what became of it.

    Grids are kept in ``grids`` beside ``folder``, one place per process, so that an image is embedded once.
    """
    (sample,) = sheet.samples
    index, count = painter.settings.shard or worker_shard()
    grids, out = folder.parent / "grids" / f"{index}-of-{count}", folder / sample.file
    source = _grid(painter, painter.originals[sample.original].path, grids / f"{sample.original}.zarr")
    condition = _condition(painter, sample, source, grids)
    out.parent.mkdir(parents=True, exist_ok=True)

    def painted(stage: str, done: float, total: float) -> None:
        progress(stage, done if stage == "paint" else total, total)

    settings = _settings(painter, sample, condition, out)
    paint_grid(settings, painter.bundle, Distributed(), painted, repaint=_repaint(painter, sample))
    again = _grid(painter, out, grids / f"made-{sample.original}-{sample.k}.zarr")
    return _record(sample, source.read(), again.read())


def _grid(painter: Painter, image: Path, path: Path) -> EmbeddingGrid:
    """The grid of an image, embedded unless it is there."""
    if not is_complete(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        embed_one(EmbedJob(image, path), _embedding(painter), painter.encoder)
    return EmbeddingGrid.open(path)


def _embedding(painter: Painter) -> EmbedSettings:
    own = painter.settings
    return EmbedSettings(model=own.model, device=own.device, mpp=own.mpp, gsd=own.gsd, overwrite=True)


def _settings(painter: Painter, sample: Sample, grid: Path, out: Path) -> GenerateSettings:
    own = painter.settings
    return GenerateSettings(
        grid=grid,
        out=out,
        model=own.model,
        device=own.device,
        seed=sample.seed,
        layout=own.layout,
        steps=own.steps,
        guidance=own.guidance,
        overwrite=True,  # an image whose record is missing was not finished
    )


def _condition(painter: Painter, sample: Sample, source: EmbeddingGrid, grids: Path) -> Path:
    """The grid to paint from: the source's own, or one moved towards the partner's."""
    mix = painter.settings.mix
    if sample.partner is None or not mix:
        return source.path
    partner = _grid(painter, painter.originals[sample.partner].path, grids / f"{sample.partner}.zarr")
    own, other = source.read(), partner.read()
    if not (own.usable.any() and other.usable.any()):
        raise InputError(f"{source.spec.source.name}: no cell shows anything; leave it out of the list")
    moved = mixed(own.embedding.astype(np.float32), _spread(other), mix, painter.bundle.info.encoder.layout_dim)
    cells = GridData(np.where(own.usable[..., None], moved, own.embedding).astype(np.float16), own.valid, own.tissue)
    path = grids / f"mixed-{sample.original}-{sample.k}.zarr"
    return write_grid(path, source.spec, cells, overwrite=True).path


def _spread(cells: GridData) -> np.ndarray:
    """Embeddings (R, K, D) in which cells that show nothing take the mean of those that do."""
    embedding = cells.embedding.astype(np.float32)
    return np.where(cells.usable[..., None], embedding, embedding[cells.usable].mean(0))


def _repaint(painter: Painter, sample: Sample) -> Repaint | None:
    """The source's own latents, window by window, where the settings want them kept in part."""
    strength, path = painter.settings.strength, painter.originals[sample.original].path
    if strength is None:
        return None

    def latents(bundle: ModelBundle, window: Window) -> Tensor:
        around = window.grown(getattr(bundle.autoencoder, "encoder_halo", 8))
        with open_view(EmbedJob(path, path), painter.encoder, _embedding(painter)) as view:
            pixels = view.read_mirrored(around.scaled(bundle.factor)).rgb
        return bundle.encode(pixels)[:, *window.within(around).slices]

    return Repaint(strength, latents)


def _record(sample: Sample, source: GridData, made: GridData) -> Record:
    usable = source.usable & made.usable
    a, b = (grid.embedding[usable].astype(np.float32) for grid in (made, source))
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)).clip(1e-12)
    vectors, real = (grid.embedding[grid.usable].astype(np.float32).mean(0) for grid in (made, source))
    return Record(vectors[None], np.array([cosine.mean()], np.float32), np.array([sample.original]), real[None])
