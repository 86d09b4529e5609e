"""`generate` without a grid: words, a label, a vector or a map -> a sampled grid -> the image."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.errors import Interrupted, OutputError, SettingError, TilegenError
from ssl_tilegen.geometry import Lattice, Size
from ssl_tilegen.grids import (
    PRIOR_SAMPLED,
    EmbeddingGrid,
    EncoderFacts,
    GridData,
    GridSpec,
    PlannedGrid,
    SourceFacts,
    Validity,
    is_grid,
    write_grid,
)
from ssl_tilegen.io.writers.registry import check_format
from ssl_tilegen.prior.composition import condition_map, distinct, sample_scene
from ssl_tilegen.prior.prompt_encoder import PromptEncoder, prior_of
from ssl_tilegen.prior.sampling import SampledGrid, sample_prior
from ssl_tilegen.prior.scene import Region, Scene, read_scene, write_scene
from ssl_tilegen.prior.spatial_prompt import parts_map, split, texts
from ssl_tilegen.prior.spec import PriorInfo, PriorSampling
from ssl_tilegen.system import atomic, marks
from ssl_tilegen.system.budget import check_memory, check_pixels
from ssl_tilegen.system.launch import Distributed, distributed_environment
from ssl_tilegen.system.locks import lock
from ssl_tilegen.system.progress import Progress
from ssl_tilegen.system.resources import versions
from ssl_tilegen.system.signals import check_stop
from ssl_tilegen.workflows.generate.job import GridSource, prepare
from ssl_tilegen.workflows.generate.paths import check_run, hidden_grid, scene_beside, sweep_run

DEFAULT_PX = 1024
_NAME_CHARS = 40
_PATIENCE_S = 3600
_MAP_PX, _MAP_SIDE = 4, 4096  # pixels of the image to one of the map of a prompt, and the longest side of it
_COPIES = 6  # of a grid of float32, while it is drawn


@dataclass(frozen=True)
class Request:
    """A request to the prior: the lattice, the label whose domain it is of, and the different conditions (N, C).

    ``scene`` and ``of_region`` say where each is meant (None: everywhere); ``remarks`` say how the prompt was read."""

    lattice: Lattice
    label: str
    conditions: np.ndarray
    words: str
    sampling: PriorSampling
    seed: int
    size: Size
    scene: Scene | None
    of_region: np.ndarray
    remarks: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """16 hex digits of all that the grid depends on, beside the prior."""
        facts = [self.seed, self.sampling.model_dump(), self.label, str(self.lattice)]
        digest = hashlib.sha256(json.dumps(facts).encode())
        digest.update(np.nan_to_num(self.conditions, nan=-1e9).round(4).tobytes())
        if self.scene is not None:
            digest.update(self.of_region.astype(np.int64)[self.scene.index].tobytes())
        return digest.hexdigest()[:16]


@contextmanager
def sampled_grid(
    settings: GenerateSettings, bundle: ModelBundle, who: Distributed, progress: Progress
) -> Iterator[GridSource]:
    """Sample the grid that the settings describe, to be painted inside of the context.

    The grid is kept at ``--save-grid``, else beside the output until the image is whole, so that a stopped run goes
    on. A dry run samples nothing and writes nothing: its plan is that of a grid without blank cells.
    """
    if settings.size:
        check_pixels(settings.size.rows, settings.size.cols, "--size")
    request = asked(settings, bundle)
    out = settings.out or Path(f"{slug(request.words)}-synthetic.ome.tif")
    check_run(settings, out, overwrite=settings.overwrite or settings.dry_run)
    path = settings.save_grid or hidden_grid(out)
    planned = GridSource(PlannedGrid(path, _spec(request, bundle)), out, request.size)
    if settings.dry_run:
        yield planned
        return
    job = prepare(settings.model_copy(update={"dry_run": True}), bundle, planned)  # all that is wrong, before the work
    check_format(job.out, job.image)
    with ExitStack() as stack:
        held = stack.enter_context(lock(out)) if who.rank == 0 else None
        if settings.save_grid and who.rank == 0:
            stack.enter_context(lock(settings.save_grid, option="--save-grid"))
        if held:
            sweep_run(settings, out)
        is_needed = path == settings.save_grid or who.rank > 0
        try:
            _make_grid(request, bundle, path, out, settings, progress)
            yield GridSource(EmbeddingGrid.open(path), out, request.size, held)
        except Interrupted:
            is_needed = True
            raise
        finally:
            if not is_needed and held and held.is_mine() and marks.grid(path) is None:
                atomic.remove(path)


def asked(settings: GenerateSettings, bundle: ModelBundle) -> Request:
    """The settings as a request to the bundle's prior. One-line errors for all that it cannot be conditioned on."""
    info = prior_of(bundle)
    prompt_encoder = PromptEncoder(bundle, info)
    base = Region(settings.label, settings.text, settings.vector)
    scene, remarks = _scene(settings, info, prompt_encoder)
    size = scene.size if scene else settings.size or Size(DEFAULT_PX, DEFAULT_PX)
    check_pixels(size.rows, size.cols, "--size" if settings.size else "the scene")
    cells = size.ceil_div(info.stride_px)
    if not settings.dry_run:
        bytes_a_cell = 4 * _COPIES * (bundle.info.encoder.dim + 1)
        check_memory(bytes_a_cell * cells.area, f"--size {size}: a grid of {cells} cells, drawn at once")
    rest = Region(settings.label) if scene and not settings.scene else base
    conditions, label = prompt_encoder.conditions(scene.regions if scene else [], rest)
    conditions, of_region = distinct(conditions)
    if label is None:
        raise SettingError("nothing says what to sample: give --label, --text, --vector or --scene")
    lattice = Lattice(Size(cells.rows * info.stride_px, cells.cols * info.stride_px), info.stride_px, info.stride_px)
    how = _sampling(settings, info)
    return Request(lattice, label, conditions, _words(settings), how, settings.seed, size, scene, of_region, remarks)


