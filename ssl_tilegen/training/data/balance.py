"""How often the windows of each domain are drawn."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from ssl_tilegen.training.data.latent_cache import LatentScene


def balanced(scenes: list[LatentScene], balance: float) -> list[LatentScene]:
    """The scenes with their chances changed so that every domain's share is its own to the power 1 - ``balance``."""
    shares: dict[int, float] = defaultdict(float)
    for scene in scenes:
        shares[scene.group] += scene.chance
    return [replace(s, chance=s.chance * shares[s.group] ** -balance if shares[s.group] else 0.0) for s in scenes]
