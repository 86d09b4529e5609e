"""Stage `painter`: a denoiser becomes a painter of few steps, by adversarial fine-tuning.

One network call gives a clean estimate at any noise level; sampling adds fresh noise to it at the next level (as
adversarial diffusion distillation, Sauer et al. 2023, and consistency models do). The estimate is decoded and compared
with the decoded clean latents, so that the losses of the autoencoder tell nothing: by a projected discriminator that
sees the condition, by features of a frozen pretrained network, and by the bundle's own encoder.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_tilegen.bundle import ModelBundle, Sampling, save_component, update_info
from ssl_tilegen.config.train import RunSettings
from ssl_tilegen.config.train.painter import PainterSettings
from ssl_tilegen.diffusion.schedule import Schedule
from ssl_tilegen.diffusion.stack import sample_stack
from ssl_tilegen.diffusion.steppers import stepper_named
from ssl_tilegen.encoders.bundle_encoder import encoder_of
from ssl_tilegen.encoders.module_encoder import NetworkEncoder
from ssl_tilegen.errors import SettingError
from ssl_tilegen.nets.backbones import load_backbone
from ssl_tilegen.training.contact_sheet import save_contact_sheet
from ssl_tilegen.training.data.balance import balanced
from ssl_tilegen.training.data.batches import Batch, Item, collate
from ssl_tilegen.training.data.corpus import Corpus
from ssl_tilegen.training.data.latent_cache import LatentScene
from ssl_tilegen.training.data.latent_windows import corner_of_tile
from ssl_tilegen.training.denoiser import DenoiserStage
from ssl_tilegen.training.distributed import are_many
from ssl_tilegen.training.objectives.detail import detail_difference
from ssl_tilegen.training.objectives.frechet import FrechetObjective
from ssl_tilegen.training.objectives.image_differences import colour_difference, feature_difference, mean_over, parts_at
from ssl_tilegen.training.objectives.moments import moment_difference
from ssl_tilegen.training.objectives.projected_discriminator import ProjectedDiscriminator, adversarial_losses
from ssl_tilegen.training.objectives.repetition import repetition_difference
from ssl_tilegen.training.painter_pair import PainterPair
from ssl_tilegen.training.stage import StageContext

_UPDATE = "renoise"
_SHIFT_LAT = 2
_CALL = 8  # windows of a validation that are painted at once


class PainterStage(DenoiserStage):
    """Trains a painter and its discriminator together: ``module`` is a `PainterPair`."""

    settings: PainterSettings

    def __init__(self, settings: PainterSettings, *data: Any) -> None:
        super().__init__(settings, *data)
        s, encoder = self.settings, self.bundle.info.encoder
        self._margin_px = self._margin * self.bundle.factor
        self._side_px = s.window_lat * self.bundle.factor - 2 * self._margin_px
        if s.consistency_weight and self._side_px < encoder.tile_px:
            raise SettingError(f"window_lat = {s.window_lat}: its {self._side_px} px hold no tile of {encoder.tile_px} "
                               "px; enlarge it or set consistency_weight = 0")  # fmt: skip
        torch.manual_seed(s.run.seed)
        heads = bool(s.frechet_weight)
        self.backbone = load_backbone(s.backbone, s.backbone_stages, s.backbone_weights, head=heads)
        judge = ProjectedDiscriminator(self.backbone.channels, self._mean, self._spread, s.discriminator_width)
        self.module = PainterPair(self.module, judge, self._frechet())

    @classmethod
    def completed(cls, settings: PainterSettings, bundle: ModelBundle) -> PainterSettings:
        """By default the start is the denoiser of the bundle itself."""
        return settings.model_copy(update={"start_from": settings.start_from or str(bundle.folder)})

    @classmethod
    def weighted(cls, scenes: list[LatentScene], data: Corpus, settings: PainterSettings) -> list[LatentScene]:
        """The scenes, their chances balanced over the domains as ``domain_balance`` asks."""
        return balanced(scenes, settings.domain_balance)

    def _frechet(self) -> FrechetObjective | None:
        if not self.settings.frechet_weight:
            return None
        with torch.no_grad():
            channels = [maps.shape[1] for maps in self._levels(self.backbone(torch.zeros(1, 3, 64, 64)))]
        groups = 2 * (1 + max(scene.group for scene in self.scenes))
        return FrechetObjective(channels, len(self._content(self._mean)), groups, self.settings.frechet_horizon)

    def _levels(self, maps: list[Tensor]) -> list[Tensor]:
        """The features whose distribution counts: the last stage but one, and the last as the backbone pools it."""
        return [*maps[-2:-1], self.backbone.head(maps[-1])]

    @property
    def _margin(self) -> int:
        return self.settings.margin_lat if self.local else 0

    def _inner(self, latents: Tensor) -> Tensor:
        """The part of windows (N, C, h, w) within the margin: what is compared."""
        m = self._margin
        return latents[:, :, m : -m or None, m : -m or None]

    def optimiser(self, run: RunSettings) -> torch.optim.Optimizer:
        """AdamW for both networks, each with its own rate and momenta."""
        s, pair = self.settings, self.module
        painter = [p for p in pair.network.parameters() if p.requires_grad]
        groups = [
            {"params": painter, "betas": (run.beta1, run.beta2), "lr_factor": 1.0},
            {"params": list(pair.discriminator.parameters()), "betas": (s.discriminator_beta1, run.beta2),
             "lr_factor": s.discriminator_lr / run.lr, "weight_decay": 0.0},
        ]  # fmt: skip
        return torch.optim.AdamW(groups, lr=run.lr, weight_decay=run.weight_decay, foreach=True)

    def gradient_groups(self) -> list[list[nn.Parameter]]:
        """Painter and discriminator: each gradient is clipped by itself."""
        return [list(self.module.network.parameters()), list(self.module.discriminator.parameters())]

    def compiled(self, module: Any) -> Any:
        """With the painter compiled; the discriminator is called with other weights, too, and stays as it is."""
        module.network.compile()
        return module

    def item(self, rng: np.random.Generator) -> Item:
        """``calls``: how many network calls made the input; ``before``: the noise each began with; ``shift``: where in
        the first latents the backbone's view starts (px)."""
        s, item = self.settings, super().item(rng)
        item["corner"] = self._corner(item.pop("cells"), s.consistency_at_cells, rng)
        kind, most = rng.random(), len(s.times) - 1
        calls = int(rng.integers(1, most + 1)) if most and kind > 1 - s.own_share else 0
        first = kind < s.first_share or (kind > 1 - s.own_share and not most)
        fraction = s.times[calls] if calls else 1.0 if first else s.least_time + (1 - s.least_time) * rng.random()
        before = rng.standard_normal((most, *item["clean"].shape), np.float32)
        shift = rng.integers(self._shift_px, size=2)
        return item | {"t": self.target.time_at(fraction), "calls": np.array(calls), "before": before, "shift": shift}

    def _corner(self, cells: np.ndarray, at_cell: float, rng: np.random.Generator) -> np.ndarray:
        spare = max(0, self._side_px - self.bundle.info.encoder.tile_px)
        return corner_of_tile(cells, self._margin_px, spare, at_cell, rng)

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted losses of painter and discriminator together, and each part without its weight."""
        s, clean, field = self.settings, batch["clean"], batch["field"]
        x, _, _ = self.target.noisy(self._beneath(module.network, batch), batch["noise"], batch["t"])
        raw = self._predict(module.network, x, batch["t"], field).float()
        painted = self.target.clean_estimate(raw, x, batch["t"])
        painted, clean = self._inner(painted), self._inner(clean)
        image = self._decoded(painted)
        with torch.no_grad():
            wanted = self._decoded(clean)
            real = self._features(wanted, batch["shift"])
        made = self._features(image, batch["shift"])
        adversarial, of_discriminator = adversarial_losses(module.discriminator, made, real, self._map(field))
        parts = {
            "square": self._square(painted, clean, batch),
            "features": feature_difference(made, real),
            "adversarial": adversarial,
            "consistency": self._consistency(image, wanted, field, batch["corner"]),
            "colour": self._colour(image, wanted, field),
            "moments": moment_difference(painted, clean).mean(),
            "repetition": repetition_difference(image, wanted, self.bundle.factor).mean(),
            "detail": detail_difference(image, wanted).mean(),
            "discriminator": of_discriminator,
        }
        if module.frechet is not None:
            group = 2 * batch["group"] + (batch["calls"] > 0)  # what follows from its own work is judged by itself
            parts["frechet"] = module.frechet(self._levels(made), self._levels(real), self._told(field), group)
        counts = float(int(module.batches) >= s.adversarial_from * s.run.accumulate)
        module.batches.add_(int(module.training))
        weights = {"square": s.square_weight, "features": s.feature_weight, "discriminator": 1.0,
                   "consistency": s.consistency_weight, "colour": s.colour_weight, "moments": s.moment_weight,
                   "repetition": s.repetition_weight, "frechet": s.frechet_weight, "detail": s.detail_weight,
                   "adversarial": counts * s.adversarial_weight}  # fmt: skip
        loss = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return loss, {name: part.detach() for name, part in parts.items()}

    def _map(self, condition: Tensor) -> Tensor:
        """The embeddings of a condition as a map (N, D, h, w): of a field, or of the cells of a window row by row."""
        if self.local:
            return condition[:, : self.bundle.info.encoder.dim]
        side = round(condition.shape[1] ** 0.5)
        return condition.transpose(1, 2).unflatten(2, (side, side))

    def _content(self, embedding: Tensor) -> Tensor:
        """The part of an embedding (D, ...) that is not layout."""
        info = self.bundle.info.encoder
        return embedding[: info.dim - info.layout_dim]

    def _told(self, field: Tensor) -> Tensor:
        """The mean content of each condition, in deviations (N, C); zero where it is not given."""
        mean, spread = (self._content(part).to(field.device) for part in (self._mean, self._spread))
        content = self._map(field)[:, : len(mean)].mean((2, 3))
        return ((content - mean) / spread).nan_to_num(0.0)

    @torch.no_grad()
    def _beneath(self, network: Any, batch: Batch) -> Tensor:
        """The input without its noise (N, C, h, w): the clean latents, or those that the painter made from
        pure noise in ``calls`` calls."""
        beneath = torch.where((batch["calls"] > 0)[:, None, None, None], 0.0, batch["clean"])
        for call, fraction in enumerate(self.settings.times[:-1]):
            own = batch["calls"] > call
            asked = own if own.any() else torch.arange(len(own), device=own.device) == 0
            if not (own.any() or are_many()):  # where weights are sharded, all call the network equally often
                break
            t = batch["t"].new_full((int(asked.sum()),), float(self.target.time_at(fraction)))
            x, _, _ = self.target.noisy(beneath[asked], batch["before"][asked, call], t)
            x = x.contiguous(memory_format=torch.channels_last)
            raw = self._predict(network, x, t, batch["field"][asked]).float()
            if own.any():
                beneath[own] = self.target.clean_estimate(raw, x, t)
        return beneath

    def _square(self, painted: Tensor, clean: Tensor, batch: Batch) -> Tensor:
        """The squared error, which counts less the less of the real latents the input shows."""
        with torch.no_grad():
            shown = torch.where(batch["calls"] > 0, 0.0, 1 - self.target.noise_fraction(batch["t"]))
        return ((shown + self.settings.square_at_noise) * (painted - clean).square().mean((1, 2, 3))).mean()

    def _decoded(self, latents: Tensor) -> Tensor:
        """Normalised latents (N, C, h, w) -> images (N, 3, H, W) in about [-1, 1], with gradients."""
        mean, scale = (torch.from_numpy(v).to(latents.device)[:, None, None]
                       for v in (self.latent_mean, self.latent_scale))  # fmt: skip
        raw = (latents / scale + mean).contiguous(memory_format=torch.channels_last)
        image = self.bundle.autoencoder.decode(raw)
        return getattr(image, "sample", image).clamp(-1.1, 1.1)

    def _features(self, image: Tensor, shifts: Tensor) -> list[Tensor]:
        """The backbone's features of a view that starts anywhere within the first latents. If its strides always met
        those of decoder and painter, a pattern that repeats from latent to latent could raise its features."""
        return self.backbone.to(image.device)(parts_at(image, shifts, self._side_px - self._shift_px))

    @property
    def _shift_px(self) -> int:
        """How far the backbone's view may be shifted: by two latents, or less where the window is small."""
        return min(_SHIFT_LAT * self.bundle.factor, self._side_px // 4)

    def _consistency(self, image: Tensor, wanted: Tensor, field: Tensor, corners: Tensor) -> Tensor:
        """1 - the cosine of the encoder on a tile of each image to that of the real one: content and layout each, as
        far as the condition tells them."""
        info = self.bundle.info.encoder
        if not self.settings.consistency_weight:
            return image.new_zeros(())
        with torch.no_grad():
            asked = self._embedded(wanted, corners)
        found, content = self._embedded(image, corners), info.dim - info.layout_dim
        known = ~self._map(field).isnan().all(3).all(2)
        parts = [(slice(content), known[:, 0])]
        if info.layout_dim:
            parts.append((slice(content, info.dim), known[:, info.dim - 1]))
        costs = [mean_over(1 - nn.functional.cosine_similarity(found[:, part], asked[:, part]), mask)
                 for part, mask in parts]  # fmt: skip
        return torch.stack(costs).mean()

    def _colour(self, image: Tensor, wanted: Tensor, field: Tensor) -> Tensor:
        """`colour_difference` where the condition tells the layout."""
        known = ~self._map(field)[:, self.bundle.info.encoder.dim - 1].isnan().flatten(1).all(1)
        return mean_over(colour_difference(image, wanted), known)

    def _embedded(self, images: Tensor, corners: Tensor) -> Tensor:
        """The bundle's encoder on the tile of each image (N, 3, H, W) that starts at its corner: (N, D)."""
        return self._encoder.vectors(parts_at(images, corners, self.bundle.info.encoder.tile_px) * 0.5 + 0.5)

    @cached_property
    def _encoder(self) -> NetworkEncoder:
        return encoder_of(self.bundle)

    @torch.no_grad()
    def sample(self, module: Any, path: Path) -> dict[str, float]:
        """Rows: source windows (where they are at hand), their latents decoded, and windows painted in few steps."""
        device = next(module.network.parameters()).device
        batch = collate(self._fixed, device)
        painted = self.paint(module.network, batch["noise"], batch["field"])
        save_contact_sheet(path, [*self._sources, *(self._pixels(latents) for latents in (batch["clean"], painted))])
        return self._validation(module, device)

    def paint(self, network: Any, noise: Tensor, field: Tensor) -> Tensor:
        """Clean latents from ``noise`` in the painter's own few steps, as `generate` takes them."""
        schedule = Schedule.at_times(self.target.scheduler, self.settings.times)
        generator = torch.Generator().manual_seed(0)
        fresh = lambda window, stream: torch.randn(noise.shape, generator=generator).to(noise.device)  # noqa: E731
        return sample_stack(noise, schedule, self.clean_of(network), field, stepper_named(_UPDATE), noise=fresh)

    def _validation(self, module: Any, device: torch.device) -> dict[str, float]:
        """How well windows of the validation images, painted from noise, keep to their conditions."""
        if not self._measured or not self.settings.consistency_weight:
            return {}
        costs, rng = [], np.random.default_rng(0)
        for first in range(0, len(self._measured), _CALL):
            batch = collate(self._measured[first : first + _CALL], device)
            painted = self.paint(module.network, batch["noise"], batch["field"])
            image, wanted = (self._decoded(self._inner(part)) for part in (painted, batch["clean"]))
            corners = np.stack([self._corner(cells, 1.0, rng) for cells in batch["cells"].numpy(force=True)])
            costs.append(float(self._consistency(image, wanted, batch["field"], torch.from_numpy(corners))))
        return {"validation_consistency": round(float(np.mean(costs)), 6)}

    def export(self, module: Any, context: StageContext) -> None:
        """The painter as the bundle's denoiser, and the few steps in which it paints."""
        times = self.settings.times
        sampling = Sampling(times=times, steps=len(times), update=_UPDATE, guidance=1.0)
        save_component(module.network, context.bundle_folder / "denoiser")
        update_info(context.bundle_folder, **self.facts(), recipes={}, sampling=sampling)  # no recipe of before fits