def _scene(
    settings: GenerateSettings, info: PriorInfo, prompt_encoder: PromptEncoder
) -> tuple[Scene | None, tuple[str, ...]]:
    """The map that is given, or the one that a text with relations asks for, and how the text was read.

    A text whose parts are of two domains is left whole.
    """
    if settings.scene is not None:
        return read_scene(settings.scene, settings.size), ()
    tree = split(settings.text or "")
    if isinstance(tree, str):
        return None, ()
    regions = [Region(settings.label, text, settings.vector) for text in texts(tree)]
    labels = [label for _, label in map(prompt_encoder, regions) if label]
    if len({info.labels[label].domain for label in labels}) > 1:
        return None, (f"note: the text is read as one: {' and '.join(dict.fromkeys(labels))} are of two domains",)
    size = settings.size or Size(DEFAULT_PX, DEFAULT_PX)
    finest = min(1 / _MAP_PX, _MAP_SIDE / max(size.rows, size.cols))
    index = parts_map(tree, size.scaled(finest), settings.seed)
    return Scene(size, regions, index), (f"note: the text is read as {tree}",)


def _make_grid(
    request: Request, bundle: ModelBundle, path: Path, out: Path, settings: GenerateSettings, progress: Progress
) -> None:
    """The grid of a request at ``path``, to paint ``out`` from; one that is there already and was sampled for the same
    request is kept."""
    spec = _spec(request, bundle)
    if distributed_environment().rank > 0:
        return _await_grid(path, spec)
    is_saved = path == settings.save_grid
    if path.exists() and (is_saved or not settings.restart):
        if is_grid(path) and _same(EmbeddingGrid.open(path).spec, spec):
            return
        if is_saved and not settings.overwrite:
            raise OutputError(f"--save-grid {path}: exists; give another name or --overwrite")
    cells = _sample_cells(request, bundle, progress)
    check_run(settings, out, overwrite=True)  # again: sampling took a while
    if request.scene and is_saved and settings.scene is None:
        write_scene(scene_beside(path), request.scene)  # first: where the grid is, its map is too
    write_grid(path, spec, cells, overwrite=settings.overwrite or not is_saved)


