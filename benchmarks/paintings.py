"""What the benchmarks of painting share: a job, an image and what it took, crops, their distance, and the cells."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import GenerateSettings
from ssl_tilegen.diffusion.canvas import Canvas
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.diffusion.synthesis import develop, paint, plan
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.encoders.texture import TextureEncoder
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.grids import EmbeddingGrid, Validity
from ssl_tilegen.metrics.frechet import frechet_distance
from ssl_tilegen.metrics.resampling import group_halves
from ssl_tilegen.metrics.retrieval import Retrieval, retrieval
from ssl_tilegen.workflows.generate.inpainting import open_inpainting
from ssl_tilegen.workflows.generate.job import PaintJob, prepare

ROUNDS, GROUP_PX = 50, 256


def say(**facts: Any) -> None:
    """One JSON line."""
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in facts.items()}), flush=True)


@dataclass(frozen=True, eq=False)
class LatentScene:
    """A job that paints a crop of a real image from its own grid, and that crop, uint8 (H, W, 3)."""

    job: PaintJob
    grid: EmbeddingGrid
    real: np.ndarray

    @classmethod
    def of(cls, grid: Path, image: Path, bundle: str, size: int, steps: int | None = None) -> LatentScene:
        settings = GenerateSettings(
            grid=grid, model=bundle, size=Size(size, size), fit="crop", steps=steps, out=Path("benchmark.png")
        )
        job, opened = prepare(settings, ModelBundle.load(settings.model)), EmbeddingGrid.open(grid)
        view = open_inpainting(str(image), job.placement.window, opened.spec).view
        return cls(job, opened, view.read(job.placement.window).rgb)

    def cells(self, rgb: np.ndarray) -> Retrieval:
        """Cells of an image of this place that show something, against what they were painted from."""
        cells, lattice, place = self.grid.read(), self.grid.spec.lattice, self.job.placement.window
        tiles, wanted = [], []
        for row, col in lattice.cells():
            window = lattice.window(row, col)
            if place.contains(window) and cells.valid[row, col] == Validity.OK:
                tiles.append(rgb[window.within(place).slices])
                wanted.append(cells.embedding[row, col].astype(np.float32))
        return retrieval(BundleEncoder(self.job.bundle).embed(np.stack(tiles)), np.stack(wanted))


def painted(job: PaintJob, how: SynthesisSettings, region: Window | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """The image uint8 (H, W, 3) of the job's region or another, and what it took.

    ``calls`` are network calls in windows of the model: the area of a convolution counts as so many windows, and a
    guided step twice. ``cpu_s`` is the time of all threads, which other work on the machine changes less.
    """
    region = region or job.region_lat
    started, used = time.perf_counter(), time.process_time()
    latents = plan(job.bundle, job.field, region, how, job.background).network_latents
    canvas = paint(job.bundle, job.field, region, how, background=job.background)
    middle = time.perf_counter()
    rgb = np.concatenate(list(develop(job.bundle, canvas)))
    facts = {"calls": round(latents / job.bundle.window_lat**2), "paint_s": middle - started,
             "all_s": time.perf_counter() - started, "cpu_s": time.process_time() - used}  # fmt: skip
    return rgb, facts


def places(size: tuple[int, int], side: int, stride: int) -> list[tuple[int, int]]:
    """Corners (row, col) of crops at every ``stride``."""
    rows, cols = (range(0, length - side + 1, stride) for length in size)
    return [(row, col) for row in rows for col in cols]


def crops(rgb: np.ndarray, side: int, corners: Sequence[tuple[int, int]]) -> np.ndarray:
    """uint8 (N, side, side, 3)."""
    return np.stack([rgb[row : row + side, col : col + side] for row, col in corners])


def features(images: np.ndarray) -> np.ndarray:
    """What `evaluate` compares as ``texture``: (N, D)."""
    return TextureEncoder(images.shape[1]).embed(images)


def distances(sets: Sequence[np.ndarray], real: np.ndarray, corners: Sequence[tuple[int, int]]) -> np.ndarray:
    """Frechet distances of sets of features (N, D) to ``real`` (N, D): (1 + rounds, sets), first of all crops.

    The others are of halves of the image, drawn by blocks of ``GROUP_PX`` as `evaluate` draws them; all sets and
    the real one lose the same crops, so what the halves happen to show cancels in differences and ratios.
    """
    groups = np.array([row // GROUP_PX * 4096 + col // GROUP_PX for row, col in corners])
    rng = np.random.default_rng(0)
    halves = [np.arange(len(real)), *(group_halves(groups, rng)[0] for _ in range(ROUNDS))]
    return np.array([[frechet_distance(own[half], real[half]) for own in sets] for half in halves])


def autoencoded(scene: LatentScene) -> np.ndarray:
    """The real crop through the autoencoder alone: what no denoiser can beat."""
    bundle = scene.job.bundle
    latents = bundle.encode(scene.real)
    canvas = Canvas(Window(0, 0, *latents.shape[1:]), len(latents))
    canvas.data.copy_(latents)
    return np.concatenate(list(develop(bundle, canvas)))


def singles(
    job: PaintJob, how: SynthesisSettings, side: int, corners: Sequence[tuple[int, int]]
) -> Iterator[np.ndarray]:
    """Patches of ``side`` px painted each by itself, without any neighbourhood, from the same places of the field."""
    factor, region = job.bundle.factor, job.region_lat
    step = job.bundle.conditioning.quantum_lat
    for number, (row, col) in enumerate(corners):
        at = [(start + offset // factor) // step * step for start, offset in ((region.row, row), (region.col, col))]
        window = Window(at[0], at[1], side // factor, side // factor)
        yield painted(job, replace(how, seed=number + 1, bleed_lat=0), window)[0]
