"""Grids of embeddings: Zarr v3 groups, written shard by shard."""

from ssl_tilegen.grids.embedding_grid import (
    EmbeddingGrid,
    GridWriter,
    PlannedGrid,
    is_complete,
    is_grid,
    part_of,
    shards,
    write_grid,
)
from ssl_tilegen.grids.spec import DRAWN, EncoderFacts, GridData, GridSpec, SourceFacts, Validity

__all__ = [
    "DRAWN",
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
    "part_of",
    "shards",
    "write_grid",
]
