"""Results of `evaluate`: scores and facts as JSON values, and the data behind them for plots and images."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from ssl_tilegen.metrics.copying import Copying
from ssl_tilegen.metrics.resampling import Interval
from ssl_tilegen.system.names import recordable
from ssl_tilegen.workflows.evaluate.features import Features
from ssl_tilegen.workflows.evaluate.large_image_scores import Condition
from ssl_tilegen.workflows.evaluate.pairs import PairScore
from ssl_tilegen.workflows.evaluate.scores import Score
from ssl_tilegen.workflows.evaluate.task import TaskReport


@dataclass(frozen=True)
class SetFacts:
    """Facts of a set: images, windows that were compared, independent groups, and how the images were stored."""

    path: str
    images: int
    windows: int
    groups: int
    storage: dict[str, float]


@dataclass(frozen=True)
class EvaluateReport:
    """Everything that was found."""

    software: str
    sets: dict[str, SetFacts]
    window_px: int | None
    resolution: str | None
    scores: tuple[Score, ...]
    condition: Condition | None
    task: TaskReport | None
    warnings: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    report: str | None = None
    seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """The report as JSON values; unknown numbers are null. The scores are called ``figures`` there."""
        found: dict[str, Any] = jsonable(self)
        return {"figures" if name == "scores" else name: value for name, value in found.items()}


@dataclass
class Evidence:
    """The data behind the scores, for plots and the gallery. By encoder: ``features`` of each set, ``copies``,
    ``nearest`` and ``apart``. ``nearest``: distance and index of the nearest real vector to each synthetic one.
    ``apart``: distance of each real vector to the nearest one of another group."""

    features: dict[str, dict[str, Features]] = field(default_factory=dict)
    pairs: list[PairScore] = field(default_factory=list)
    copies: dict[str, Copying] = field(default_factory=dict)
    nearest: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    apart: dict[str, np.ndarray] = field(default_factory=dict)


def jsonable(value: Any) -> Any:
    """Dataclasses and named tuples as objects, arrays as lists, NaN and infinity as null, names as a file can hold
    them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: jsonable(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Interval):
        return jsonable(value._asdict())
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, (int, bool)) or value is None else recordable(str(value))
