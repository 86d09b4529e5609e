"""The encoder that a bundle carries."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn

from ssl_tilegen.encoders.base import Normalisation
from ssl_tilegen.encoders.module_encoder import NetworkEncoder


class Bundle(Protocol):
    """What is needed of a bundle (``ssl_tilegen.bundle.ModelBundle``, which lies above this layer)."""

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
