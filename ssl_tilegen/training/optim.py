"""Optimisers: AdamW, and Muon for matrices and kernels with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_tilegen.config.train import RunSettings
from ssl_tilegen.training.sharding import cut_like, whole

_QUINTIC = (3.4445, -4.7750, 2.0315)
_MOMENTUM = 0.95
_MATCH_ADAMW = 0.2


def make_optimiser(module: nn.Module, run: RunSettings) -> torch.optim.Optimizer:
    """The optimiser of ``run``; weight decay on matrices and kernels only."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    wide = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    if run.optimiser == "muon":
        first_and_last = {id(p) for p in _edges(module)}
        inner = [p for p in wide if id(p) not in first_and_last]
        outer = [p for p in wide if id(p) in first_and_last]
        return Muon(inner, outer, plain, run)
    groups = [{"params": wide, "weight_decay": run.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=run.lr, betas=(run.beta1, run.beta2), foreach=True)


def _edges(module: nn.Module) -> list[Tensor]:
    """Parameters of a network's first and last layers, which Muon does not suit (Jordan et al. 2024)."""
    return [p for name in getattr(module, "edge_layers", ()) for p in module.get_submodule(name).parameters()]


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are made orthogonal (Jordan et al. 2024), scaled to AdamW's size of step
    (Liu et al. 2025, arXiv 2502.16982), so that both kinds share one learning rate. A kernel is the matrix of its
    outputs against all else. ``edges`` (matrices and kernels of first and last layers) and ``others`` get AdamW.
    """

    def __init__(
        self, matrices: Sequence[Tensor], edges: Sequence[Tensor], others: Sequence[Tensor], run: RunSettings
    ) -> None:
        groups = [
            {"params": matrices, "weight_decay": run.weight_decay, "orthogonal": True},
            {"params": edges, "weight_decay": run.weight_decay, "orthogonal": False},
            {"params": others, "weight_decay": 0.0, "orthogonal": False},
        ]
        super().__init__([g for g in groups if g["params"]], {"lr": run.lr, "beta1": run.beta1, "beta2": run.beta2})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters once from their gradients."""
        for group in self.param_groups:
            move = self._orthogonal if group["orthogonal"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(move(parameter, group).to(parameter.dtype), alpha=group["lr"])

    def _orthogonal(self, parameter: Any, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - _MOMENTUM)
        nesterov = whole(parameter.grad.lerp(state["momentum"], _MOMENTUM)).flatten(1)
        update = orthogonalised(nesterov) * (_MATCH_ADAMW * max(nesterov.shape) ** 0.5)
        return cut_like(update.reshape(parameter.shape), parameter)

    def _adam(self, parameter: Any, group: dict[str, Any]) -> Tensor:
        state, beta1, beta2 = self.state[parameter], group.get("beta1", 0.9), group["beta2"]
        if not state:
            state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] = torch.tensor(0.0)
        state["step"] += 1
        state["first"].lerp_(parameter.grad, 1 - beta1)
        state["second"].lerp_(parameter.grad.square(), 1 - beta2)
        n = float(state["step"])
        return state["first"] / (1 - beta1**n) / ((state["second"] / (1 - beta2**n)).sqrt() + 1e-8)


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """About the nearest matrix with equal singular values, by a quintic Newton-Schulz iteration: (m, n) -> (m, n).

    Every iterate is a polynomial of the Gram matrix times the input. So the iteration runs on the small square Gram
    matrix, and the input is multiplied once, at the end. For kernels this is 2 to 3 times less work.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).float()
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    identity = torch.eye(len(gram), device=x.device)
    product = identity
    for step in range(steps):
        factor = a * identity + b * gram + c * (gram @ gram)
        product = factor @ product
        if step < steps - 1:
            gram = factor @ gram @ factor
    x = product @ x
    return x.T if tall else x
