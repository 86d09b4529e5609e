"""The encoder of a bundle: the one that it carries, or the one that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import nn

from ssl_tilegen.encoders.base import Normalisation
from ssl_tilegen.encoders.module_encoder import NetworkEncoder
from ssl_tilegen.errors import FormatError, InputError

_NO_NAMES = ("none", "unknown", "")


class Bundle(Protocol):
    """The part of a bundle that is used here (``ssl_tilegen.bundle.ModelBundle``, which lies above this layer)."""

    folder: Path
    info: Any
    device: Any

    @property
    def encoder(self) -> nn.Module:
        """The tile encoder."""
        ...

    @property
    def hash(self) -> str:
        """sha256 of the bundle."""
        ...

    def has(self, component: str) -> bool:
        """Whether the bundle carries a component."""
        ...

    def component_hash(self, component: str) -> str:
        """sha256 of a component's weights."""
        ...


class BundleEncoder(NetworkEncoder):
    """A bundle's encoder, read at the resolution the bundle was trained for; ``bundle`` says which bundle it is of.

    Its ``weights_sha256`` is the bundle's own hash of the component, so that a grid can be matched with a bundle
    without loading a network.
    """

    def __init__(self, bundle: Bundle, *, batch: int | None = None) -> None:
        facts = bundle.info.encoder
        super().__init__(
            facts.id,
            bundle.encoder,
            tile_px=facts.tile_px,
            input_px=facts.input_px or None,
            normalisation=Normalisation(tuple(facts.mean), tuple(facts.std)),
            pooling="pool" if facts.pooling == "head" else facts.pooling,
            resolution=bundle.info.resolution("um"),
            device=bundle.device,
            batch=batch,
            weights_sha256=bundle.component_hash("encoder"),
        )
        self.bundle = {"id": bundle.info.name, "sha256": bundle.hash}


def has_encoder(bundle: Bundle) -> bool:
    """Whether a bundle carries an encoder or names one, as imported bundles do."""
    return bundle.has("encoder") or bundle.info.encoder.id not in _NO_NAMES


def encoder_key(bundle: Bundle) -> str:
    """The identity of a bundle's encoder, without loading it: the hash of the one it carries, else its name."""
    return bundle.component_hash("encoder") if bundle.has("encoder") else str(bundle.info.encoder.id)


def is_made_by_encoder_of(bundle: Bundle, facts: Any) -> bool:
    """Whether a grid whose encoder is ``facts`` (``grids.EncoderFacts``) was made by the bundle's encoder. One that a
    bundle names is known by its name alone."""
    return encoder_key(bundle) == (facts.weights_sha256 if bundle.has("encoder") else facts.id)


def encoder_of(bundle: Bundle, weights: str | Path | None = None, *, batch: int | None = None) -> NetworkEncoder:
    """The encoder that a bundle carries, or the one that it names, at the cells and the resolution that it wants.

    Args:
        bundle: The bundle.
        weights: A file or folder with the weights of a named encoder; by default they are downloaded.
        batch: Tiles per call of the network.

    Raises:
        InputError: the bundle neither carries an encoder nor names one, or its weights cannot be had.
        FormatError: the named encoder gives other vectors than the bundle wants.
    """
    if bundle.has("encoder"):
        return BundleEncoder(bundle, batch=batch)
    if not has_encoder(bundle):
        raise InputError(f"{bundle.folder}: carries no encoder and names none; give --encoder NAME")
    return _named(bundle, weights, batch)


def _named(bundle: Bundle, weights: str | Path | None, batch: int | None) -> NetworkEncoder:
    from ssl_tilegen.encoders.timm_encoder import load_timm_encoder  # timm takes seconds to import

    facts = bundle.info.encoder
    named = load_timm_encoder(
        facts.id,
        weights=weights,
        pooling=None if facts.pooling == "head" else facts.pooling,
        device=bundle.device,
        batch=batch,
        tile_px=facts.tile_px or None,
        resolution=bundle.info.resolution("um"),
    )
    if facts.dim and named.dim != facts.dim:
        raise FormatError(
            f"{bundle.folder}: wants vectors of {facts.dim} numbers, {facts.id} gives {named.dim}; give --encoder with "
            "the one it was trained for"
        )
    return named
