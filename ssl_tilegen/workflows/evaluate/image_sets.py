"""The sets that `evaluate` compares: images of folders, slides and rasters, or grids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ssl_tilegen.errors import FormatError, InputError, TilegenError
from ssl_tilegen.geometry import Resolution, Size, Window
from ssl_tilegen.grids import EmbeddingGrid, is_grid
from ssl_tilegen.io.image_files import is_image
from ssl_tilegen.io.jpeg_quality import storage_of
from ssl_tilegen.io.raster import open_raster
from ssl_tilegen.workflows.labelled_images import group_of, read_manifest


@dataclass(frozen=True)
class Image:
    """One image of a set: ``size`` of its level 0, ``resolution`` if it says any, ``storage`` by `storage_of`."""

    path: Path
    group: str
    size: Size
    resolution: Resolution | None
    storage: str


@dataclass(frozen=True)
class ImageSet:
    """``images`` of a path and ``skipped`` ones (path, why); or ``grids`` of embeddings instead of images.

    ``left_out``: images that a manifest says are of the other kind.
    """

    path: Path
    images: tuple[Image, ...] = ()
    skipped: tuple[tuple[Path, str], ...] = ()
    left_out: int = 0
    grids: tuple[EmbeddingGrid, ...] = field(default=(), compare=False)

    @property
    def storage(self) -> dict[str, float]:
        """Share of the images by how they were stored."""
        counts = Counter(image.storage for image in self.images)
        return {kind: count / len(self.images) for kind, count in counts.most_common()}


def read_set(path: Path, *, kind: str = "", if_unknown: Resolution | None = None) -> ImageSet:
    """The images at ``path``: a folder (searched to any depth), one image, one grid, or a folder of grids.

    ``kind``: real or synthetic; images of which the manifest that `augment` writes says the other are left out.
    Images that cannot be read are listed and left out. InputError where nothing is left.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the path")
    grids = [path] if is_grid(path) else sorted(p for p in path.glob("*.zarr") if is_grid(p)) if path.is_dir() else []
    found = [path] if not path.is_dir() or is_image(path) else sorted(_images_in(path))
    if grids and not (found and path.is_dir() and not is_grid(path)):
        return ImageSet(path, grids=tuple(EmbeddingGrid.open(p) for p in grids))
    if not found:
        raise InputError(f"{path}: no images there; give a folder of images, slides or rasters, or a grid")
    others = _of_other_kind(path, kind)
    own = [p for p in found if p not in others]
    if not own:
        raise InputError(f"{path}: its manifest says that none of its images are {kind}; give another folder")
    part = described(path, [(p, _group(p, path)) for p in own], if_unknown=if_unknown)
    return replace(part, left_out=len(found) - len(own))


def _of_other_kind(path: Path, kind: str) -> set[Path]:
    """The images of which a manifest in ``path``, or up to two folders above it, says another kind than ``kind``."""
    for folder in (path, *path.absolute().parents[:2]) if kind and path.is_dir() else ():
        rows = read_manifest(folder)
        if any(row.get("kind") for row in rows.values()):
            named = {folder / name: row.get("kind") for name, row in rows.items()}
            inside = named if folder == path else {path / p.relative_to(path.absolute()): k for p, k in named.items()
                                                   if p.is_relative_to(path.absolute())}  # fmt: skip
            return {file for file, said in inside.items() if said in ("real", "synthetic") and said != kind}
    return set()


def described(path: Path, found: Sequence[tuple[Path, str]], *, if_unknown: Resolution | None = None) -> ImageSet:
    """A set of the (path, group) pairs ``found``, each opened once; those that cannot be are skipped."""
    images, skipped = [], []
    for file, group in found:
        try:
            with open_raster(file, if_unknown=if_unknown) as raster:
                if raster.kind == "picture":
                    raster.read(Window.of(raster.size))  # an image that is cut short says so only when decoded
                images.append(Image(file, group, raster.size, raster.resolution, storage_of(file)))
        except (TilegenError, OSError) as error:
            skipped.append((file, str(error)))
    if not images:
        raise InputError(f"{path}: none of its {len(found)} images can be read; the first: {skipped[0][1]}")
    return ImageSet(path, tuple(images), tuple(skipped))


def _images_in(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if is_image(path):
            yield path
        elif path.is_dir() and not path.name.startswith(".") and path.suffix not in (".zarr", ".part"):
            yield from _images_in(path)


def _group(path: Path, root: Path) -> str:
    """Sub-folder and name's group: g012 of one class is not g012 of another."""
    inside = path.relative_to(root).parent if path != root else Path()
    return str(inside / group_of(path))


def storage_warning(real: ImageSet, synthetic: ImageSet) -> str | None:
    """A line where the sets were stored differently, with the shares; None where they are alike."""
    a, b = real.storage, synthetic.storage
    apart = sum(abs(a.get(kind, 0) - b.get(kind, 0)) for kind in a.keys() | b.keys()) / 2
    if not a or not b or apart < 0.01:
        return None
    return (
        f"{apart:.0%} of the images were stored differently (real: {_shares(a)}; synthetic: {_shares(b)}): JPEG marks "
        "move every distance; compare images stored alike"
    )


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{share:.0%} {kind}" for kind, share in list(shares.items())[:4])


def same_encoder(grids: Sequence[EmbeddingGrid]) -> None:
    """FormatError where grids were made by different encoders."""
    for grid in grids[1:]:
        if grid.spec.encoder != grids[0].spec.encoder:
            raise FormatError(
                f"{grid.path}: made by {grid.spec.encoder.id}, {grids[0].path} by {grids[0].spec.encoder.id}; embed "
                "both with one encoder"
            )
