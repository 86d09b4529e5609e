"""From labels, texts and vectors to the condition of every cell of a prior."""

from __future__ import annotations

import numpy as np

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.encoders.text import TextEncoder
from ssl_tilegen.errors import FormatError, InputError, SettingError
from ssl_tilegen.io.npy_vectors import load_vector
from ssl_tilegen.prior.scene import Region
from ssl_tilegen.prior.spec import PriorInfo


class PromptEncoder:
    """Turns labels, texts and vectors into the condition of a cell (C,), NaN for unknown numbers."""

    def __init__(self, bundle: ModelBundle, info: PriorInfo) -> None:
        self._bundle, self._info = bundle, info
        self._encoder: TextEncoder | None = None

    def __call__(self, region: Region) -> tuple[np.ndarray, str | None]:
        """The condition, and the label that it is of or nearest to (None where nothing is said)."""
        info = self._info
        condition = np.full(info.condition_dim, np.nan, np.float32)
        if region.text is not None:
            condition[info.parts["text"]] = self._text(region.text)
        if region.vector is not None:
            vector = load_vector(region.vector)
            info.check_vector(vector.shape, region.vector)
            condition[info.parts["vector"]] = vector
        label = self._nearest(condition)
        if region.label is not None:
            label = info.label_named(region.label)
            condition[info.parts["label"]] = info.one_hot(label)
        return condition, label

    def conditions(self, regions: list[Region], rest: Region) -> tuple[np.ndarray, str | None]:
        """The conditions of the regions of a map, and last that of the rest of it (N + 1, C); the label of the rest or
        of the first region that has one."""
        condition, label = self(rest)
        conditions = []
        for region in regions:
            part, name = self(region)
            conditions.append(part)
            first = self._info.labels[label].domain if label else None
            if name and first and self._info.labels[name].domain != first:
                raise SettingError(
                    f"--scene: '{name}' is of domain {self._info.labels[name].domain}, '{label}' of {first}; a scene "
                    "has one domain"
                )
            label = label or name
        return np.stack([*conditions, condition]), label

    def _text(self, text: str) -> np.ndarray:
        facts = self._info.text
        if facts is None:
            raise InputError("--text: this prior was trained without text; give --label or --vector")
        if self._encoder is None:
            self._encoder = TextEncoder.load(facts.name, self._bundle.device)
            if self._encoder.sha256 != facts.sha256:
                raise FormatError(
                    f"text encoder {facts.name}: not the weights that the prior was trained with; install that version"
                )
        return self._encoder.embed([text])[0]

    def _nearest(self, condition: np.ndarray) -> str | None:
        """The label whose text or vector, on average, is nearest to the given one."""
        parts = [self._info.parts[name] for name in ("text", "vector")]
        known = [part for part in parts if part.stop > part.start and not np.isnan(condition[part]).any()]
        if not known:
            return None
        prior = self._bundle.prior
        anchors, std = prior.anchors.float().cpu().numpy(), prior.condition_std.float().cpu().numpy()
        distance = sum((((anchors[:, part] - condition[part]) / std[part]) ** 2).mean(1) for part in known)
        return self._info.names[int(np.argmin(distance))]


def prior_of(bundle: ModelBundle) -> PriorInfo:
    """The facts of the bundle's prior. FormatError where it has none, or one of another encoder's grids."""
    info = bundle.prior_info
    if info is None:
        raise FormatError(
            f"{bundle.info.name}: this model has no prior, which draws grids; give --grid, or train one "
            "(ssl-tilegen train prior)"
        )
    if bundle.has("encoder") and bundle.component_hash("encoder") != info.encoder_sha256:
        raise FormatError(f"{bundle.info.name}: its prior was trained on grids of another encoder; train it again")
    return info
