"""Well-known encoders by name. To add one, add its card to `pathology` or `natural`."""

from __future__ import annotations

from ssl_tilegen.encoders.card import EncoderCard
from ssl_tilegen.encoders.natural import NATURAL
from ssl_tilegen.encoders.pathology import PATHOLOGY

CARDS: tuple[EncoderCard, ...] = PATHOLOGY + NATURAL

ENCODERS: dict[str, EncoderCard] = {card.name: card for card in CARDS}
