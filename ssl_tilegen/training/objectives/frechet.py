"""The conditional Frechet distance of painted to real windows as a loss, by moving averages of feature moments.

A batch is too small for a covariance. Averages over the last thousand windows or so are not, and the newest batch gives
them a gradient. It shows the painter what no single window can: that its windows together vary less than real ones do,
or follow the condition less. The distance is that of Soloveitchik et al. 2021 (arXiv 2103.11521), of three parts: the
means differ; the linear regressions of the features on the condition differ; what the condition does not tell varies
differently.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_tilegen.training.distributed import gathered

_COMPONENTS = 64
_ENOUGH = 128  # windows of a group before its distance counts; fewer where the horizon is shorter
_RIDGE = 0.03  # of the regression


class FrechetObjective(nn.Module):
    """Pooled features of painted and real windows -> their distance, and moving averages of their moments.

    Each level of features and each group (such as H&E, aerial) has its own averages, over about ``horizon`` windows.
    What the condition (``told`` numbers) does not tell counts in the 64 leading principal components of real windows.
    They follow the averages by one orthogonal iteration per batch.
    """

    keep_together = True
    seen: Tensor

    def __init__(self, channels: Sequence[int], told: int, groups: int, horizon: int) -> None:
        super().__init__()
        self.levels, self.horizon = len(channels), horizon
        self.register_buffer("seen", torch.zeros(groups))
        for level, count in enumerate(channels):
            self.register_buffer(f"mean{level}", torch.zeros(groups, 2, count + told))
            self.register_buffer(f"square{level}", torch.zeros(groups, 2, count + told, count + told))
            self.register_buffer(f"basis{level}", torch.eye(count)[:, :_COMPONENTS].repeat(groups, 1, 1))

    def forward(self, made: Sequence[Tensor], real: Sequence[Tensor], told: Tensor, group: Tensor) -> Tensor:
        """The distance, a mean over levels and windows.

        Its gradient is the one that all windows of the averages would have, were they these. In training the averages
        move on.

        Args:
            made: Feature maps [(N, C_k, h_k, w_k)] of painted windows.
            real: Those of the real windows of the same conditions.
            told: Their conditions (N, D), at a scale of one.
            group: The group of each (N,).
        """
        with torch.autocast(group.device.type, enabled=False):  # covariances need all their digits
            return self._distance(made, real, told.float(), group)

    def _distance(self, painted: Sequence[Tensor], actual: Sequence[Tensor], told: Tensor, group: Tensor) -> Tensor:
        pairs = zip(painted, actual, strict=True)
        pooled = [[gathered(torch.cat([maps.float().mean((2, 3)), told], 1)) for maps in pair] for pair in pairs]
        group = gathered(group)
        total = pooled[0][0].new_zeros(())
        for number in group.unique().tolist():
            own = group == number
            count, before = int(own.sum()), float(self.seen[number])
            share = max(1 - (1 - 1 / self.horizon) ** count, count / (before + count))
            for level, pair in enumerate(pooled):
                made, real = (
                    self._moved(level, number, side, features[own], share) for side, features in enumerate(pair)
                )
                basis = self._turned(level, number, *real)
                if before >= min(_ENOUGH, self.horizon):
                    distance = conditional_distance(made, real, basis)
                    strong = distance + (1 / share - 1) * (distance - distance.detach())
                    total = total + strong * count / len(group) / self.levels
            if self.training:
                self.seen[number] += count
        return total

    def _moved(self, level: int, group: int, side: int, features: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """The mean and the mean outer product with these features counted in; kept, in training."""
        means, squares = (getattr(self, f"{name}{level}")[group, side] for name in ("mean", "square"))
        mean = means.lerp(features.mean(0), share)
        square = squares.lerp(features.T @ features / len(features), share)
        if self.training:
            means.copy_(mean.detach())
            squares.copy_(square.detach())
        return mean, square

    @torch.no_grad()
    def _turned(self, level: int, group: int, mean: Tensor, square: Tensor) -> Tensor:
        """The components (C, 64) of features that count, turned towards those of what the condition does not tell of
        the real windows, of these moments; kept, in training."""
        kept = getattr(self, f"basis{level}")[group]
        covariance, count = square - torch.outer(mean, mean), len(kept)
        of_both, of_condition = covariance[count:, :count], _ridged(covariance[count:, count:])
        turned = covariance[:count, :count] @ kept - of_both.T @ torch.linalg.solve(of_condition, of_both @ kept)
        basis = torch.linalg.qr(turned)[0]
        if self.training:
            kept.copy_(basis)
        return basis


Moments = tuple[Tensor, Tensor]
"""The mean (C + D,) and the mean outer product (C + D, C + D) of C features with the D numbers of the condition."""


def conditional_distance(made: Moments, real: Moments, basis: Tensor) -> Tensor:
    """The squared conditional Frechet distance in units of the variance of the real features: 0 for the same.

    Both have the same conditions. ``basis`` (C, K): the components in which the remainders are compared.
    """
    count = len(basis)
    mean, real_mean = made[0][:count], real[0][:count]
    covariance, real_covariance = (square - torch.outer(centre, centre) for centre, square in (made, real))
    of_condition = _ridged(real_covariance[count:, count:])
    told, real_told = covariance[count:, :count], real_covariance[count:, :count]
    slopes, real_slopes = (torch.linalg.solve(of_condition, part) for part in (told, real_told))
    of_slopes = ((told - real_told) * (slopes - real_slopes)).sum()
    left = _left(covariance[:count, :count], told @ basis, slopes @ basis, basis)
    real_left = _left(real_covariance[:count, :count], real_told @ basis, real_slopes @ basis, basis).detach()
    variance = (real_told * real_slopes).sum() + real_left.trace()
    distance = (mean - real_mean).square().sum() + of_slopes + distance_of_spreads(left, real_left)
    return distance / variance.detach().clamp(min=1e-12)


def _left(covariance: Tensor, told: Tensor, slopes: Tensor, basis: Tensor) -> Tensor:
    """The covariance (K, K), within the basis, of what the condition does not tell."""
    return basis.T @ covariance @ basis - told.T @ slopes


def _ridged(covariance: Tensor) -> Tensor:
    return covariance + _RIDGE * torch.eye(len(covariance), device=covariance.device)


def distance_of_spreads(covariance: Tensor, real_covariance: Tensor) -> Tensor:
    """The squared Frechet distance of two Gaussians of one mean and these covariances (C, C)."""
    with torch.no_grad():
        values, basis = torch.linalg.eigh(real_covariance)
        values = values.clamp(min=0)
        root = (basis * values.sqrt()) @ basis.T
    cross = torch.linalg.eigvalsh(root @ covariance @ root)
    floor = (values[-1].square() * 1e-8).clamp(min=1e-20)
    return covariance.trace() + values.sum() - 2 * cross.clamp(min=floor).sqrt().sum()
