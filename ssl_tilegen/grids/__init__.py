"""Grids of embeddings: Zarr v3 groups, written shard by shard."""

from ssl_tilegen.grids.embedding_grid import EmbeddingGrid, PlannedGrid, is_complete
from ssl_tilegen.grids.grid_writer import GridWriter, write_grid
from ssl_tilegen.grids.shard_windows import shards
from ssl_tilegen.grids.spec import PRIOR_SAMPLED, EncoderFacts, GridData, GridSpec, SourceFacts, Validity
from ssl_tilegen.grids.store import is_grid, unfinished_grid

__all__ = [
    "PRIOR_SAMPLED",
    "EmbeddingGrid",
    "EncoderFacts",
    "GridData",
    "GridSpec",
    "GridWriter",
    "PlannedGrid",
    "SourceFacts",
    "Validity",
    "is_complete",
    "is_grid",
    "shards",
    "unfinished_grid",
    "write_grid",
]
