"""Synthesise whole-slide pathology images and aerial images from grids of self-supervised embeddings.

The functions behind the command line, for notebooks and programs; each is imported when it is first used:

    import ssl_tilegen

    ssl_tilegen.embed("slide.svs", out="slide.zarr")
    ssl_tilegen.generate(grid="slide.zarr", size="1024", out="synthetic.ome.tif")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["EmbeddingGrid", "ModelBundle", "augment", "embed", "evaluate", "generate", "open_raster", "train"]

if TYPE_CHECKING:
    from ssl_tilegen.api import augment, embed, evaluate, generate, train
    from ssl_tilegen.bundle import ModelBundle
    from ssl_tilegen.grids import EmbeddingGrid
    from ssl_tilegen.io.raster import open_raster

_HOMES = {"EmbeddingGrid": "grids", "ModelBundle": "bundle", "open_raster": "io.raster"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
