"""The models at hand: bundles, and encoders known by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssl_tilegen.encoders.registry import CARDS, EncoderCard


@dataclass(frozen=True)
class Listing:
    """What `models list` shows."""

    encoders: tuple[EncoderCard, ...]
    bundles: tuple[dict[str, Any], ...] = ()


def listing() -> Listing:
    """All bundles and encoders that can be named."""
    return Listing(CARDS)


def table(found: Listing) -> str:
    """The listing as text, one encoder a line."""
    head = f"{'encoder':<20}{'dim':>6}{'tile':>6}  {'um/px':<6} {'pooling':<9} {'licence':<22} weights"
    rows = [
        f"{card.name:<20}{card.dim:>6}{card.tile_px:>6}  {card.mpp or '-':<6} {card.pooling:<9} {card.licence:<22} "
        f"{card.source}{' (gated)' if card.gated else ''}"
        for card in found.encoders
    ]
    return "\n".join([head, *rows])
