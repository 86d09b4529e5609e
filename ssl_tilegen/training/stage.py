"""A stage of `train`: how it is prepared, its part in the training loop, how its result enters the bundle.

The table of stages is ``config.train.STAGES``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from ssl_tilegen.bundle import ModelBundle, find_bundle, resolutions_of
from ssl_tilegen.config.train import RunSettings
from ssl_tilegen.encoders.bundle_encoder import has_encoder
from ssl_tilegen.errors import InputError
from ssl_tilegen.system.locks import Held, lock
from ssl_tilegen.training.data.batches import Batch, Item
from ssl_tilegen.training.data.corpus import load_corpus
from ssl_tilegen.training.distributed import Processes
from ssl_tilegen.training.inherit import inherit
from ssl_tilegen.training.optim import make_optimiser
from ssl_tilegen.training.run_metadata import Data

_TURN_S = 600.0  # that another stage may take to write its part of the bundle


@dataclass(frozen=True)
class StageContext:
    """Where a stage works, with which processes, and where its messages go."""

    run_folder: Path
    bundle_folder: Path
    processes: Processes
    report: Callable[[dict[str, Any]], None] = lambda facts: None

    @property
    def cache(self) -> Path:
        """The folder for results that are computed once."""
        return self.run_folder / "cache"

    def say(self, text: str) -> None:
        """Report a message."""
        self.report({"message": text})

    def count_cached(self, done: int, total: int) -> None:
        """Report how many pixels are cached, in megapixels."""
        self.report({"stage": "caching latents", "done": done / 1e6, "total": total / 1e6})

    def source_bundle(self, name: str | None, *components: str) -> ModelBundle:
        """The bundle ``name``, or the one in the making, which takes components that it lacks from it.

        Raises InputError where it lacks one of ``components``, or the one in the making has another one.
        """
        folder = find_bundle(name) if name else self.bundle_folder
        for component in components:
            if not (folder / component / "config.json").is_file() and not _is_named(component, folder):
                raise InputError(
                    f"{folder} has no {component}: run 'ssl-tilegen train {component}' into the same --out"
                )
        bundle = ModelBundle.load(folder, self.processes.device)
        self.take_over(folder, components)
        return bundle

    def take_over(self, source: Path, used: tuple[str, ...] = ()) -> None:
        """Copy components that the bundle in the making lacks from another one (see ``inherit``)."""
        if self.processes.is_first:
            with self.writing_bundle():
                inherit(source, self.bundle_folder, used)

    def writing_bundle(self) -> AbstractContextManager[Held]:
        """The lock of the bundle in the making, for the moments in which it is changed: stages that are trained into
        one folder wait for each other. Busy where that takes too long."""
        return lock(self.bundle_folder, option="--out", wait_s=_TURN_S)


def _is_named(component: str, folder: Path) -> bool:
    """Whether a bundle names a component that it does not carry, as imported ones do their encoders."""
    return component == "encoder" and (folder / "bundle.json").is_file() and has_encoder(ModelBundle(folder))


class Stage:
    """Base class: one part of a bundle and its training."""

    whole_run_only: ClassVar[bool] = False
    """Whether a run that was stopped early leaves the bundle as it was."""

    module: Any
    """The network that is trained; None where nothing is to train."""

    # Before and after the loop

    @classmethod
    def load_data(cls, settings: Any, context: StageContext) -> Data:
        """Load the training data. By default the images of ``settings.data``, at the bundle's resolutions."""
        folder = find_bundle(settings.bundle) if getattr(settings, "bundle", None) else context.bundle_folder
        return load_corpus(settings.data, context.say, resolutions_of(folder))

    @classmethod
    def prepare(cls, settings: Any, data: Any, context: StageContext) -> Self:
        """The stage, ready to train. Called on every process, on the first before the others."""
        raise NotImplementedError

    def export(self, module: Any, context: StageContext) -> None:
        """Put ``module`` (averaged weights, on the CPU) into ``context.bundle_folder``. Called on one process."""
        raise NotImplementedError

    # What the loop asks for

    def item(self, rng: np.random.Generator) -> Item:
        """One training item; every random choice comes from ``rng``."""
        raise NotImplementedError

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and named parts of it for the log."""
        raise NotImplementedError

    def sample(self, module: Any, path: Path) -> dict[str, float]:
        """Write samples of ``module`` (the averaged weights) as an image; return validation scores."""
        raise NotImplementedError

    def optimiser(self, run: RunSettings) -> torch.optim.Optimizer:
        """The optimiser of ``module``. A group's ``lr_factor`` scales the learning rate of the run for it."""
        return make_optimiser(self.module, run)

    def compiled(self, module: Any) -> Any:
        """``module`` as torch.compile makes it."""
        return torch.compile(module)

    def gradient_groups(self) -> list[list[nn.Parameter]]:
        """The parameters whose gradients are clipped together."""
        return [list(self.module.parameters())]
