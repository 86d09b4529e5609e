"""Stage `denoiser`: windows anywhere between the cells, conditioned as the generator will condition.

The paper trains on patches aligned with their own embedding and then generates between cells, where the network has
never been. Here every training window lies at a random offset from the lattice and its condition is interpolated from
the cells around it: the same code that `generate` uses. Any network of `nets` or of diffusers that takes (latents,
times, condition) may be trained, for flow, v or noise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle, Sampling, save_component, update_info
from ssl_tilegen.diffusion.conditioning import Conditioning
from ssl_tilegen.diffusion.guidance import CleanOf
from ssl_tilegen.diffusion.parameterization import to_clean
from ssl_tilegen.diffusion.schedule import Schedule, Step
from ssl_tilegen.diffusion.stack import sample_stack
from ssl_tilegen.diffusion.steppers import stepper_named
from ssl_tilegen.errors import SettingError
from ssl_tilegen.nets import build_component
from ssl_tilegen.nets.noise_schedule import is_flow
from ssl_tilegen.nets.window import is_local, predict
from ssl_tilegen.training.conditioning import brings_conditioner, conditioner_of, conditioning_of
from ssl_tilegen.training.contact_sheet import save_contact_sheet
from ssl_tilegen.training.data.batches import Batch, Item, collate
from ssl_tilegen.training.data.corpus import Corpus, apply_d4
from ssl_tilegen.training.data.latent_cache import LatentScene, scenes_of
from ssl_tilegen.training.data.latent_windows import TrainingWindows
from ssl_tilegen.training.denoiser_network import network_config
from ssl_tilegen.training.objectives.flat_ground import flat_ground_counts
from ssl_tilegen.training.objectives.targets import Target
from ssl_tilegen.training.stage import Stage, StageContext
from ssl_tilegen.training.start import Start
from ssl_tilegen.training.statistics import (
    condition_statistics,
    fitted_cell_decoder,
    fitted_colour,
    latent_deviation,
    latent_statistics,
)
from ssl_tilegen.training.translation import translated_weights

_SHOWN, _SHOWN_STEPS = 8, 16
_MEASURED = 64
_TRANSLATED = 3000


class DenoiserStage(Stage):
    """Trains a denoiser on cached scenes; ``held_out`` are scenes for the scores and images.

    ``settings`` are `DenoiserSettings`, or those of a stage that trains a denoiser on in another way.
    """

    def __init__(
        self,
        settings: Any,
        bundle: ModelBundle,
        scenes: list[LatentScene],
        held_out: list[LatentScene] | None = None,
        corpus: Corpus | None = None,
    ) -> None:
        self._start = Start.of(settings, bundle)
        settings = self._start.completed(settings) if self._start else settings
        self.settings, self.bundle, self.scenes, self.corpus = settings, bundle, scenes, corpus
        self.module: Any
        self._make_network()
        stride = self.module.field_stride if self.local else 1
        if settings.window_lat % stride:
            raise SettingError(f"window_lat = {settings.window_lat}: this network takes multiples of {stride}")
        self.conditioning: Conditioning = conditioning_of(self.module, bundle, settings.window_lat)
        self._conditioner = None if self.local else conditioner_of(bundle, unit_length=self.l2_condition)
        self._windows = TrainingWindows(scenes, self, self._spread)
        shown = TrainingWindows(held_out, self, self._spread) if held_out else self._windows
        rng = np.random.default_rng([settings.run.seed, 4])
        fixed = [shown.item_and_place(rng) for _ in range(_SHOWN)]
        self._fixed, self._sources = [item for item, _ in fixed], self._source_pixels([place for _, place in fixed])
        self._measured = [shown.item(rng) for _ in range(_MEASURED)] if held_out else []

    @classmethod
    def prepare(cls, settings: Any, data: Corpus, context: StageContext) -> Self:
        """Load the bundle, and the latents of all images from the cache or through the autoencoder."""
        bundle = context.source_bundle(settings.bundle, "encoder", "autoencoder")
        say, cache = context.say, context.cache
        settings = cls.completed(settings, bundle)
        held_out = (
            scenes_of(data.validation, bundle, settings, cache, say, context.count_cached) if data.validation else None
        )
        scenes = cls.weighted(scenes_of(data, bundle, settings, cache, say, context.count_cached), data, settings)
        stage = cls(settings, bundle, scenes, held_out, data.held_out)
        if stage.said_of_start:
            say(stage.said_of_start)
        return stage

    @classmethod
    def completed(cls, settings: Any, bundle: ModelBundle) -> Any:
        """The settings, with those that the bundle decides."""
        return settings

    @classmethod
    def weighted(cls, scenes: list[LatentScene], data: Corpus, settings: Any) -> list[LatentScene]:
        """The scenes to train on, with the chances that they are drawn with."""
        return scenes

    def export(self, module: Any, context: StageContext) -> None:
        """Save the averaged denoiser, and record how it is conditioned and sampled."""
        save_component(module, context.bundle_folder / "denoiser")
        info = update_info(context.bundle_folder, **self.facts())
        if info.sampling.times:  # of the painter that it started from
            update_info(context.bundle_folder, sampling=Sampling())

    def facts(self) -> dict[str, Any]:
        """The facts of the denoiser that the bundle records."""
        own_conditioning = not self.local and brings_conditioner(self.bundle)
        return {
            "scheduler": self.target.scheduler,
            "locality": "local" if self.local else "window",
            "conditioning": self.bundle.info.conditioning if own_conditioning else None,
            "window_px": self.settings.window_lat * self.bundle.factor,
            "stride_px": [self.bundle.info.encoder.tile_px],
            "latent_mean": [round(float(v), 6) for v in self.latent_mean],
            "latent_scale": [round(float(v), 6) for v in self.latent_scale],
            "prediction_type": self.target.prediction,
            "l2_condition": self.l2_condition and not self.local,
            "time_scale": self.time_scale,
            "training": json.loads(self.settings.run.model_dump_json()),
        }

    def _make_network(self) -> None:
        """The network, with its statistics and the weights it starts from."""
        s, start = self.settings, self._start
        theirs = start.latent_statistics() if start and s.start_statistics else None
        self.latent_mean, self.latent_scale = theirs or latent_statistics(self.scenes, self.bundle, s.latent_gain)
        self.target = Target.of(s)
        torch.manual_seed(s.run.seed)  # not before: loading the bundle's networks draws numbers, too
        self.module = build_component(network_config(s, self.bundle, start, self.target))
        self.local = is_local(self.module)
        self.l2_condition = s.l2_condition if s.l2_condition is not None else not self.local
        self.time_scale = 1000.0 if is_flow(self.target.scheduler) and not self.local else 1.0
        if start and start.net(s.net) and start.theirs.info.prediction_type == self.target.prediction:
            self.time_scale = start.theirs.info.time_scale
            self.l2_condition = start.theirs.info.l2_condition if s.l2_condition is None else s.l2_condition
        self._mean, self._spread = (torch.from_numpy(v) for v in condition_statistics(self.scenes))
        if self.local:
            self._set_statistics()
        self.said_of_start = ""
        if start:
            self.said_of_start = start.fill(self.module, statistics=s.start_statistics, weights=self._translated(start))

    def _translated(self, start: Start) -> dict[str, Tensor] | None:
        """The weights of the start for the vectors of our encoder; None where they need no translation."""
        if not (self.local and self.corpus and start.needs_translation):
            return None
        rng, side = np.random.default_rng([self.settings.run.seed, 6]), self.bundle.info.encoder.tile_px
        tiles = np.stack([self.corpus.crop(rng, side) for _ in range(_TRANSLATED)])
        weights = start.theirs.denoiser.state_dict()
        return translated_weights(weights, start.theirs, self.bundle, tiles, self._mean, self._spread)

    def _set_statistics(self) -> None:
        """Fill the buffers of a local network, and its coarse latents."""
        self.module.condition_mean.copy_(self._mean)
        self.module.condition_std.copy_(self._spread)
        self.module.latent_std.copy_(torch.from_numpy(latent_deviation(self.scenes, self.latent_scale)))
        if self.module.sketch_side:
            weight, bias = fitted_cell_decoder(
                self.scenes, self.module.sketch_side, self.bundle.factor, self.normalised
            )
            self.module.sketch.weight.copy_(torch.from_numpy(weight))
            self.module.sketch.bias.copy_(torch.from_numpy(bias))
        if self.module.colour_rounds:
            self.module.colour.copy_(torch.from_numpy(fitted_colour(self.scenes, self.bundle, self.normalised)))

    def normalised(self, raw: np.ndarray) -> np.ndarray:
        """Raw latents (C, ...) as the network sees them."""
        shape = (-1, *[1] * (raw.ndim - 1))
        return (raw.astype(np.float32) - self.latent_mean.reshape(shape)) * self.latent_scale.reshape(shape)

    def item(self, rng: np.random.Generator) -> Item:
        """A window of latents with its condition, noise and time."""
        return self._windows.item(rng)

    def draw_time(self, rng: np.random.Generator) -> np.ndarray:
        """The time of a training item, as the network counts."""
        return self.target.sample_times(rng)

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted squared error of the prediction, without the margin that sees the window's border."""
        x, wanted, weight = self.target.noisy(batch["clean"], batch["noise"], batch["t"])
        m = self.settings.margin_lat if self.local else 0
        error = self._predict(module, x, batch["t"], batch["field"]).float() - wanted
        with torch.no_grad():
            alpha, sigma = self.target.levels(batch["t"])
            noise = sigma / (alpha + sigma)
            of_place = flat_ground_counts(batch["clean"], self.settings.flat_weight * (1 - noise))
        squares = of_place * error.square().mean(1)
        of_item = squares[:, m : -m or None, m : -m or None].mean((1, 2))
        with torch.no_grad():
            parts = {"early": _mean_where(of_item, noise > 0.6), "late": _mean_where(of_item, noise < 0.3)}
        return (weight * of_item).mean(), parts

    def _predict(self, module: Any, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        conditioner = None if self._conditioner is None else self._conditioner.to(x.device)
        return predict(module, x, t, condition, conditioner, time_scale=self.time_scale)

    @torch.no_grad()
    def sample(self, module: Any, path: Path) -> dict[str, float]:
        """Rows: source windows (where they are at hand), their latents decoded, and windows generated from their
        conditions."""
        device = next(module.parameters()).device
        clean, condition, x = (
            torch.from_numpy(np.stack([item[key] for item in self._fixed])).to(device)
            for key in ("clean", "field", "noise")
        )
        schedule = Schedule.from_config(self.target.scheduler, _SHOWN_STEPS)
        painted = sample_stack(x, schedule, self.clean_of(module), condition, stepper_named("ddim"))
        save_contact_sheet(path, [*self._sources, *(self._pixels(latents) for latents in (clean, painted))])
        return self._validation_loss(module, device)

    def clean_of(self, network: Any) -> CleanOf:
        """The clean estimate of ``network`` in float32, whatever it is trained to predict."""
        convert = to_clean(self.target.prediction)

        def clean_of(x: Tensor, condition: Tensor | None, step: Step) -> Tensor:
            assert condition is not None  # as of every item
            t = torch.full((len(x),), step.t, device=x.device)
            return convert(self._predict(network, x, t, condition).float(), x, step)

        return clean_of

    def _validation_loss(self, module: Any, device: torch.device) -> dict[str, float]:
        """The loss on fixed windows of the validation images, at fixed times and noise."""
        if not self._measured:
            return {}
        return {"validation_loss": round(float(self.loss(module, collate(self._measured, device))[0]), 6)}

    def _pixels(self, latents: Tensor) -> np.ndarray:
        """Normalised latents -> (N, H, W, 3) uint8."""
        mean = torch.from_numpy(self.latent_mean).to(latents.device)[:, None, None]
        scale = torch.from_numpy(self.latent_scale).to(latents.device)[:, None, None]
        images = self.bundle.decode_raw((latents / scale + mean).to(self.bundle.device))
        return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()

    def _source_pixels(self, places: list[Any]) -> list[np.ndarray]:
        """One row (N, H, W, 3) of the pixels under the shown windows; none for caches that do not know where from."""
        corpus = self.corpus
        if corpus is None:
            return []
        row = []
        for scene, window in places:
            whole, _ = corpus.images[scene.origin.image].take(scene.origin.part)
            row.append(apply_d4(whole, scene.origin.d4)[window.scaled(self.bundle.factor).slices])
        return [np.stack(row)]


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return values[mask].mean() if mask.any() else values.mean()
