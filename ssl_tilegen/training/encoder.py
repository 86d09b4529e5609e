"""Stage `encoder`: a self-supervised network on crops of tiles, by one of two losses (`lejepa`, `dino`).

In the end its reproducible directions are joined with a coarse image of the tile (``nets.tile_encoder``), fitted in
closed form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_tilegen.bundle import EncoderInfo, ModelBundle, save_component, update_info
from ssl_tilegen.config.train import EncoderSettings
from ssl_tilegen.nets import timm_network
from ssl_tilegen.nets.backbones import fill_packaged
from ssl_tilegen.nets.tile_encoder import TileEncoder
from ssl_tilegen.training.contact_sheet import save_contact_sheet
from ssl_tilegen.training.data.batches import Batch, Item
from ssl_tilegen.training.data.colour_jitter import jittered
from ssl_tilegen.training.data.corpus import Corpus, load_corpus, to_signed
from ssl_tilegen.training.objectives.dino import SelfDistilled, distillation_loss, random_mask
from ssl_tilegen.training.objectives.lejepa import JointEmbedding, joint_embedding_loss
from ssl_tilegen.training.pretrained import keep_pretrained
from ssl_tilegen.training.probe import load_probe
from ssl_tilegen.training.stage import Stage, StageContext

_START_CROPS = 3000
_FIT_SHIFT_PX, _FIT_BATCH = 8, 256
_SHOWN_QUERIES, _SHOWN_NEIGHBOURS, _SHOWN_POOL = 8, 7, 1500


class PretrainedEncoder(Stage):
    """An encoder that is taken as it is: nothing is trained."""

    def __init__(self, settings: EncoderSettings, corpus: Corpus) -> None:
        self.settings, self.corpus, self.module = settings, corpus, None

    def export(self, module: Any, context: StageContext) -> None:
        """Record the pretrained encoder in the bundle."""
        keep_pretrained(self.settings, self.corpus.resolutions, context.bundle_folder)


class EncoderStage(Stage):
    """Trains a timm network on multi-crop views of the corpus."""

    whole_run_only = True

    def __init__(self, settings: EncoderSettings, corpus: Corpus) -> None:
        self.settings, self.corpus = settings, corpus
        torch.manual_seed(settings.run.seed)
        net = timm_network(settings.arch, settings.tile_px, settings.features, settings.arch_args)
        self.module: Any = (
            JointEmbedding(net, settings.features) if settings.loss == "lejepa" else SelfDistilled(net, settings)
        )
        if settings.start_from:
            start = ModelBundle.load(settings.start_from).encoder
            net.load_state_dict(getattr(start, "net", start).state_dict())
        elif settings.start_weights:
            fill_packaged(getattr(net, "body", net), settings.start_weights)
        else:
            self._start_patches()
        if isinstance(self.module, SelfDistilled):
            self.module.start_teacher()
        self._probe = load_probe(settings.probe, settings.tile_px) if settings.probe else None

    @classmethod
    def load_data(cls, settings: EncoderSettings, context: StageContext) -> Corpus:
        """The images at their own resolutions: this stage decides those of the bundle."""
        return load_corpus(settings.data, context.say)

    @classmethod
    def prepare(cls, settings: EncoderSettings, data: Corpus, context: StageContext) -> Any:
        """The stage for these settings: trained here, or pretrained and taken as it is."""
        return PretrainedEncoder(settings, data) if settings.pretrained else cls(settings, data)

    def export(self, module: Any, context: StageContext) -> None:
        """Fit content and layout in closed form, and save the encoder into the bundle."""
        s, encoder, folder = self.settings, self.finished(module), context.bundle_folder
        facts: dict[str, Any] = {"tile_px": s.tile_px, "dim": s.dim if s.layout_dim else s.features}
        config = facts | {"_class_name": type(encoder).__name__, "arch": s.arch, "arch_args": s.arch_args,
                          "features": s.features, "layout_px": s.layout_px, "layout_dim": s.layout_dim}  # fmt: skip
        save_component(encoder, folder / "encoder", config)
        name = f"{s.arch}-{s.tile_px}px-{facts['dim']}d" + (f"-layout{s.layout_dim}" if s.layout_dim else "")
        resolutions = {domain: (r.value, r.unit) for domain, r in self.corpus.resolutions.items()}
        update_info(folder, encoder=EncoderInfo(id=name, layout_dim=s.layout_dim, **facts), resolutions=resolutions)

    @torch.no_grad()
    def _start_patches(self) -> None:
        """Start the first kernels at the whitened principal components of the training patches."""
        projection: Any = next(m for m in self.module.net.modules() if isinstance(m, nn.Conv2d))
        side, width = projection.kernel_size[0], projection.out_channels
        rng = np.random.default_rng([self.settings.run.seed, 0])
        crops = np.stack([self.corpus.crop(rng, side) for _ in range(_START_CROPS)])
        flat = torch.from_numpy(to_signed(crops)).flatten(1).double()
        variance, vectors = torch.linalg.eigh(torch.cov((flat - flat.mean(0)).T))
        order = variance.argsort(descending=True)[: min(width, flat.shape[1])]
        basis = (vectors[:, order] / variance[order].clamp(min=1e-4).sqrt()).T.float()
        projection.weight[: len(order)].copy_(basis.reshape(-1, 3, side, side))
        if projection.bias is not None:
            projection.bias[: len(order)].copy_(-(basis @ flat.mean(0).float()))

    def item(self, rng: np.random.Generator) -> Item:
        """Large and small crops of one random tile, changed in colour and orientation."""
        s = self.settings
        margin = s.tile_px // 8
        tile = self.corpus.sample(rng, s.tile_px + margin)
        whole = [self._view(rng, tile, s.global_scale, s.tile_px) for _ in range(s.global_views)]
        parts = [self._view(rng, tile, s.local_scale, s.local_px) for _ in range(s.local_views)]
        item = {"global": np.stack(whole)}
        if parts:
            item["local"] = np.stack(parts)
        if isinstance(self.module, SelfDistilled) and self.module.patches:
            item["mask"] = np.stack([random_mask(rng, self.module.patches, s.masked) for _ in whole])
        return item

    def _view(self, rng: np.random.Generator, tile: np.ndarray, scale: tuple[float, float], out_px: int) -> np.ndarray:
        """A random crop of (S, S, 3) at ``scale`` of the tile's side, resized to ``out_px`` and jittered."""
        side = round(self.settings.tile_px * rng.uniform(*scale))
        row, col = rng.integers(tile.shape[0] - side + 1), rng.integers(tile.shape[1] - side + 1)
        tile = self.corpus.recoloured(rng, tile)
        crop = Image.fromarray(np.ascontiguousarray(tile[row : row + side, col : col + side]))
        view = to_signed(np.asarray(crop.resize((out_px, out_px), Image.Resampling.BICUBIC)))
        return jittered(rng, view, self.settings.jitter)

    @torch.no_grad()
    def finished(self, module: Any) -> nn.Module:
        """The encoder to keep: the trained network, with the layout beside it if the settings ask for one."""
        s, net = self.settings, module.folded()
        if not s.layout_dim:
            return net
        encoder = TileEncoder(net, s.features, s.dim - s.layout_dim, s.layout_px, s.layout_dim)
        rng = np.random.default_rng([s.run.seed, 5])
        pairs = [self._shifted_pair(rng) for _ in range(s.fit_tiles)]
        one, other = (torch.from_numpy(to_signed(np.stack(tiles))) for tiles in zip(*pairs, strict=True))
        first, second = (torch.cat([net(part) for part in view.split(_FIT_BATCH)]) for view in (one, other))
        encoder.set_content(first, second, self._feature_scale(net, first))
        encoder.set_layout(one)
        return encoder.eval()

    def _feature_scale(self, net: Any, features: Tensor) -> Tensor | None:
        """What gives the features (N, C) of each stage the mean deviation that the settings ask for: (C,)."""
        weights = self.settings.stage_weights
        if not weights:
            return None
        stages = zip(weights, features.std(0).split(net.channels), strict=True)
        return torch.cat([(weight / own.mean().clamp(min=1e-8)).expand_as(own) for weight, own in stages])

    def _shifted_pair(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A tile, and the same turned alike, shifted by at most 8 px and recoloured (``data.stain``, brightness)."""
        side = self.settings.tile_px
        both = self.corpus.crop(rng, side + _FIT_SHIFT_PX)
        row, col = rng.integers(_FIT_SHIFT_PX + 1, size=2)
        other = np.ascontiguousarray(both[row : row + side, col : col + side])
        return both[:side, :side], self.corpus.recoloured(rng, other)

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The self-supervised loss of the settings (lejepa or dino), and its terms by name."""
        loss: Any = joint_embedding_loss if self.settings.loss == "lejepa" else distillation_loss
        return loss(module, batch, self.settings)

    @torch.no_grad()
    def sample(self, module: Any, path: Path) -> dict[str, float]:
        """A sheet of query tiles, each followed by its nearest neighbours in the embedding; returns probe scores."""
        rng = np.random.default_rng([self.settings.run.seed, 2])
        tiles = np.stack([self.corpus.held_out.crop(rng, self.settings.tile_px) for _ in range(_SHOWN_POOL)])
        device = next(module.parameters()).device
        chunks = torch.from_numpy(to_signed(tiles)).split(256)
        net = module.folded()
        z = nn.functional.normalize(torch.cat([net(chunk.to(device)) for chunk in chunks]).float(), dim=1)
        nearest = (z[:_SHOWN_QUERIES] @ z.T).topk(_SHOWN_NEIGHBOURS + 1).indices.cpu().numpy()
        save_contact_sheet(path, [tiles[row] for row in nearest])
        spectrum = torch.linalg.svdvals(z - z.mean(0)).square()
        share = spectrum / spectrum.sum()
        rank = {"effective_rank": round(float((-(share * share.clamp(min=1e-12).log()).sum()).exp()), 1)}
        return rank | (self._probe.scores(net, device) if self._probe else {})