def _await_grid(path: Path, spec: GridSpec) -> None:
    """Wait for the first of several processes to have sampled the grid."""
    until = time.monotonic() + _PATIENCE_S
    while not (is_grid(path) and _same(EmbeddingGrid.open(path).spec, spec)):
        check_stop()
        if time.monotonic() > until:
            raise TilegenError(f"{path}: the first process has not sampled it in {_PATIENCE_S} s; see what it says")
        time.sleep(0.2)


def _sample_cells(request: Request, bundle: ModelBundle, progress: Progress) -> GridData:
    made = _sample(request, bundle.prior, lambda done, total: progress("sample prior", done, total))
    unit = prior_of(bundle).resolution_of(request.label).unit
    empty = Validity.BACKGROUND if unit == "um" else Validity.NODATA
    valid = np.where(made.valid, Validity.OK, empty).astype(np.uint8)
    if not made.valid.any():  # an image of nothing: painted as it was sampled
        valid[:] = Validity.OK
    return GridData(made.embedding.astype(np.float16), valid, made.valid.astype(np.float16))


def _sample(request: Request, prior: Any, progress: Callable[[float, float], None]) -> SampledGrid:
    cells, stride, seed = request.lattice.shape, request.lattice.stride, request.seed
    if request.scene is None:
        condition = request.conditions[0][:, None, None]
        return sample_prior(prior, condition, request.sampling, seed, progress, cells=cells)
    numbers = condition_map(request.scene, request.of_region, cells, stride, prior.places, seed)
    return sample_scene(prior, request.conditions, numbers, request.sampling, seed, progress)


def _spec(request: Request, bundle: ModelBundle) -> GridSpec:
    info, encoder = prior_of(bundle), bundle.info.encoder
    return GridSpec(
        source=SourceFacts(request.words, PRIOR_SAMPLED, request.size, request.fingerprint, remarks=request.remarks),
        lattice=request.lattice,
        dim=encoder.dim,
        encoder=EncoderFacts(
            encoder.id,
            info.encoder_sha256,
            tuple(encoder.mean),
            tuple(encoder.std),
            "pool" if encoder.pooling == "head" else encoder.pooling,
            versions("ssl-tilegen", "torch", "numpy"),
        ),
        resolution=info.resolution_of(request.label),
        background=info.labels[request.label].background,
        bundle={"id": bundle.info.name, "sha256": bundle.hash, "prior_sha256": bundle.component_hash("prior")},
    )


def _same(found: GridSpec, wanted: GridSpec) -> bool:
    keys = ("source", "lattice", "bundle")
    return all(getattr(found, key) == getattr(wanted, key) for key in keys)


def _sampling(settings: GenerateSettings, info: PriorInfo) -> PriorSampling:
    own = info.sampling
    return own if settings.grid_guidance is None else own.model_copy(update={"guidance": settings.grid_guidance})


def _words(settings: GenerateSettings) -> str:
    """The request in words, as the grid and the image record it: files by their names alone, wherever they lie."""
    parts = {name: getattr(settings, name) for name in ("label", "text", "vector", "scene")}
    files = {name: Path(parts[name]).name for name in ("vector", "scene") if parts[name]}
    said = {key: value for key, value in (parts | files).items() if value}
    return "; ".join(f"{key}: {value}" for key, value in said.items())


def slug(words: str) -> str:
    """A file name from a request."""
    plain = re.sub(r"[^a-z0-9]+", "-", words.partition(":")[2].lower()).strip("-")
    return plain[:_NAME_CHARS].strip("-") or "drawn"
