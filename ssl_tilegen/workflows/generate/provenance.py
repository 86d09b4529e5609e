"""The provenance of an output: all that is needed to make it again from the same files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from ssl_tilegen import __version__
from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.grids import EmbeddingGrid, GridData
from ssl_tilegen.system.names import recordable
from ssl_tilegen.workflows.generate.inpainting import Inpainting
from ssl_tilegen.workflows.generate.placement import Placement


def provenance(
    bundle: ModelBundle,
    grid: EmbeddingGrid,
    cells: GridData,
    placement: Placement,
    how: SynthesisSettings,
    inpainting: Inpainting | None = None,
) -> dict[str, Any]:
    """Software, model, grid, source, and every setting that changes pixels; no dates and no paths."""
    spec, window = grid.spec, placement.window
    sampling = {name: getattr(how, name) for name in ("seed", "steps", "update", "guidance", "guidance_interval")}
    merging = {name: getattr(how, name) for name in ("merge", "overlap", "feather", "bleed_lat")}
    return {
        "software": f"ssl-tilegen {__version__}",
        "model": bundle.info.name,
        "model_sha256": bundle.hash,
        "grid": recordable(grid.path.name),
        "grid_sha256": fingerprint(grid, cells),
        "source": spec.source.name,
        "source_fingerprint": spec.source.fingerprint,
        "encoder": spec.encoder.id,
        "fit": placement.fit,
        "canvas_px": [placement.canvas.cols, placement.canvas.rows],
        "region_px": [window.col, window.row, window.cols, window.rows],
        **sampling,
        **({"times": list(how.times)} if how.times else {}),
        **({"recipe": how.recipe.model_dump()} if how.recipe else {}),
        **merging,
        **_layout(how),
        **(_kept(inpainting) if inpainting else {}),
    }


def _kept(inpainting: Inpainting) -> dict[str, str]:
    """The image that was repainted."""
    name = recordable(inpainting.view.raster.path.name)
    return {"kept": name, "kept_fingerprint": inpainting.fingerprint}


def _layout(how: SynthesisSettings) -> dict[str, Any]:
    """How closely the layout is followed, in the words of --layout; if loosely, down to which noise fraction."""
    if not how.layout:
        return {"layout": "free"}
    return {"layout": "loose", "layout_above": how.layout_above} if how.layout_above else {"layout": "exact"}


def fingerprint(grid: EmbeddingGrid, cells: GridData) -> str:
    """sha256 of the part of a grid that an image depends on: lattice, background, embeddings and validity."""
    lattice = asdict(grid.spec.lattice)
    if not lattice["partial"]:
        del lattice["partial"]  # a grid of whole cells has the fingerprint that it always had
    facts = [lattice, grid.spec.background]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for array in (cells.embedding, cells.valid):
        digest.update(array.tobytes())
    return digest.hexdigest()
