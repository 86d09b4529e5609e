"""How much signal and noise there is at a time, and the scales of a network that predicts from it.

On every level x = alpha clean + sigma noise. Flow models: alpha = 1 - t, sigma = t, t in [0, 1]. Variance-preserving
ones: alpha^2 + sigma^2 = 1 and t counts the steps of a schedule.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class NoiseLevels(nn.Module):
    """(alpha, sigma), each (N,), at times (N,); ``scheduler``: a diffusers configuration, None for flow."""

    alphas: Tensor | None

    def __init__(self, scheduler: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.register_buffer("alphas", None if is_flow(scheduler) else _alphas(scheduler), persistent=False)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at the times ``t`` (N,), as x = alpha * clean + sigma * noise."""
        if self.alphas is None:
            t = t.float()
            return 1 - t, t
        alpha = self.alphas[t.long()]
        return alpha, (1 - alpha.square()).sqrt()


def is_flow(scheduler: dict[str, Any] | None) -> bool:
    """Whether a scheduler's configuration (None too) is that of a flow model."""
    return not scheduler or str(scheduler.get("_class_name", "")).startswith("FlowMatch")


def _alphas(scheduler: dict[str, Any] | None) -> Tensor:
    from diffusers import DDPMScheduler

    known: Any = DDPMScheduler.from_config(scheduler)
    return known.alphas_cumprod.double().clamp(0, 1).sqrt().float()


def preconditioning(prediction: str, alpha: Tensor, sigma: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scales (of x for the network, of x in the estimate, of the network's output) for data of deviation ``std``.

    The target y is noise - clean (flow), noise (epsilon) or alpha noise - sigma clean (v_prediction). With
    D = alpha^2 std^2 + sigma^2 = var x, the best linear estimate is cov(x, y) / D x. Its error has the deviation
    (alpha + sigma) std / sqrt(D), alpha std / sqrt(D) or (alpha^2 + sigma^2) std / sqrt(D). The first and the last
    bracket are 1 on the levels they are used with.
    """
    spread = alpha**2 * std**2 + sigma**2
    root = spread.rsqrt()
    if prediction == "flow":
        return root, (sigma - alpha * std**2) / spread, std * root
    if prediction == "epsilon":
        return root, sigma / spread, alpha * std * root
    return root, alpha * sigma * (1 - std**2) / spread, std * root
