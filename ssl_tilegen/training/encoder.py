"""Stage `encoder`: a self-supervised network by joint embedding of crops.

The loss is LeJEPA's (Balestriero & LeCun 2025, arXiv 2511.08544): views of one tile agree with the mean of its global
views, and the embeddings of a batch follow an isotropic Gaussian, tested along random directions by the Epps-Pulley
statistic (SIGReg). It needs no teacher, no queue and no prototypes, and gives embeddings that are centred and of
even spread: what a diffusion model wants as a condition and a prior wants to draw. In the end its reproducible
directions are joined with a coarse picture of the tile (``nets.tile_encoder``), fitted in closed form.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.nets import timm_network
from ssl_tilegen.nets.tile_encoder import TileEncoder
from ssl_tilegen.training.data import Corpus, to_signed
from ssl_tilegen.training.loop import Batch
from ssl_tilegen.training.settings import EncoderSettings

_START_CROPS = 3000
_FIT_SHIFT_PX, _FIT_BATCH = 8, 256
_SLICES = 256
_SHOWN_QUERIES, _SHOWN_NEIGHBOURS, _SHOWN_POOL = 8, 7, 1500


class Embedder(nn.Module):
    """A network whose embedding is standardised over the batch while it trains; ``folded`` gives it plain."""

    def __init__(self, net: nn.Module, dim: int) -> None:
        super().__init__()
        self.net: Any = net
        self.standardise: Any = nn.BatchNorm1d(dim, affine=False, momentum=0.05)

    def forward(self, *views: Tensor) -> Tensor:
        """Views (N, V, 3, S, S) of any sizes -> (N, sum of V, D), standardised over N and V."""
        raw = torch.cat([embed_views(self.net, v) for v in views], 1)
        return self.standardise(raw.flatten(0, 1)).unflatten(0, raw.shape[:2])

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """The network with the running statistics folded into its head."""
        net = copy.deepcopy(self.net)
        deviation = (self.standardise.running_var + self.standardise.eps).sqrt()
        head = net.get_classifier()
        head.weight.div_(deviation[:, None])
        head.bias.sub_(self.standardise.running_mean).div_(deviation)
        return net.eval()


class EncoderStage:
    """Trains a timm network on multi-crop views of the corpus."""

    def __init__(self, settings: EncoderSettings, corpus: Corpus) -> None:
        self.settings, self.corpus = settings, corpus
        torch.manual_seed(settings.run.seed)
        net = timm_network(settings.arch, settings.tile_px, settings.features, settings.arch_args)
        self.module = Embedder(net, settings.features)
        if settings.start_from:
            start = ModelBundle.load(settings.start_from).encoder
            net.load_state_dict(getattr(start, "net", start).state_dict())
        else:
            self._start_patches()

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
        projection.bias[: len(order)].copy_(-(basis @ flat.mean(0).float()))

    def item(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        s = self.settings
        margin = s.tile_px // 8
        picture, window = self.corpus.draw(rng, s.tile_px + margin)
        tile = picture.rgb[window.slices]
        whole = [self._view(rng, tile, s.global_scale, s.tile_px) for _ in range(s.global_views)]
        parts = [self._view(rng, tile, s.local_scale, s.local_px) for _ in range(s.local_views)]
        item = {"global": np.stack(whole)}
        return {**item, "local": np.stack(parts)} if parts else item

    def _view(self, rng: np.random.Generator, tile: np.ndarray, scale: tuple[float, float], out_px: int) -> np.ndarray:
        """A random crop of (S, S, 3) at ``scale`` of the tile's side, resized to ``out_px`` and jittered."""
        side = round(self.settings.tile_px * rng.uniform(*scale))
        row, col = rng.integers(tile.shape[0] - side + 1), rng.integers(tile.shape[1] - side + 1)
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
        encoder.set_content(*(torch.cat([net(part) for part in view.split(_FIT_BATCH)]) for view in (one, other)))
        encoder.set_layout(one)
        return encoder.eval()

    def _shifted_pair(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A tile and the same shifted by at most 8 px, turned alike."""
        side = self.settings.tile_px
        both = self.corpus.crop(rng, side + _FIT_SHIFT_PX)
        row, col = rng.integers(_FIT_SHIFT_PX + 1, size=2)
        return both[:side, :side], both[row : row + side, col : col + side]

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        views = module(*[batch[key] for key in ("global", "local") if key in batch])
        whole = views[:, : self.settings.global_views]
        centre = whole.mean(1, keepdim=True)
        agreement = (views - centre).square().mean()
        normality = gaussianity(views.transpose(0, 1), _SLICES)
        loss = agreement + self.settings.gaussian_weight * normality
        with torch.no_grad():
            pair = nn.functional.cosine_similarity(whole[:, 0], whole[:, 1]).mean()
            parts = {"agreement": agreement.detach(), "normality": normality.detach(), "cosine": pair}
        return loss, parts

    @torch.no_grad()
    def sample(self, module: Any, path: Path) -> dict[str, float]:
        """A sheet of query tiles, each followed by its nearest neighbours in the embedding."""
        rng = np.random.default_rng([self.settings.run.seed, 2])
        tiles = np.stack([self.corpus.crop(rng, self.settings.tile_px) for _ in range(_SHOWN_POOL)])
        device = next(module.parameters()).device
        chunks = torch.from_numpy(to_signed(tiles)).split(256)
        net = module.folded()
        z = nn.functional.normalize(torch.cat([net(chunk.to(device)) for chunk in chunks]).float(), dim=1)
        nearest = (z[:_SHOWN_QUERIES] @ z.T).topk(_SHOWN_NEIGHBOURS + 1).indices.cpu().numpy()
        sheet = np.concatenate([np.concatenate(list(tiles[row]), 1) for row in nearest], 0)
        Image.fromarray(sheet).save(path)
        spectrum = torch.linalg.svdvals(z - z.mean(0)).square()
        share = spectrum / spectrum.sum()
        return {"effective_rank": round(float((-(share * share.clamp(min=1e-12).log()).sum()).exp()), 1)}


def embed_views(module: nn.Module, views: Tensor) -> Tensor:
    """(N, V, 3, S, S) -> (N, V, D) in float32."""
    flat = views.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return module(flat).float().unflatten(0, views.shape[:2])


def gaussianity(samples: Tensor, slices: int) -> Tensor:
    """SIGReg: how far (..., N, D) samples are from N(0, I) over N, by the Epps-Pulley test along random directions.

    For each direction: N times the integral over t of |empirical characteristic function - exp(-t^2/2)|^2 under a
    Gaussian window (LeJEPA, eq. 6), averaged over directions and leading axes.
    """
    directions = nn.functional.normalize(torch.randn(samples.shape[-1], slices, device=samples.device), dim=0)
    t = torch.linspace(0, 3, 17, device=samples.device)
    target = (-0.5 * t**2).exp()
    weight = target * (t[1] - t[0]) * 2
    weight[[0, -1]] /= 2
    phase = (samples @ directions)[..., None] * t
    error = (phase.cos().mean(-3) - target).square() + phase.sin().mean(-3).square()
    return (error @ weight).mean() * samples.shape[-2]


def jittered(rng: np.random.Generator, image: np.ndarray, amount: float) -> np.ndarray:
    """Small random change of contrast, brightness and colour balance of (3, H, W) in [-1, 1]."""
    gain = 1 + rng.uniform(-amount, amount, (3, 1, 1)) / 2 + rng.uniform(-amount, amount)
    shift = rng.uniform(-amount, amount, (3, 1, 1)) / 2 + rng.uniform(-amount, amount)
    return (image * gain + shift).clip(-1, 1).astype(np.float32)
