"""What `embed` reads and where it writes: images from files, folders and globs, opened at the right resolution."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ssl_tilegen.config import EmbedSettings
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.errors import InputError, OutputError, SettingError
from ssl_tilegen.geometry import Lattice, Resolution
from ssl_tilegen.grids import EncoderFacts, GridSpec, SourceFacts
from ssl_tilegen.io.raster import RasterView, open_raster
from ssl_tilegen.runtime import versions

_SLIDES = {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide"}
SUFFIXES = frozenset(_SLIDES | {".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg"})
_GLOB = frozenset("*?[")


class Job(NamedTuple):
    """One image and the grid to be made of it."""

    image: Path
    grid: Path


def find_jobs(inputs: Sequence[str | Path], settings: EmbedSettings) -> list[Job]:
    """The images of ``inputs`` in a fixed order, each with its grid. Raises InputError or SettingError."""
    images = list(dict.fromkeys(image for item in inputs for image in _expand(item)))
    if not images:
        raise InputError("no input; give images, folders or globs")
    if settings.out and len(images) > 1:
        raise SettingError(f"-o {settings.out}: one output for {len(images)} inputs; give --out-dir instead")
    jobs = [Job(image, settings.out or _beside(image, settings.out_dir)) for image in images]
    _refuse_clashes(jobs)
    return jobs


def _expand(item: str | Path) -> Iterable[Path]:
    """The images that one argument stands for: itself, those in a folder, or those a glob finds, sorted."""
    path = Path(item)
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES and p.is_file()]
    elif _GLOB & set(str(item)) and not path.exists():
        found = [Path(p) for p in sorted(glob.glob(str(item), recursive=True)) if Path(p).is_file()]  # noqa: PTH207
    else:
        return [path]
    if not found:
        raise InputError(f"{item}: no images there; looked for {' '.join(sorted(SUFFIXES))}")
    return found


def _beside(image: Path, folder: Path | None) -> Path:
    """NAME.zarr in ``folder``, by default the image's own."""
    stem = image.name.removesuffix(image.suffix)
    return (folder or image.parent) / f"{stem.removesuffix('.ome')}.zarr"


def _refuse_clashes(jobs: list[Job]) -> None:
    first: dict[Path, Path] = {}
    for job in jobs:
        other = first.setdefault(job.grid, job.image)
        if other != job.image:
            raise OutputError(f"{job.image} and {other} would both become {job.grid}; embed them separately with -o")


@contextmanager
def open_view(image: Path, encoder: Encoder, settings: EmbedSettings) -> Iterator[RasterView]:
    """The image as the encoder is to see it; closed at the end.

    An image that states its resolution is read at --mpp or --gsd, else microscopy at the encoder's um/px and anything
    else at its own sampling. For one that states none, --mpp or --gsd say what its pixels measure; without them it is
    a ResolutionError.
    """
    wanted = settings.resolution
    raster = open_raster(image, bands=settings.bands, scale=settings.scale)
    if raster.resolution is None and wanted is not None:
        raster.close()
        raster = open_raster(image, mpp=settings.mpp, gsd=settings.gsd, bands=settings.bands, scale=settings.scale)
        wanted = None
    with raster:
        yield raster.at(wanted or _preferred(raster.resolution, encoder))


def _preferred(own: Resolution | None, encoder: Encoder) -> Resolution:
    """Where the user asks for nothing; an image of unknown resolution is refused by ``at``, whatever is asked of it."""
    own = own or Resolution(1.0, "um")
    return encoder.resolution if encoder.resolution and own.unit == encoder.resolution.unit else own


def spec_of(view: RasterView, encoder: Encoder, settings: EmbedSettings, background: tuple[int, int, int]) -> GridSpec:
    """Everything the grid records about its source and its encoder."""
    raster = view.raster
    return GridSpec(
        source=SourceFacts(
            raster.path.name,
            raster.kind,
            raster.size,
            raster.fingerprint,
            bands=settings.bands,
            scale=raster.scaling,
            remarks=tuple(raster.remarks),
        ),
        lattice=Lattice(view.size, encoder.tile_px, settings.stride or encoder.tile_px),
        dim=encoder.dim,
        encoder=EncoderFacts(
            encoder.id,
            encoder.weights_sha256,
            tuple(encoder.normalisation.mean),
            tuple(encoder.normalisation.std),
            encoder.pooling,
            versions("ssl-tilegen", "torch", "timm", "numpy"),
        ),
        resolution=view.resolution,
        factor=view.factor,
        crs=raster.crs,
        transform=view.transform,
        background=background,
        bundle=getattr(encoder, "bundle", None),
    )
