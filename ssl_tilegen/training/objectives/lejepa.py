"""LeJEPA's loss (Balestriero & LeCun 2025, arXiv 2511.08544): views agree, and embeddings follow an isotropic Gaussian.

Views of one tile agree with the mean of its global views. The embeddings of a batch are tested along random directions
by the Epps-Pulley statistic (SIGReg). It needs no teacher, no queue and no prototypes. Its embeddings are centred and
of even spread: good conditions for a diffusion model, and easy to sample for a prior.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_tilegen.config.train import EncoderSettings
from ssl_tilegen.training.data.batches import Batch
from ssl_tilegen.training.distributed import gathered
from ssl_tilegen.training.objectives.embedder import Embedder, embed_views

_SLICES = 256


class JointEmbedding(Embedder):
    """A network whose embedding is standardised over the batch, of all processes, while it trains."""

    def forward(self, *views: Tensor) -> Tensor:
        """Views (N, V, 3, S, S) of any sizes -> (N of all processes, sum of V, D), standardised over N and V."""
        raw = gathered(torch.cat([embed_views(self.net, v) for v in views], 1))
        return self.standardise(raw.flatten(0, 1)).unflatten(0, raw.shape[:2])


def joint_embedding_loss(
    module: JointEmbedding, batch: Batch, settings: EncoderSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """How far views are from the centre of their global views, and the batch from a Gaussian."""
    views = module(*[batch[key] for key in ("global", "local") if key in batch])
    whole = views[:, : settings.global_views]
    agreement = (views - whole.mean(1, keepdim=True)).square().mean()
    normality = gaussianity(views.transpose(0, 1), _SLICES)
    with torch.no_grad():
        pair = nn.functional.cosine_similarity(whole[:, 0], whole[:, 1]).mean()
        parts = {"agreement": agreement.detach(), "normality": normality.detach(), "cosine": pair}
    return agreement + settings.gaussian_weight * normality, parts


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
