"""From the prediction of a network to the clean latent that it means.

All follow from ``x = alpha * clean + sigma * noise`` (Salimans & Ho 2022, appendix D).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ssl_tilegen.diffusion.schedule import Step
from ssl_tilegen.errors import FormatError

ToClean = Callable[[Tensor, Tensor, Step], Tensor]


def _some_signal(step: Step) -> float:
    if step.alpha == 0:
        raise FormatError("scheduler_config.json: noise prediction (epsilon) on a schedule that starts at pure noise: "
                          "such a model must predict v, flow or sample")  # fmt: skip
    return step.alpha


PARAMETERIZATIONS: dict[str, ToClean] = {
    "flow": lambda raw, x, step: x - step.sigma * raw,  # raw = noise - clean, alpha = 1 - sigma
    "epsilon": lambda raw, x, step: (x - step.sigma * raw) / _some_signal(step),  # raw = noise
    "v_prediction": lambda raw, x, step: step.alpha * x - step.sigma * raw,  # raw = alpha noise - sigma clean
    "sample": lambda raw, x, step: raw,
}


def to_clean(kind: str) -> ToClean:
    """``(raw, x, step) -> clean`` for a prediction type; all arrays are (N, C, h, w)."""
    try:
        return PARAMETERIZATIONS[kind]
    except KeyError:
        raise FormatError(f"unknown prediction type {kind!r}; known: {', '.join(PARAMETERIZATIONS)}") from None
